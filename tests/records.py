"""The record of a run that never was."""

from __future__ import annotations

from typing import Any

from mmsa.record import RunRecord


def record(**changed: Any) -> RunRecord:
    """A finished run on CMU-MOSI, with what is changed of it."""
    known: dict[str, Any] = {
        "name": "run",
        "status": "finished",
        "seed": 1,
        "dataset": "cmu_mosi",
        "task": "regression",
        "data": {"fingerprint": "aaaabbbbccccdddd", "store": "cmu_mosi-aaaa.h5"},
        "monitor": "valid/mae",
        "mode": "min",
        "primary": ["mae", "corr"],
        "num_parameters": 12,
        "planted": False,
        "overrides": [],
        "git": {"commit": "c0ffee", "dirty": False},
    }
    return RunRecord.model_validate(known | changed)
