"""The CPU cores and GPUs that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import joblib

from mmsa.errors import ConfigError

GIB = 2**30
_SLURM_CORES = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")  # of a task, before that of its job on the node
# What a job of SLURM may use of the node's GPUs, in the order in which they are believed.
_SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL")
_QUERY = ("--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits")
_SMI_SECONDS = 30  # the first call on a machine with many GPUs wakes them one by one

# --- Cores ------------------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """The numbers of the CPUs on which the system lets this process run."""
    if sys.platform == "darwin":  # which has no affinity
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def num_cores() -> int:
    """How many CPUs this process may keep busy: the least of what joblib counts and SLURM's share, at least 1."""
    given = [os.environ.get(name, "") for name in _SLURM_CORES]
    shares = [int(number) for number in given if number.isdecimal()]
    return max(1, min([joblib.cpu_count(), *shares[:1]]))


# --- GPUs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Args:
        index: its place in CUDA's order of the visible ones, from 0.
        id: what CUDA_VISIBLE_DEVICES calls it: its UUID, or its index where that is not known.
        name: the maker's name for it.
        free: bytes of memory that nobody uses; None is not known.
        pretended: it is only in MMSA_PRETEND_GPUS.
    """

    index: int
    id: str
    name: str
    free: int | None
    pretended: bool = False

    def __str__(self) -> str:
        free = "free memory unknown" if self.free is None else f"{self.free / GIB:.1f} GiB free"
        return f"cuda:{self.index} ({self.name}, {free})"


def gpus_are_chosen() -> bool:
    """Whether somebody said which GPUs are for this process, so that all that it sees are its own."""
    return any(name in os.environ for name in ("CUDA_VISIBLE_DEVICES", *_SLURM_GPUS))


def found_gpus() -> list[Gpu]:
    """The GPUs that this process may use, in CUDA's order.

    CUDA_VISIBLE_DEVICES and SLURM's variables choose among those that nvidia-smi, or else PyTorch, finds.
    MMSA_PRETEND_GPUS="8,0.5" (GiB free of each) stands for a machine with such GPUs, "" for one without.

    Raises:
        ConfigError: MMSA_PRETEND_GPUS is not a list of sizes.
    """
    pretended = os.environ.get("MMSA_PRETEND_GPUS")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _listed_gpus() if pretended is None else _pretended_gpus(pretended)
    if gpus is None:
        gpus = _torch_gpus(visible)
    elif gpus and pretended is None and not num_torch_gpus():  # a driver, but a PyTorch for the CPU
        return []
    elif visible is not None:
        gpus = _visible_gpus(gpus, _tokens(visible))
    given = next((_tokens(os.environ[name]) for name in _SLURM_GPUS if name in os.environ), None)
    # These numbers are the node's; where the job sees no more GPUs than it was given, they are numbered anew.
    if visible is not None or given is None or len(gpus) <= len(given):
        return gpus
    return _visible_gpus(gpus, given)


def _pretended_gpus(text: str) -> list[Gpu]:
    try:
        sizes = [int(float(size) * GIB) for size in text.split(",") if size.strip()]
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"MMSA_PRETEND_GPUS={text}: the GiB free of each pretended GPU are numbers between commas.\n"
            '  type export MMSA_PRETEND_GPUS="8,0.5", or unset MMSA_PRETEND_GPUS'
        ) from error
    return [Gpu(i, f"pretended-{i}", "pretended", size, pretended=True) for i, size in enumerate(sizes)]


def _listed_gpus() -> list[Gpu] | None:
    """All GPUs of the machine by nvidia-smi; None where it is absent or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *_QUERY], capture_output=True, text=True, timeout=_SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [
        # Words stand for a size that the driver does not tell.
        Gpu(int(row[0]), row[1], ", ".join(row[2:-1]), int(row[-1]) * 2**20 if row[-1].isdecimal() else None)
        for row in rows
        if len(row) >= 4 and row[0].isdecimal()
    ]


def _torch_gpus(visible: str | None) -> list[Gpu]:
    """What PyTorch sees, with no memory known: on machines with AMD GPUs, or without nvidia-smi."""
    count = num_torch_gpus()
    ids = [str(index) for index in range(count)] if visible is None else _tokens(visible)[:count]
    return [Gpu(index, id, "GPU", None) for index, id in enumerate(ids)]


def num_torch_gpus() -> int:
    """How many GPUs this PyTorch can compute on."""
    import torch  # seconds, which a process that supervises a given slot does without

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _tokens(text: str) -> list[str]:
    return [token.strip() for token in text.split(",")]


def _visible_gpus(gpus: Sequence[Gpu], tokens: Sequence[str]) -> list[Gpu]:
    """The GPUs that a CUDA_VISIBLE_DEVICES names, which as in CUDA ends at the first that is not there."""
    visible: dict[str, Gpu] = {}
    for token in tokens:
        if token.startswith("MIG-"):  # a part of a GPU, of whose memory nvidia-smi's list says nothing
            visible.setdefault(token, Gpu(len(visible), token, "MIG", None))
            continue
        found = [gpu for gpu in gpus if _is_named(gpu, token)]
        if len(found) != 1:
            break
        (gpu,) = found
        visible.setdefault(gpu.id, replace(gpu, index=len(visible)))
    return list(visible.values())


def _is_named(gpu: Gpu, token: str) -> bool:
    """Whether a token is the GPU's index, or its UUID, which may be cut short."""
    return int(token) == gpu.index if token.isdecimal() else token.startswith("GPU-") and gpu.id.startswith(token)


def has_mps() -> bool:
    """Whether this is a Mac whose GPU PyTorch can use."""
    import torch

    return torch.backends.mps.is_available()
