"""Several seeds of one configuration, together and one after the other."""

from __future__ import annotations

from pathlib import Path

import mmsa
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
