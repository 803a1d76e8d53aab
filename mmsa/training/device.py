"""Where a run computes."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.utils._pytree import tree_map_only

from mmsa.errors import ConfigError
from mmsa.process import silence
from mmsa.program import make, program, training
from mmsa.types import Batch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT, MOST_KEPT = 32 << 20, 256 << 20
"""Bytes: the largest block that is kept for the next step, the most that glibc allows, and how much is kept at most."""

memory: Any = torch.utils.deterministic  # whose property its types do not know
LONGEST_WAIT = timedelta(hours=1)
"""Of a process for another that lives, such as that which evaluates; one that has died is noticed at once."""


def make_fabric(
    accelerator: Literal["auto", "cpu", "cuda", "mps"],
    precision: Literal["32-true", "bf16-mixed"],
    deterministic: bool,
    threads: int,
    devices: int = 1,
    rank: int = 0,
    port: int | None = None,
) -> Fabric:
    """The device and precision of this process, with its number of threads and determinism set.

    Args: as `mmsa.config.DeviceOptions` says; of several devices also
        rank: of this process among the `devices` ones, from 0.
        port: where they meet; None finds a free one.

    Raises:
        ConfigError: the accelerator is not there, or not as often.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(name for name, there in available.items() if there) if accelerator == "auto" else accelerator
    if not available[chosen]:
        if chosen == "cuda" and (refusal := build_without_cuda()):
            raise refusal
        there = ", ".join(name for name, found in available.items() if found)
        raise ConfigError(
            f"device={chosen}: PyTorch {torch.__version__} finds none on this machine; it finds {there}.\n"
            "  type device=cpu, or device=auto"
        )
    if devices > 1:
        _check_number(devices, chosen)
    torch.set_num_threads(threads)
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # its former name, which a user may have set
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # 1,024 are few: a length has its own
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuda products need
    torch.backends.cudnn.allow_tf32 = precision != "32-true"  # a GPU's recurrences round to 10 bits, bf16 has 7
    keep_blocks()
    torch.use_deterministic_algorithms(deterministic, warn_only=chosen == "mps")
    memory.fill_uninitialized_memory = False  # costs 3 to 5 % of a step, and nothing reads it
    if devices == 1:
        return one_device(chosen, precision)
    quiet_fabric()
    if warns := getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None):  # a newer PyTorch
        warns(False)  # of Fabric, which makes DDP in a stream of its own
    return Fabric(
        accelerator=chosen,
        devices=devices,
        strategy=DDPStrategy(timeout=LONGEST_WAIT, find_unused_parameters=True),
        plugins=[OneMachine(rank, devices, port or find_free_network_port()), *_rounding(precision, chosen)],
    )


def _check_number(devices: int, accelerator: str) -> None:
    """Refuse more devices than there are, and a prompt, from which Fabric starts no processes.

    Raises:
        ConfigError: it is one of them.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator, devices)
    if devices > there:
        raise ConfigError(
            f"device.devices={devices}: this machine has {there} for device={accelerator}.\n"
            f"  type device.devices={there}"
        )
    if hasattr(sys, "ps1"):
        raise ConfigError(
            f"device.devices={devices}: a notebook or a prompt of Python trains on one device.\n"
            f"  type device.devices=1, or {training()} device.devices={devices} …, in a terminal"
        )


class OneMachine(ClusterEnvironment):
    """The processes of a run on several devices of this machine, whatever a cluster's variables say.

    Args:
        rank: of this process, from 0.
        num_ranks: how many there are.
        port: where they meet.
    """

    def __init__(self, rank: int, num_ranks: int, port: int) -> None:
        self._rank, self._num_ranks, self._port = rank, num_ranks, port

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._num_ranks

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


def keep_blocks() -> None:
    """Let glibc keep the memory that a step frees for the next one, unless the user has set its variables.

    By itself it returns much of it to the system, and a step that takes it again pays for every page.
    """
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"}
    if sys.platform != "linux" or own & os.environ.keys():
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # other C libraries have none
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def one_device(accelerator: str = "cpu", precision: Literal["32-true", "bf16-mixed"] = "32-true") -> Fabric:
    """Fabric for one process on one device, also in a job of SLURM, MPI or torchrun, which it must not guess from."""
    quiet_fabric()
    return Fabric(
        accelerator=accelerator, devices=1, plugins=[LightningEnvironment(), *_rounding(precision, accelerator)]
    )


class RoundedFeatures(MixedPrecision):
    """Mixed precision that rounds the features of a batch, and leaves its targets as they are."""

    def convert_input(self, data: Any) -> Any:
        """The arguments of a learner, whose batch is a `mmsa.types.Batch`."""
        return tree_map_only(Batch, self._rounded, data)

    def _rounded(self, batch: Batch) -> Batch:
        return replace(batch, features=super().convert_input(dict(batch.features)))


def _rounding(precision: Literal["32-true", "bf16-mixed"], accelerator: str) -> list[MixedPrecision]:
    """What makes a precision of Fabric's default."""
    return [] if precision == "32-true" else [RoundedFeatures(precision, accelerator)]


def quiet_fabric() -> None:
    """Fabric logs warnings and errors alone."""
    silence(logging.WARNING, "lightning_fabric")


def build_without_cuda() -> ConfigError | None:
    """The error for device=cuda of a PyTorch built without CUDA."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        return None
    version = torch.__version__.partition("+")[0]
    install = f"{program('pip')} install --index-url https://download.pytorch.org/whl/cu126 torch=={version}+cu126"
    setup = make("setup")
    return ConfigError(
        f"device=cuda: PyTorch {torch.__version__} was built without CUDA.\n"
        f"  type {f'{setup} TORCH=cu126' if setup else install} for a build with it, or device=cpu"
    )
