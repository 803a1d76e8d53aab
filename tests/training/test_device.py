"""Where a run computes, whatever the cluster's variables say."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch

from mmsa.errors import ConfigError
from mmsa.process import left_as_it_was
from mmsa.program import training
from mmsa.testing.batches import make_batch
from mmsa.testing.training import same
from mmsa.training.device import keep_blocks, make_fabric, one_device
from mmsa.types import Batch, Moment
from tests.house.command_lines import check

CLUSTERS = {
    "slurm, without srun": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "1"},
    "lsf": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "hosts", "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "open mpi": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "kubeflow": {"KUBERNETES_PORT": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"},
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests find PyTorch as it comes."""
    with left_as_it_was():
        yield


@pytest.mark.parametrize("cluster", list(CLUSTERS))
def test_a_run_has_as_many_processes_as_it_asks_for_in_any_cluster(
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
    for rank in (0, 1):
        one = make_fabric("cpu", "32-true", False, 1, devices=2, rank=rank, port=1)
        assert (one.world_size, one.global_rank, one.node_rank, one.is_global_zero) == (2, rank, 0, rank == 0)


@pytest.mark.parametrize(("accelerator", "there"), [("cuda", 3), ("mps", 1)])
def test_more_devices_than_there_are_are_refused(
    accelerator: Literal["cuda", "mps"], there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    refusal = f"device.devices=4: this machine has {there} for device={accelerator}.\n  type device.devices={there}"
    with pytest.raises(ConfigError, match=f"^{re.escape(refusal)}$"):
        make_fabric(accelerator, "32-true", False, 1, devices=4)


def test_a_prompt_is_refused_with_the_line_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(ConfigError, match="a notebook or a prompt of Python trains on one device") as refused:
        make_fabric("cpu", "32-true", False, 1, devices=2)
    (overrides,) = re.findall(f"type device.devices=1, or {training()} (.*) …, in a terminal$", str(refused.value))
    check(overrides)
    make_fabric("cpu", "32-true", False, 1, devices=1)


def test_the_kernels_of_every_length_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity, former = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"
    for own, expected in (({}, "16384"), ({capacity: "7"}, "7"), ({former: "7"}, None)):
        for name in (capacity, former):
            monkeypatch.delenv(name, raising=False)
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        make_fabric("cpu", "32-true", False, 1)
        assert os.environ.get(capacity) == expected


def test_32_bits_are_32_bits_on_a_gpu_too() -> None:
    torch.backends.cudnn.allow_tf32 = True
    make_fabric("cpu", "32-true", False, 1)
    assert not torch.backends.cudnn.allow_tf32
    make_fabric("cpu", "bf16-mixed", False, 1)
    assert torch.backends.cudnn.allow_tf32


class Keeps(torch.nn.Module):
    """Stands for a learner."""

    def forward(self, batch: Batch, moment: Moment) -> None:
        self.batch = batch


def test_bf16_rounds_the_features_of_a_batch_and_not_its_targets() -> None:
    given, learner = make_batch(), Keeps()
    one_device("cpu", "bf16-mixed").setup_module(learner)(given, Moment(1, 1, 1, 1))
    two = make_fabric("cpu", "bf16-mixed", False, 1, devices=2, port=1)
    ((of_two, _), _) = two.strategy.precision.convert_input(((given, Moment(1, 1, 1, 1)), {}))
    for batch in (learner.batch, of_two):
        assert {values.dtype for values in batch.features.values()} == {torch.bfloat16}
        assert same(batch.targets, given.targets) and same(batch.lengths, given.lengths)
        assert {target.dtype for target in batch.targets.values()} == {torch.float32}


def test_several_gpus_train_without_a_warning_of_how_fabric_sets_them_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []
    monkeypatch.setattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", said.append, raising=False)
    make_fabric("cpu", "32-true", False, 1)
    assert not said
    make_fabric("cpu", "32-true", False, 1, devices=2, port=1)
    assert said == [False]


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
