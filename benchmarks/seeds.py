"""Several seeds of one configuration, together and one after the other."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import mmsa
from benchmarks.children import ROOT
from benchmarks.measuring import Contender, Contest, Size, Work

NUM_SEEDS = 4


def together(folder: Path, size: Size) -> Contest:
    """Whole runs on the built-in corpus, three epochs long; plainly, `device.pack_seeds=off`."""
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    small = ["hidden_dim=4", "trainer.batch_size=300", "trainer.max_epochs=1"]
    large = ["hidden_dim=16", "trainer.batch_size=16", "trainer.max_epochs=3"]
    usual += small if size.short else large

    def turn(form: str) -> Work:
        mmsa.run([*usual, f"device.pack_seeds={form}"], seeds=list(range(NUM_SEEDS)), quiet=True)
        return Work(NUM_SEEDS)

    return Contest("seed", [Contender("together", lambda: turn("auto"))], Contender("plain", lambda: turn("off")))


def sweep(folder: Path, size: Size) -> Contest:
    """A whole `python train.py` of two trials of four seeds, five epochs long; plainly, `device.pack_seeds=off`."""
    numbers = count()
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    usual += ["sweep=search", "sweep.trials=2", f"sweep.seeds={NUM_SEEDS}", "sweep.pruner=none", "sweep.slots=1"]
    usual += ["optimizer.lr=interval(0.001,0.002)"]
    small = ["hidden_dim=4", "trainer.batch_size=300", "trainer.max_epochs=1"]
    usual += small if size.short else ["hidden_dim=16", "trainer.batch_size=16", "trainer.max_epochs=5"]

    def turn(form: str) -> Work:
        typed = [*usual, f"device.pack_seeds={form}", f"sweep.study=number{next(numbers)}"]
        subprocess.run([sys.executable, "train.py", *typed], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return Work(2 * NUM_SEEDS)

    return Contest("seed", [Contender("together", lambda: turn("auto"))], Contender("plain", lambda: turn("off")))
