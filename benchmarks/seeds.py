"""Several seeds of one configuration, together and one after the other."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

import torch

import mmsa
from benchmarks.children import ROOT
from benchmarks.corpus import store
from benchmarks.measuring import Contender, Contest, Size, Work
from benchmarks.ours import Training
from mmsa.training.together import JointStep
from mmsa.training.trainer import MAIN
from mmsa.types import Batch, Moment


def together(folder: Path, size: Size, width: int, num_seeds: int, batch_size: int = 16) -> Contest:
    """Whole runs on the built-in corpus, whose folds are as large as CMU-MOSI's; plainly, `device.pack_seeds=off`.

    Args:
        folder: of the runs.
        size: a short one has one epoch.
        width: of the model.
        num_seeds: of a run.
        batch_size: of each.
    """
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    small = [*usual, "hidden_dim=4", "trainer.batch_size=256", "trainer.max_epochs=1"]
    large = [*usual, f"hidden_dim={width}", f"trainer.batch_size={batch_size}", "trainer.max_epochs=5"]
    mmsa.run(small, quiet=True)  # makes the corpus, and imports what draws figures

    def turn(form: str) -> Work:
        mmsa.run(
            [*(small if size.short else large), f"device.pack_seeds={form}"], seeds=list(range(num_seeds)), quiet=True
        )
        return Work(num_seeds)

    contenders = [Contender("together", lambda: turn("auto"))]
    return Contest("seed", contenders, Contender("plain", lambda: turn("off")), most_rounds=2)


def steps(folder: Path, size: Size, width: int, num_seeds: int, batch_size: int) -> Contest:
    """Steps with their optimisers, on batches in CMU-MOSEI's shape that are there; plainly, each seed's by itself.

    Args:
        folder: of the corpus, which is made where it is not there yet.
        size: how much of it.
        width: of the model.
        num_seeds: that are trained.
        batch_size: of each.
    """
    own = size.overrides if size.short else (f"hidden_dim={width}", f"trainer.batch_size={batch_size}")
    trained = [Training([*own, f"seed={seed}"], store(folder, size), size.num_train) for seed in range(num_seeds)]
    learners = [training.learner.module for training in trained]
    sources = [{**training.trainer.generators, "dropout": torch.Generator()} for training in trained]
    optimizers = [training.optimizers[MAIN].optimizer for training in trained]
    joint = JointStep(learners, sources, trained[0].trainer.fabric, optimizers=optimizers)
    batches = [sorted(training.batches(), key=_num_steps) for training in trained]  # in step, as runs are
    moment = Moment(1, 1, 1, len(batches[0]))

    def turn(together: bool) -> Work:
        joint.release()
        for each in zip(*batches, strict=True):
            if together:
                joint(each, moment)
                if not joint.updated:
                    raise RuntimeError("a joint step has left the update to each seed, which is not measured")
                continue
            for training, batch in zip(trained, each, strict=True):
                training.trainer.step(training.learner, training.optimizers, [batch], [moment])
        return Work(num_seeds * len(batches[0]) * trained[0].batch_size)

    return Contest("utterance", [Contender("together", lambda: turn(True))], Contender("plain", lambda: turn(False)))


def _num_steps(batch: Batch) -> int:
    """The padded number."""
    return max(features.shape[1] for features in batch.features.values())


def sweep(folder: Path, size: Size) -> Contest:
    """A whole `python train.py` of two trials of four seeds, five epochs long; plainly, `device.pack_seeds=off`."""
    numbers = count()
    usual = [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "tracking=none", "device=cpu"]
    usual += ["sweep=search", "sweep.trials=2", "sweep.seeds=4", "sweep.pruner=none", "sweep.slots=1"]
    usual += ["optimizer.lr=interval(0.001,0.002)"]
    small = ["hidden_dim=4", "trainer.batch_size=256", "trainer.max_epochs=1"]
    usual += small if size.short else ["hidden_dim=16", "trainer.batch_size=16", "trainer.max_epochs=5"]

    def turn(form: str) -> Work:
        typed = [*usual, f"device.pack_seeds={form}", f"sweep.study=number{next(numbers)}"]
        subprocess.run([sys.executable, "train.py", *typed], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return Work(8)

    contenders = [Contender("together", lambda: turn("auto"))]
    return Contest("seed", contenders, Contender("plain", lambda: turn("off")), most_rounds=2)
