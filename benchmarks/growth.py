"""How cost grows: `python -m benchmarks.growth` prints the table of docs/scale.md."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.children import peak_memory

HEAD = "| What | Of | Sizes | Processor time, s | Exponent | Memory on top, MB |"
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        unit: what there is more and more of.
        sizes: how much, each four times the one before or about that.
        make: makes the input of a size in a folder, in a process of its own.
        ready: returns the work; its time and memory count from there.
    """

    unit: str
    sizes: Sequence[int]
    make: Callable[[Path, int], object]
    ready: Callable[[Path, int], Work]


def _store(folder: Path, count: int) -> Path:
    from benchmarks.corpus import store
    from benchmarks.measuring import Size

    return store(folder, Size(num_utterances=count)).path


def _arrays(folder: Path, count: int) -> None:
    from benchmarks.corpus import prepared
    from benchmarks.measuring import Size

    made = prepared(Size(num_utterances=count))
    columns = {"fold": np.array(made.folds), "id": np.array(made.ids), "target": made.targets["sentiment"]}
    columns |= {f"features/{m}": ragged.values for m, ragged in made.features.items()}
    columns |= {f"offsets/{m}": ragged.offsets for m, ragged in made.features.items()}
    np.savez(folder / "own.npz", **columns)  # type: ignore[arg-type]


def _prepare(folder: Path, count: int) -> Work:
    from mmsa.dataset.custom import Custom

    dataset = Custom(str(folder / "own.npz")).settled()
    return lambda: dataset.prepare(folder, progress=False)


def _load(folder: Path, count: int) -> Work:
    from benchmarks.data import train_fold
    from mmsa.data.store import Store
    from mmsa.training.seeding import generator

    path = _store(folder, count)
    return lambda: next(iter(train_fold(Store.open(path)).shuffled(32, generator(1, "order"))))


def _baselines(folder: Path, count: int) -> Work:
    from benchmarks.data import train_fold
    from mmsa.data.store import Store

    return train_fold(Store.open(_store(folder, count))).pooled


def _epoch(folder: Path, count: int) -> Work:
    from benchmarks.ours import Training
    from mmsa.data.store import Store

    training = Training(["fusion=concat"], Store.open(_store(folder, count)), count)
    return training.whole_epoch


def _long(folder: Path, num_steps: int) -> None:
    from benchmarks.corpus import prepared
    from benchmarks.measuring import Size
    from mmsa.data.store import write_store

    made = prepared(Size(num_utterances=80), np.full(80, num_steps))
    write_store(folder / "long.h5", made, dataset="cmu_mosei", sources={}, options={})


def _steps(folder: Path, num_steps: int, *overrides: str) -> Work:
    from benchmarks.ours import Training
    from mmsa.data.store import Store

    return Training(["fusion=concat", *overrides], Store.open(folder / "long.h5"), 80).whole_epoch


def _recurrent_steps(folder: Path, num_steps: int) -> Work:
    return _steps(folder, num_steps, *(f"encoder.{m}.attention=false" for m in ("text", "audio", "visual")))


def runs(folder: Path, count: int) -> None:
    """Folders of as many finished runs."""
    from omegaconf import OmegaConf

    from benchmarks.ours import composed
    from mmsa.record import FILE, RunRecord

    configuration = OmegaConf.to_yaml(composed(["dataset=cmu_mosei", "device=cpu"]))
    drawn = np.random.default_rng(1).uniform(0.5, 1, count)
    for number in range(count):
        known = {
            "name": f"run{number}", "status": "finished", "seed": 1, "dataset": "cmu_mosei", "task": "regression",
            "data": {"fingerprint": "0" * 16, "store": "x.h5"}, "monitor": "valid/mae", "mode": "min",
            "primary": ["mae", "corr"], "num_parameters": 12, "planted": False,
            "overrides": [f"optimizer.lr={number + 1}e-6"],
            "metrics": {f"{fold}/{name}": drawn[number] for fold in ("valid", "test") for name in ("mae", "corr")},
        }  # fmt: skip
        record = RunRecord.model_validate(known)
        (run := folder / "runs" / record.name).mkdir(parents=True)
        (run / FILE).write_text(record.model_dump_json())
        (run / "config.yaml").write_text(configuration)


def _report(folder: Path, count: int) -> Work:
    from mmsa.analysis.selection import Selection
    from mmsa.analysis.tables import report

    return lambda: report(Selection(folder))


def _grid(folder: Path, count: int) -> Work:
    """As a worker does it: ten trials, after all but those of the points have been done."""
    import optuna
    from optuna.distributions import BaseDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    from mmsa.sweep.points import POINT
    from mmsa.sweep.storage import open_storage
    from mmsa.sweep.trials import TrialDesk

    storage = open_storage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(study_name="grid", storage=storage, sampler=optuna.samplers.RandomSampler(0))
    points = [json.dumps({"seed": seed}) for seed in range(count)]
    seeds: dict[str, BaseDistribution] = {"seed": IntDistribution(0, count)}
    for seed, point in enumerate(points[:-11]):
        study.add_trial(create_trial(value=1.0, params={"seed": seed}, distributions=seeds, user_attrs={POINT: point}))
    desk = TrialDesk(study, seeds, count, retries=0, max_failures=1, points=points)
    desk.open()

    def run(num_trials: int) -> None:
        for _ in range(num_trials):
            if (trial := desk.next()) is not None:
                desk.tell(trial, TrialState.COMPLETE, [1.0])

    run(1)
    return lambda: run(10)


def _search(folder: Path, count: int) -> Work:
    """As a worker does it: ten trials of 20 epochs that TPE suggests, after as many, beside 63 that run elsewhere."""
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    from mmsa.sweep.claims import OWNER
    from mmsa.sweep.running import make_pruner
    from mmsa.sweep.sampling import make_sampler
    from mmsa.sweep.storage import open_storage
    from mmsa.sweep.trials import TrialDesk

    sampler = make_sampler({"_target_": "optuna.samplers.TPESampler"}, 1)
    storage = open_storage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(
        study_name="search", storage=storage, sampler=sampler, pruner=make_pruner("median", min_epochs=3)
    )
    space: dict[str, BaseDistribution] = {f"p{number}": FloatDistribution(0, 1) for number in range(6)}
    drawn = np.random.default_rng(1)

    def drawn_params() -> dict[str, float]:
        return {name: float(drawn.uniform()) for name in space}

    curve, elsewhere = dict.fromkeys(range(1, 21), 1.0), {"worker": "w", "place": "elsewhere:1", "claim": 1}
    for _ in range(count):
        value, params = float(drawn.uniform()), drawn_params()
        study.add_trial(create_trial(value=value, params=params, distributions=space, intermediate_values=curve))
    for _ in range(63):
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=drawn_params(), distributions=space, user_attrs={OWNER: elsewhere}
            )
        )
    desk = TrialDesk(study, space, 2 * count + 100, retries=0, max_failures=1)
    desk.open()

    def run(num_trials: int) -> None:
        for _ in range(num_trials):
            if (trial := desk.next()) is None:
                continue
            for epoch in curve:
                trial.report(0.9, epoch)
                trial.should_prune()
            desk.tell(trial, TrialState.COMPLETE, [1.0])

    run(1)
    return lambda: run(10)


def _nothing(folder: Path, count: int) -> None:
    """The work makes its own input."""


ROWS = {
    "prepare own arrays": Row("utterances", (2_000, 8_000, 32_000, 100_000), _arrays, _prepare),
    "load, to the first batch": Row("utterances", (2_000, 8_000, 32_000, 100_000), _store, _load),
    "means for the baselines": Row("utterances", (2_000, 8_000, 32_000, 100_000), _store, _baselines),
    "an epoch of fusion=concat": Row("utterances", (500, 1_000, 2_000, 4_000), _store, _epoch),
    "an epoch of 64 long utterances": Row("steps each", (50, 200, 800), _long, _steps),
    "the same without attention": Row("steps each", (50, 200, 800), _long, _recurrent_steps),
    "report of as many configurations": Row("runs", (100, 400, 1_600, 3_200), runs, _report),
    "ten trials at the end of a grid": Row("points", (200, 800, 3_200), _nothing, _grid),
    "ten trials of a search": Row("trials before", (250, 1_000), _nothing, _search),
}
"""By what is done."""


def measured(name: str, size: int, folder: Path) -> tuple[float, float]:
    """Processor seconds of a row's work, and how much memory it took on top of what was there, in MB."""
    work = ROWS[name].ready(folder, size)
    if (peaks := Path("/proc/self/clear_refs")).is_file():
        peaks.write_text("5")  # the peak counts from now
    before, began = peak_memory(), time.process_time()
    work()
    return time.process_time() - began, peak_memory() - before


def apart(work: Callable[..., Any], *arguments: object) -> Any:
    """The result of a call in a process of its own, of one thread."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.submit(work, *arguments).result()


def make(name: str, size: int, folder: Path) -> None:
    """The input of a row."""
    ROWS[name].make(folder, size)


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """By which power the cost grows, between the two largest sizes: fixed costs weigh on small ones."""
    return math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Rows, or the beginnings of their names.")] = None,
    most: Annotated[int, typer.Option(help="The largest size.")] = 100_000,
    out: Annotated[Path | None, typer.Option(help="A disk with room for the inputs, 8 GB at most.")] = None,
) -> None:
    """Measure how processor time, of one thread, and memory grow."""
    typer.echo(HEAD)
    typer.echo("|---" * (HEAD.count("|") - 1) + "|")
    for name, row in ROWS.items():
        sizes = [size for size in row.sizes if size <= most]
        if len(sizes) < 2 or (names and not name.startswith(tuple(names))):
            continue
        found = []
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=out) as folder:
                apart(make, name, size, Path(folder))
                found.append(apart(measured, name, size, Path(folder)))
        seconds, memory = [f[0] for f in found], [f[1] for f in found]
        cells = [
            name, row.unit, ", ".join(f"{size:,}" for size in sizes), ", ".join(f"{s:.2f}" for s in seconds),
            f"{exponent(sizes, seconds):.2f}", ", ".join(f"{m:.0f}" for m in memory),
        ]  # fmt: skip
        typer.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
