"""The time before the first step and of a small report, and the memory of a training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from benchmarks.children import ran, stop_at_first_step
from benchmarks.corpus import store
from benchmarks.data import items_file
from benchmarks.growth import runs
from benchmarks.measuring import Contender, Contest, Size, Work, processor_time
from benchmarks.ours import composed
from mmsa import build, experiment
from mmsa.data.batches import Data
from mmsa.data.store import Store
from mmsa.journal import TrialHooks


def full(size: Size) -> Size:
    """The size for a program: nothing is narrow, and a short one has little data."""
    return replace(size, num_utterances=max(size.num_utterances, 100), short=False)


class _AtFirstStep(BaseException):
    """The first step has been made."""


def cold(folder: Path, size: Size) -> Contest:
    """`python train.py` to its first step; plainly, a script that imports PyTorch and makes a step."""
    overrides = [f"paths.outputs={folder / 'outputs'}", "device=cpu"]
    return Contest(
        "start",
        [
            Contender("mlflow", lambda: Work(peak=ran("first-step", *overrides))),
            Contender("untracked", lambda: Work(peak=ran("first-step", *overrides, "tracking=none"))),
        ],
        Contender("plain", lambda: Work(peak=ran("plain-step"))),
    )


def trial(folder: Path, size: Size) -> Contest:
    """A further trial of a sweep to its first step, in a process that has run others on the same data."""
    number = count()
    opened: list[tuple[Store, Data]] = []
    usual = ["dataset=custom", f"dataset.source={store(folder, size).path}", "device=cpu"]
    usual += [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", *size.overrides]

    def data(cfg: DictConfig) -> tuple[Store, Data]:
        if not opened:
            opened.append(build.open_data(cfg))
        return opened[0]

    def turn(tracking: str) -> Work:
        began = processor_time()
        ended: list[float] = []

        def stop() -> None:
            ended.append(processor_time())
            raise _AtFirstStep

        hooks = TrialHooks("bench", next(number), False, lambda folder: None, lambda epochs: None, data)
        undo = stop_at_first_step(stop)
        try:
            overrides = [*usual, f"tracking={tracking}", f"optimizer.lr={1e-4 * (1 + hooks.number)}"]
            experiment.run(composed(overrides), overrides, quiet=True, trial=hooks)
        except _AtFirstStep:
            pass
        finally:
            undo()
        return Work(seconds=ended[0] - began)

    kinds = ["none"] if size.short else ["mlflow", "none"]
    return Contest("start", [Contender(kind.replace("none", "untracked"), partial(turn, kind)) for kind in kinds])


def report(folder: Path, size: Size) -> Contest:
    """`mmsa report` of ten runs."""
    del size
    runs(folder / "few", 10)
    return Contest("report", [Contender("ours", lambda: Work(peak=ran("report", str(folder / "few"))))])


def memory(folder: Path, size: Size) -> Contest:
    """Programs that load the corpus and train a part of an epoch, for their peak memory."""
    size = full(size)
    made, pickled = store(folder, size).path, items_file(folder, size)
    return Contest(
        "program",
        [Contender("ours", lambda: Work(peak=ran("epoch", str(made), "64")))],
        Contender("plain", lambda: Work(peak=ran("plain-epoch", str(pickled), "64"))),
    )
