"""Several seeds of one configuration, together and one after the other."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import mmsa
from benchmarks.children import ROOT
from benchmarks.measuring import Contender, Contest, Size, Work


def together(folder: Path, size: Size, width: int, num_seeds: int) -> Contest:
    """Whole runs on the built-in corpus, whose folds are as large as CMU-MOSI's; plainly, `device.pack_seeds=off`.

    Args:
        folder: of the runs.
        size: a short one has one epoch.
        width: of the model.
        num_seeds: of a run.
    """
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    small = [*usual, "hidden_dim=4", "trainer.batch_size=300", "trainer.max_epochs=1"]
    large = [*usual, f"hidden_dim={width}", "trainer.batch_size=16", "trainer.max_epochs=5"]
    mmsa.run(small, quiet=True)  # makes the corpus, and imports what draws figures

    def turn(form: str) -> Work:
        mmsa.run(
            [*(small if size.short else large), f"device.pack_seeds={form}"], seeds=list(range(num_seeds)), quiet=True
        )
        return Work(num_seeds)

    contenders = [Contender("together", lambda: turn("auto"))]
    return Contest("seed", contenders, Contender("plain", lambda: turn("off")), most_rounds=2)


def sweep(folder: Path, size: Size) -> Contest:
    """A whole `python train.py` of two trials of four seeds, five epochs long; plainly, `device.pack_seeds=off`."""
    numbers = count()
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    usual += ["sweep=search", "sweep.trials=2", "sweep.seeds=4", "sweep.pruner=none", "sweep.slots=1"]
    usual += ["optimizer.lr=interval(0.001,0.002)"]
    small = ["hidden_dim=4", "trainer.batch_size=300", "trainer.max_epochs=1"]
    usual += small if size.short else ["hidden_dim=16", "trainer.batch_size=16", "trainer.max_epochs=5"]

    def turn(form: str) -> Work:
        typed = [*usual, f"device.pack_seeds={form}", f"sweep.study=number{next(numbers)}"]
        subprocess.run([sys.executable, "train.py", *typed], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return Work(8)

    contenders = [Contender("together", lambda: turn("auto"))]
    return Contest("seed", contenders, Contender("plain", lambda: turn("off")), most_rounds=2)
