"""Cores and GPUs are those that are here and allowed, by whichever of the system's words."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
import torch

from mmsa.errors import ConfigError
from mmsa.sweep import machine
from mmsa.sweep.machine import Gpu, found_gpus, num_cores
from tests.sweep.slot_plans import SMI, names, plan

pytestmark = pytest.mark.usefixtures("four_cores")


# --- Cores ------------------------------------------------------------------------------------------------------------


def test_cores_are_the_least_of_all_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_cores() == 4
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert num_cores() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")  # the task's share counts, not the job's
    assert num_cores() == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "0")  # at least one
    assert num_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    assert num_cores() == 4
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)  # by the affinity, a container's quota, or LOKY_MAX_CPU_COUNT
    assert num_cores() == 3


def test_this_machine_has_cores_that_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert num_cores() == 1
    monkeypatch.undo()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert num_cores() == 1


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_gpus_as_nvidia_smi_lists_them(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi()
    assert found_gpus() == [
        Gpu(0, "GPU-aaaa1111", "NVIDIA A100, SXM4", 2**30),
        Gpu(1, "GPU-aaaa2222", "NVIDIA A100, SXM4", 39 * 2**30),
        Gpu(2, "GPU-bbbb3333", "NVIDIA GB10", None),
    ]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ["GPU-bbbb3333", "GPU-aaaa1111"]),
        (" 1 ", ["GPU-aaaa2222"]),
        ("GPU-b,GPU-aaaa2", ["GPU-bbbb3333", "GPU-aaaa2222"]),
        ("GPU-a", []),  # which of the two
        ("1,9,0", ["GPU-aaaa2222"]),  # CUDA ends at the first that is not there
        ("1,GPU-aaaa2222", ["GPU-aaaa2222"]),
        ("MIG-1/2/0,0", ["MIG-1/2/0", "GPU-aaaa1111"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(
    visible: str, expected: list[str], nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    found = found_gpus()
    assert [gpu.id for gpu in found] == expected
    assert [gpu.index for gpu in found] == list(range(len(expected)))
    assert all(gpu.free is None for gpu in found if gpu.id.startswith("MIG"))


def test_a_job_of_slurm_has_its_own_gpus_only(nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi()
    monkeypatch.setenv("SLURM_JOB_GPUS", "1,2")
    assert [gpu.id for gpu in found_gpus()] == ["GPU-aaaa2222", "GPU-bbbb3333"]
    monkeypatch.setenv("SLURM_STEP_GPUS", "2")
    assert [gpu.id for gpu in found_gpus()] == ["GPU-bbbb3333"]
    nvidia_smi(SMI.splitlines()[0])  # the system shows the job nothing else, numbered anew
    assert [gpu.id for gpu in found_gpus()] == ["GPU-aaaa1111"]


@pytest.mark.parametrize("failing", [True, False])
def test_without_nvidia_smi_pytorch_counts(
    failing: bool, nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if failing:
        nvidia_smi("NVIDIA-SMI has failed", status=9)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 2)
    assert found_gpus() == [Gpu(0, "0", "GPU", None), Gpu(1, "1", "GPU", None)]
    assert names(plan()) == ["cuda:0 1/1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-c,3")
    assert [(gpu.index, gpu.id) for gpu in found_gpus()] == [(0, "GPU-c"), (1, "3")]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in plan().slots] == ["GPU-c", "3"]


def test_a_hanging_nvidia_smi_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_SMI_SECONDS", 0.1)
    assert found_gpus() == []


def test_gpus_are_none_for_a_pytorch_without_them(
    nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi()
    monkeypatch.setattr(machine, "num_torch_gpus", lambda: 0)
    assert found_gpus() == []
    assert names(plan()) == ["cpu 1", "cpu 2", "cpu 3", "cpu 4"]


def test_pytorch_agrees_on_the_number_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert machine.num_torch_gpus() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


@pytest.mark.parametrize("text", ["8,much", "nan", "inf"])
def test_a_pretended_gpu_has_a_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", text)
    with pytest.raises(ConfigError, match=r"  type export MMSA_PRETEND_GPUS="):
        found_gpus()
