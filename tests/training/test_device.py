"""Where a run computes, whatever the cluster's variables say."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mmsa.training.device import make_fabric

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
