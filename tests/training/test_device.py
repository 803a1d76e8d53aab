"""Where a run computes, whatever the cluster's variables say."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmsa.training.device import keep_blocks, make_fabric

CLUSTERS = {
    "slurm, without srun": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "1"},
    "lsf": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "hosts", "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "open mpi": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "kubeflow": {"KUBERNETES_PORT": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"},
}


@pytest.mark.parametrize("cluster", list(CLUSTERS))
def test_a_run_is_one_process_on_one_device_in_any_cluster(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("cpu", "32-true", False, 1)
    assert (fabric.world_size, fabric.global_rank, fabric.device.type) == (1, 0, "cpu")
    assert fabric.is_global_zero


def test_the_kernels_of_every_length_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    for own, expected in ((None, "16384"), ("7", "7")):
        if own is None:
            monkeypatch.delenv(capacity, raising=False)
        else:
            monkeypatch.setenv(capacity, own)
        make_fabric("cpu", "32-true", False, 1)
        assert os.environ[capacity] == expected


GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_memory_that_a_step_frees_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            step = [bytearray(16 << 20) for _ in range(10)]
            del step
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    make_fabric("cpu", "32-true", False, 1)
    assert faults() < 2 * (160 << 20) / resource.getpagesize(), "each is taken from the system anew"


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
@pytest.mark.parametrize("own", [{}, {"MALLOC_MMAP_MAX_": "0"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}])
def test_the_memory_settings_of_the_user_stay(own: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_here: list[int] = []
    library = SimpleNamespace(mallopt=lambda name, value: set_here.append(name))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    keep_blocks()
    assert bool(set_here) == (not own)
