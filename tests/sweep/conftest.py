"""What the tests of sweeps share."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from optuna.storages._rdb.storage import _VersionManager

from mmsa.sweep import machine
from tests.sweep.slot_plans import SMI


@pytest.fixture(autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Locks of the test's own: slots are shared by all sweeps of a user."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setenv("MMSA_LOCKS", str(folder))
    yield folder


@pytest.fixture(scope="session", autouse=True)
def revisions_read_once() -> Iterator[None]:
    """Whenever a study is opened Optuna reads the versions of its tables, which are those of its package."""
    read, known = _VersionManager._create_alembic_script, []

    def script(manager: _VersionManager) -> Any:
        if not known:
            known.append(read(manager))
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", script)
        yield


VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL", "MMSA_PRETEND_GPUS"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_LOCALID"),
    "LOKY_MAX_CPU_COUNT",
)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the cores 2, 3, 6 and 7, no GPU, and nothing that chooses among them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {7, 2, 3, 6}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an nvidia-smi on the path, for a PyTorch that can use what it lists."""

    def install(listing: str = SMI, status: int = 0) -> None:
        (tmp_path / "listing").write_text(listing)
        script = tmp_path / "nvidia-smi"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --query-gpu=index,uuid,name,memory.free ] || exit 9\n'
            f"cat {tmp_path}/listing\nexit {status}\n"
        )
        script.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(machine, "num_torch_gpus", lambda: 3)

    return install


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a study's database."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def base(stores: Path, tmp_path: Path, undrawn: None) -> list[str]:
    """Overrides of a small sweep."""
    return [
        f"paths.data={stores}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "tracking=none",
        "device=cpu",
        "hidden_dim=4",
        "fusion=concat",
        "trainer.max_epochs=2",
        "trainer.batch_size=64",
        "dataset.modalities=[text]",
    ]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Where the runs of a small sweep are."""
    return tmp_path / "outputs" / "runs"
