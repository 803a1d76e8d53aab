"""Optuna studies over the CPU and GPU slots of one machine or several."""
