"""The device slots on which a sweep may run its trials side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmsa.errors import ConfigError
from mmsa.sweep.machine import GIB, Gpu, cores, found_gpus, gpus_are_chosen, has_mps, num_cores

Accelerator = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time.

    Args:
        name: for people: "cuda:0 1/2" is the first of two slots on GPU 0, "cpu 3" the third on the CPU.
        lock: name of the lock that whoever uses the slot holds; all sweeps of the user on this host share it.
        environment: variables with which the slot's worker process is started.
    """

    name: str
    lock: str
    environment: dict[str, str]


@dataclass(frozen=True)
class SlotPlan:
    """The slots of a sweep, and what the user should know of how they were chosen, one sentence each."""

    slots: tuple[Slot, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SlotRules:
    """The rules for all slots of a sweep.

    Args:
        accelerator: device=... of the trials; "auto" allows all.
        threads: CPU threads of a trial, >= 1.
        slots_per_gpu: trials side by side on a GPU, >= 1.
        gpu_memory: GiB that have to be free for each of them, >= 0.
    """

    accelerator: Accelerator
    threads: int
    slots_per_gpu: int
    gpu_memory: float

    @property
    def threading(self) -> dict[str, str]:
        """Variables that give the CPU libraries the number of threads of a slot."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict.fromkeys(names, str(self.threads))

    def fits(self, gpu: Gpu) -> bool:
        """Whether the GPU has the free memory for its slots; an unknown memory is assumed to suffice."""
        return gpu.free is None or gpu.free >= self.gpu_memory * self.slots_per_gpu * GIB

    @property
    def room(self) -> str:
        """The memory that a GPU needs, in words."""
        needed = f"{self.gpu_memory:g} GiB free"
        return needed if self.slots_per_gpu == 1 else f"{needed} for each of {self.slots_per_gpu} slots"

    def on_gpu(self, gpu: Gpu) -> list[Slot]:
        """The slots of one GPU; those of a pretended one compute on the CPU."""
        visible = {"CUDA_VISIBLE_DEVICES": "" if gpu.pretended else gpu.id, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return [
            Slot(f"cuda:{gpu.index} {number}/{self.slots_per_gpu}", f"gpu {gpu.id} {number}", visible | self.threading)
            for number in range(1, self.slots_per_gpu + 1)
        ]

    def on_cpu(self, number: int) -> Slot:
        """The CPU slot of that number, from 1, with a lock by the first of its cores."""
        allowed = cores()
        turn, core = divmod((number - 1) * self.threads, len(allowed))
        # Without binding, the jobs of SLURM that share a node see the same cores, yet each has its own share of them.
        share = [os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_LOCALID") if name in os.environ]
        lock = " ".join(["cpu", str(allowed[core]), *([f"turn {turn + 1}"] if turn else []), *share])
        return Slot(f"cpu {number}", lock, {"CUDA_VISIBLE_DEVICES": ""} | self.threading)

    def on_mps(self) -> Slot:
        """The one slot of an Apple GPU."""
        return Slot("mps", "mps", self.threading)


def choose_slots(slots: str | int | Sequence[str], rules: SlotRules) -> SlotPlan:
    """Choose the slots of a sweep among the available, allowed and free ones.

    Args:
        slots: "auto": as many as fit, on the GPUs that were given, or on the one with most free memory where nobody
            chose; on the CPU where there is no GPU. A number: the first of those. A list: "cuda:K", "cpu" and "mps".
        rules: for all of them.

    Raises:
        ConfigError: a slot that is not a word for one, not here, not free, or not on the accelerator.
    """
    notes: list[str] = []
    if isinstance(slots, int) and slots < 1:
        raise ConfigError(
            f"sweep.slots={slots}: at least one slot is needed.\n  type sweep.slots=1, or sweep.slots=auto"
        )
    if isinstance(slots, int) or slots == "auto":
        chosen, notes = _automatic(rules)
    else:
        chosen = _listed([slots] if isinstance(slots, str) else slots, rules)
    if isinstance(slots, int):
        if slots > len(chosen):
            notes.append(f"sweep.slots={slots}: {_counted(len(chosen), 'slot')} fit here.")
        chosen = chosen[:slots]
    available = num_cores()
    if len(chosen) * rules.threads > available:
        notes.append(
            f"{_counted(len(chosen), 'slot')} of {_counted(rules.threads, 'thread')} share "
            f"{_counted(available, 'CPU core')} and slow each other down."
        )
    return SlotPlan(tuple(chosen), tuple(notes))


# --- Automatic --------------------------------------------------------------------------------------------------------


def _automatic(rules: SlotRules) -> tuple[list[Slot], list[str]]:
    gpus = found_gpus() if rules.accelerator in ("auto", "cuda") else []
    if gpus:
        return _on_free_gpus(gpus, rules)
    if rules.accelerator == "cuda":
        from mmsa.training.device import build_without_cuda

        raise build_without_cuda() or ConfigError(f"device=cuda: {_here(gpus)}.\n  type device=cpu, or device=auto")
    if rules.accelerator == "mps" or (rules.accelerator == "auto" and has_mps()):
        _require_mps("device=mps")
        return [rules.on_mps()], []
    return [rules.on_cpu(number) for number in range(1, max(1, num_cores() // rules.threads) + 1)], []


def _on_free_gpus(gpus: Sequence[Gpu], rules: SlotRules) -> tuple[list[Slot], list[str]]:
    free = [gpu for gpu in gpus if rules.fits(gpu)]
    if not free:
        raise ConfigError(f"sweep.slots: no GPU has {rules.room}; {_here(gpus)}.\n{_type_less(gpus, rules)}")
    notes = [f"{gpu} is left out: a GPU needs {rules.room} (sweep.gpu_memory)." for gpu in gpus if gpu not in free]
    if len(free) > 1 and not gpus_are_chosen():
        best = max(free, key=lambda gpu: gpu.free or 0)
        numbers = [str(gpu.index) for gpu in free]
        notes.append(
            f"Of {len(gpus)} GPUs only {best} is used, since nothing assigns the others to you; for more type "
            f"sweep.slots=[{_words(free)}], or CUDA_VISIBLE_DEVICES={','.join(numbers)} before the command."
        )
        free = [best]
    # The first slot of every GPU before the second of any, so that a small number of slots is spread.
    return [slot for turn in zip(*map(rules.on_gpu, free), strict=True) for slot in turn], notes


# --- Listed -----------------------------------------------------------------------------------------------------------


def _listed(words: Sequence[str], rules: SlotRules) -> list[Slot]:
    given = f"sweep.slots=[{','.join(words)}]"
    _check_words(words, given, rules.accelerator)
    gpus = found_gpus() if any(word.startswith("cuda:") for word in words) else []
    chosen: list[Slot] = []
    for position, word in enumerate(words, start=1):
        if word == "cpu":
            chosen.append(rules.on_cpu(words[:position].count("cpu")))
        elif word == "mps":
            _require_mps(given)
            chosen.append(rules.on_mps())
        else:
            chosen += rules.on_gpu(_named_gpu(word, given, gpus, rules))
    return chosen


def _check_words(words: Sequence[str], given: str, accelerator: Accelerator) -> None:
    if not words:
        raise ConfigError(f"{given}: at least one slot is needed.\n  type sweep.slots=auto")
    for word in words:
        if not re.fullmatch(r"cpu|mps|cuda:(0|[1-9][0-9]*)", word):
            raise ConfigError(
                f"{given}: {word!r} is no slot; a list names cuda:0 (or another number), cpu and mps.\n"
                "  type sweep.slots=[cuda:0,cpu], or sweep.slots=auto"
            )
        if accelerator not in ("auto", word.partition(":")[0]):
            raise ConfigError(
                f"{given}: with device={accelerator} no trial computes on {word}.\n"
                "  type device=auto, or sweep.slots=auto"
            )
        if word != "cpu" and words.count(word) > 1:
            raise ConfigError(
                f"{given}: {word} is named {words.count(word)} times.\n"
                f"  type {word} once; sweep.slots_per_gpu={words.count(word)} is for several trials on a GPU"
            )


def _named_gpu(word: str, given: str, gpus: Sequence[Gpu], rules: SlotRules) -> Gpu:
    gpu = next((gpu for gpu in gpus if word == f"cuda:{gpu.index}"), None)
    if gpu is None:
        instead = f"sweep.slots=[{_words(gpus)}]" if gpus else "sweep.slots=[cpu]"
        raise ConfigError(f"{given}: there is no {word}; {_here(gpus)}.\n  type {instead}, or sweep.slots=auto")
    if not rules.fits(gpu):
        raise ConfigError(f"{given}: {word} has not {rules.room}; {_here(gpus)}.\n{_type_less([gpu], rules)}")
    return gpu


def _require_mps(given: str) -> None:
    if not has_mps():
        raise ConfigError(
            f"{given}: here is no Apple GPU that PyTorch can use.\n  type device=auto and sweep.slots=auto"
        )


# --- In words ---------------------------------------------------------------------------------------------------------


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _words(gpus: Sequence[Gpu]) -> str:
    return ",".join(f"cuda:{gpu.index}" for gpu in gpus)


def _here(gpus: Sequence[Gpu]) -> str:
    if gpus:
        return f"here: {', '.join(map(str, gpus))}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "here is no GPU that PyTorch can use" + ("" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})")


def _type_less(gpus: Sequence[Gpu], rules: SlotRules) -> str:
    """The options to type where none of the GPUs has the room."""
    tenths = int(max(gpu.free or 0 for gpu in gpus) * 10 / GIB / rules.slots_per_gpu)
    less = f"sweep.gpu_memory={tenths / 10:g}, or " if tenths else ""
    return f"  type {less}{'device=cpu' if rules.accelerator == 'cuda' else 'sweep.slots=[cpu]'}"
