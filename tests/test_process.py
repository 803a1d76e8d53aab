"""The process that calls us from Python is afterwards as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import mmsa
from mmsa.errors import DataError
from mmsa.process import left_as_it_was

LOGGERS = ("", "alembic", "hydra.utils", "lightning_fabric", "matplotlib", "mlflow", "sqlalchemy", "urllib3")


def state() -> dict[str, Any]:
    """Of this process, whatever a run might change."""
    loggers = {name: logging.getLogger(name) for name in LOGGERS}
    return {
        "threads": torch.get_num_threads(),
        "generators": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "memory": torch.utils.deterministic.fill_uninitialized_memory,
        "rounding": (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "loggers": ({name: logger.level for name, logger in loggers.items()}, list(logging.root.handlers)),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
        "program": (list(sys.argv), list(sys.path), sys.stdout, sys.excepthook),
    }


def test_whoever_calls_from_python_finds_the_process_as_it_was(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow  # noqa: F401  (which sets its loggers)

    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "CUBLAS_WORKSPACE_CONFIG", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for name in LOGGERS[1:]:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
    random.seed(1)
    before = state()
    typed = [*small, "tracking=mlflow", "device.threads=2", "trainer.max_epochs=1", "trainer.batch_size=300"]
    result = mmsa.run(typed, quiet=True)
    assert state() == before
    mmsa.load(result.folder)
    assert state() == before
    with pytest.raises(DataError, match=r"result\.json is missing"):
        mmsa.run([*typed, "tracking.uri=http://me:secret@host", "trainer.resume=/nowhere"], seeds=[1])
    assert state() == before


def test_what_is_set_in_the_process_is_set_back_after_an_error_too() -> None:
    before = state()
    with pytest.raises(KeyboardInterrupt), left_as_it_was():
        torch.set_num_threads(before["threads"] + 1)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.allow_tf32 = not before["rounding"][0]
        for draw in (random.random, np.random.random, lambda: torch.rand(1)):
            draw()
        warnings.simplefilter("ignore")
        os.environ |= {"MMSA_OF_A_RUN": "1", "PATH": "/"}
        del os.environ["HOME"]
        assert all(state()[what] != before[what] for what in ("threads", "generators", "warnings", "environment"))
        raise KeyboardInterrupt
    assert state() == before


@pytest.mark.parametrize("in_use", [True, False])
def test_the_generators_of_gpus_are_set_back_and_no_gpu_is_taken_into_use_for_that(
    in_use: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the CPU plays the part."""
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: calls.append("asked") or ["state"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", calls.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    with left_as_it_was():
        calls.append("run")
    assert calls == (["asked", "run", ["state"]] if in_use else ["run", torch.initial_seed()])
