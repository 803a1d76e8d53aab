"""Training of another commit beside that of this one: python -m benchmarks.before COMMIT [OVERRIDE ...].

Both take turns, each in a process of its own with this environment: the first steps of an epoch of CMU-MOSEI's size, in
processor time of one thread per real step, since the commits may order their batches in other ways.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import typer

from benchmarks.shape import WIDTHS, lengths

ROUNDS, WARM, STEPS = 3, 10, 60
FOLDS = (16326, 200, 200)
ROOT = Path(__file__).resolve().parents[1]


def main(commit: str, overrides: Sequence[str]) -> None:
    """Print how many times as fast this commit trains as the other, by the round."""
    with TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", other, commit], cwd=ROOT, check=True)
        try:
            _make(Path(folder) / "own.npz")
            ratios = []
            for seed in range(1, ROUNDS + 1):
                typed = [*overrides, f"seed={seed}"]
                before, after = (_turn(root, Path(folder), typed) for root in (other, ROOT))
                ratios.append(before / after)
                typer.echo(f"{1e6 * before:.1f} µs per step before, {1e6 * after:.1f} now")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    typer.echo(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}] times as fast as {commit}")


def _make(path: Path) -> None:
    draw, steps = np.random.default_rng(1), lengths(sum(FOLDS))
    offsets = np.concatenate([[0], np.cumsum(steps)])
    arrays: dict[str, Any] = {f"offsets/{m}": offsets for m in WIDTHS}
    arrays |= {f"features/{m}": draw.standard_normal((offsets[-1], d), dtype=np.float32) for m, d in WIDTHS.items()}
    ids = [f"v{number // 8}_{number % 8}" for number in range(len(steps))]
    fold, target = np.repeat(["train", "valid", "test"], FOLDS), draw.uniform(-3, 3, len(steps))
    np.savez(path, fold=fold, id=ids, target=target, **arrays)


def _turn(root: Path, folder: Path, overrides: Sequence[str]) -> float:
    """Processor seconds per real step of the code that lies in `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), root.name, *overrides]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def _measure(folder: Path, name: str, overrides: Sequence[str]) -> None:
    """Train, and end the process after the last step that counts."""
    import mmsa
    from mmsa.training.trainer import Trainer

    step, done, began, num_real = Trainer.step, 0, 0.0, 0

    def counted(trainer: Any, learner: Any, optimizers: Any, batches: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal done, began, num_real
        if done == WARM:
            began, num_real = time.process_time(), 0
        losses = step(trainer, learner, optimizers, batches, *arguments, **named)
        done, num_real = done + 1, num_real + sum(int(batch.lengths["text"].sum()) for batch in batches)
        if done == WARM + STEPS:
            typer.echo((time.process_time() - began) / num_real)
            sys.stdout.flush()
            os._exit(0)
        return losses

    Trainer.step = counted  # type: ignore[assignment, method-assign]
    places = [
        f"paths.data={folder / name}",
        f"paths.outputs={folder / name / 'outputs'}",
        "tracking=none",
        "device=cpu",
    ]
    data = ["dataset=custom", f"dataset.source={folder / 'own.npz'}", "dataset.doctor=warn"]
    mmsa.run(["experiment=mmlatch", *data, *places, "trainer.max_epochs=1", *overrides], quiet=True)


if __name__ == "__main__":
    if Path(sys.argv[1]).is_dir():
        _measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1], sys.argv[2:])
