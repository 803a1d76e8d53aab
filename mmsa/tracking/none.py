"""Tracking switched off."""

from __future__ import annotations

from mmsa.tracking.tracker import Tracker


class NullTracker(Tracker):
    """Shows nothing: the run's folder holds everything."""
