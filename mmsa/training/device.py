"""Where a run computes."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from mmsa.errors import ConfigError
from mmsa.program import make, program

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT, MOST_KEPT = 32 << 20, 256 << 20
"""Bytes: the largest block that is kept for the next step, the most that glibc allows, and how much is kept at most."""

memory: Any = torch.utils.deterministic  # whose property its types do not know


def make_fabric(
    accelerator: Literal["auto", "cpu", "cuda", "mps"],
    precision: Literal["32-true", "bf16-mixed"],
    deterministic: bool,
    threads: int,
    pack_seeds: str = "off",
) -> Fabric:
    """The device and precision of this process, with its number of threads and determinism set.

    Args: as `mmsa.config.DeviceOptions` says; `pack_seeds` is of several runs.

    Raises:
        ConfigError: the accelerator is not there.
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
    torch.set_num_threads(threads)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # 1,024 are few: a length has its own
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuda products need
    keep_blocks()
    torch.use_deterministic_algorithms(deterministic, warn_only=chosen == "mps")
    memory.fill_uninitialized_memory = False  # costs 3 to 5 % of a step, and nothing reads it
    return one_device(chosen, precision)


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


class Determinism:
    """PyTorch's determinism as it is now."""

    def __init__(self) -> None:
        self._on = torch.are_deterministic_algorithms_enabled()
        self._warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        self._fills = memory.fill_uninitialized_memory

    def restore(self) -> None:
        """Make it so again."""
        torch.use_deterministic_algorithms(self._on, warn_only=self._warn_only)
        memory.fill_uninitialized_memory = self._fills


@contextmanager
def determinism_restored() -> Iterator[None]:
    """Whatever `make_fabric` sets inside, PyTorch's determinism is afterwards as it was; also a decorator."""
    former = Determinism()
    try:
        yield
    finally:
        former.restore()


def one_device(accelerator: str = "cpu", precision: Literal["32-true", "bf16-mixed"] = "32-true") -> Fabric:
    """Fabric for one process on one device, also in a job of SLURM, MPI or torchrun, which it must not guess from."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=LightningEnvironment())


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
