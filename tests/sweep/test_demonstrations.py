"""What sweeps promise, at length: `make test-slow ARGS=tests/sweep` prints the figures that docs/sweeps.md quotes."""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from mmsa.locks import holder
from mmsa.sweep.storage import open_study
from tests.crash_scenarios import differences, state
from tests.outside import package
from tests.sweep.test_sweep import results, wait_for
from tests.warm import Program, train


@pytest.fixture
def short(stores: Path, tmp_path: Path) -> list[str]:
    """Overrides of runs of about a second."""
    return [
        f"paths.data={stores}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "device=cpu",
        "hidden_dim=4",
        "fusion=concat",
        "trainer.max_epochs=1",
        "dataset.modalities=[text]",
    ]


def study_of(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path / "outputs" / "sweeps" / "study")


def spans(study: optuna.Study) -> dict[str, list[tuple[float, float]]]:
    """Slot -> start and end of its trials, in the order of their starts."""
    found = defaultdict(list)
    for trial in study.trials:
        assert trial.datetime_complete is not None
        times = (trial.user_attrs["owner"]["since"], trial.datetime_complete.timestamp())
        found[trial.user_attrs["owner"]["slot"]].append(times)
    return {slot: sorted(times) for slot, times in found.items()}


def busy_share(spans: dict[str, list[tuple[float, float]]], num_slots: int) -> float:
    """How much of the time between the first and the last start the slots had a trial."""
    every = [span for times in spans.values() for span in times]
    first, last = min(begin for begin, _ in every), max(begin for begin, _ in every)
    busy = sum(max(0.0, min(end, last) - begin) for begin, end in every)
    return busy / (num_slots * (last - first))


def kill_workers(
    parent: Program,
    draw: random.Random,
    pause: tuple[float, float],
    enough: Callable[[int], bool],
    reached: Callable[[], float],
) -> int:
    """Kill workers of a sweep, of which the choice is random, until it ends; returns how many.

    Where the sweep has come no further since the last one, none is killed, so that a slow machine comes to an end too.

    Args:
        parent: the sweep's.
        draw: chooses.
        pause: least and most seconds before each.
        enough: whether so many are enough.
        reached: how far the sweep has come; 0 before its beginning.
    """
    killed, before = 0, 0.0
    while parent.poll() is None and not enough(killed):
        time.sleep(draw.uniform(*pause))
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            if (now := reached()) > before and (workers := psutil.Process(parent.pid).children()):
                draw.choice(workers).kill()
                killed, before = killed + 1, now
    return killed


def sleeping_methods(folder: Path) -> tuple[list[str], dict[str, str]]:
    """A fusion that takes as long as it is told, without keeping a core busy."""
    source = (
        "import time\n"
        "from mmsa.fusion.concat import ConcatFusion\n"
        "class SleepingFusion(ConcatFusion):\n"
        "    def __init__(self, input_dims, seconds: float = 0.0):\n"
        "        super().__init__(input_dims)\n"
        "        self.seconds = seconds\n"
        "    def combine(self, streams):\n"
        "        if self.training:\n"
        "            seconds, self.seconds = self.seconds, 0.0\n"
        "            time.sleep(seconds)\n"
        "        return super().combine(streams)\n"
    )
    options = {"fusion/sleeping": "_target_: sleeping.methods.SleepingFusion\nseconds: 0.0\n"}
    return package(folder, "sleeping", source, options)


@pytest.mark.slow
def test_a_slot_is_refilled_while_another_is_busy(short: list[str], tmp_path: Path) -> None:
    """The short version of what follows: asking takes as long, the trials a tenth, hence the lower bound."""
    own, environment = sleeping_methods(tmp_path / "own")
    space = "fusion.seconds=choice(6.0,0.5,1.0,0.6,0.8,1.2,0.7)"
    words = [
        "sweep=search",
        "hydra/sweeper/sampler=grid",
        "sweep.pruner=none",
        "sweep.slots=[cpu,cpu]",
        "tracking=none",
    ]
    done = train(*own, *short, "fusion=sleeping", space, *words, "sweep.study=study", environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    found = spans(study_of(tmp_path))
    begin, end = max((span for times in found.values() for span in times), key=lambda span: span[1] - span[0])
    beside = [start for times in found.values() for start, _ in times if begin < start < end]
    assert len(beside) >= 4, "the other slot goes on while one has the long trial"
    for slot, times in found.items():
        if len(times) > 1:
            assert busy_share({slot: times}, 1) > 0.7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_slots_are_refilled_at_once(short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = np.round(3 + 4 * np.random.default_rng(0).pareto(1.5, size=40), 2).clip(max=60)
    own, environment = sleeping_methods(tmp_path / "own")
    space = f"fusion.seconds=choice({','.join(map(str, dict.fromkeys(seconds.tolist())))})"
    common = [*own, *short, "fusion=sleeping", space, "tracking=none"]
    ours = ["sweep=search", "hydra/sweeper/sampler=grid", "sweep.pruner=none", "sweep.slots=[cpu,cpu,cpu,cpu]"]
    done = train(*common, *ours, "sweep.study=study", environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    ours_busy = busy_share(spans(study_of(tmp_path)), 4)

    plain = [
        "-m",
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_jobs=4",
        "hydra/launcher=joblib",
    ]
    other = tmp_path / "plain"
    done = train(
        *common, *plain, "hydra.launcher.n_jobs=4", "hydra.sweeper.n_trials=100", f"paths.outputs={other}",
        environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    found = [json.loads(path.read_text()) for path in (other / "runs").glob("*/result.json")]
    assert len(found) == len(study_of(tmp_path).trials)
    starts = [datetime.fromisoformat(result["started"]).timestamp() for result in found]
    ends = [begin + result["seconds"] for begin, result in zip(starts, found, strict=True)]
    plain_busy = busy_share({"all": list(zip(starts, ends, strict=True))}, 4)
    with capsys.disabled():
        print(
            f"\nfour slots, {len(found)} trials of 3 to 60 s: busy {ours_busy:.1%}; the plain plugin {plain_busy:.1%}"
        )
    assert ours_busy > 0.95 and plain_busy < ours_busy


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_overhead_of_a_trial(short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-3,1e-2))", "encoder.text.dropout=interval(0.0,0.5)"]
    done = train(*short, *space, "sweep=search", "sweep.trials=100", "sweep.pruner=none", "sweep.study=study")
    assert done.returncode == 0, done.stderr + done.stdout
    found = spans(study_of(tmp_path))
    every = [span for times in found.values() for span in times]
    wall = max(end for _, end in every) - min(begin for begin, _ in every)
    training = sum(result["training_seconds"] for result in results(tmp_path / "outputs"))
    overhead = (len(found) * wall - training) / 100
    with capsys.disabled():
        print(f"\n100 trials on {len(found)} slots: {wall:.0f} s; each {training / 100:.2f} s of training", end="")
        print(f" and {overhead:.2f} s beside")
    assert overhead < 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_workers_and_parents_cost_nothing(
    short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    search = ["sweep=search", "sweep.trials=60", "sweep.seeds=2", "sweep.study=study", "hydra/sweeper/sampler=random"]
    search += ["sweep.retries=20", "sweep.pruner=none", "optimizer.lr=tag(log,interval(1e-3,1e-2))", "tracking=mlflow"]
    command = [*short, *search, "sweep.slots=[cpu,cpu]"]
    whole = tmp_path / "whole"
    done = train(*command, f"paths.outputs={whole}")
    assert done.returncode == 0, done.stderr + done.stdout

    def counted(of: Callable[[FrozenTrial], int]) -> int:
        try:
            return sum(map(of, study_of(tmp_path).trials))
        except Exception:  # noqa: BLE001  (not there yet)
            return 0

    def num_done() -> int:
        return counted(lambda trial: trial.state == TrialState.COMPLETE)

    def num_begun() -> int:
        return counted(lambda trial: trial.user_attrs.get("owner", {}).get("claim", 0))

    killed = 0
    for part, until in enumerate((20, 40, 60)):
        with Program(*command) as parent:
            enough = partial(lambda until, _: num_done() >= until, until)
            killed += kill_workers(parent, draw, (2.0, 5.0), enough, num_begun)
            if part < 2:
                parent.kill()
    done = train(*command)
    assert done.returncode == 0, done.stderr + done.stdout
    study, undisturbed = study_of(tmp_path), open_study(whole / "sweeps" / "study")
    found = [(trial.number, trial.state, trial.params, trial.values) for trial in study.trials]
    assert found == [(trial.number, trial.state, trial.params, trial.values) for trial in undisturbed.trials]
    assert not list(differences(state(whole), state(tmp_path / "outputs")))
    for times in spans(study).values():
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times)), "one at a time in a slot"
    assert not any(holder(path) for path in Path(os.environ["MMSA_LOCKS"]).glob("*.lock"))
    with capsys.disabled():
        print(f"\n60 of 60 trials of 2 seeds after {killed} killed workers and 2 killed parents")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_workers_of_a_grid_whose_seeds_train_together_cost_nothing(
    short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    command = [*short, "sweep=grid", "seed=range(1,9)", "optimizer.lr=0.001,0.002,0.003", "sweep.study=study"]
    command += ["sweep.retries=20", "sweep.slots=[cpu,cpu]", "tracking=mlflow", "trainer.max_epochs=6"]
    outputs = tmp_path / "outputs"

    def newest() -> float:
        times = [0.0]
        for path in outputs.glob("runs/*/checkpoints/last.pt"):
            with suppress(FileNotFoundError):  # its run has just ended
                times.append(path.stat().st_mtime)
        return max(times)

    with Program(*command) as parent:
        killed = kill_workers(
            parent,
            draw,
            (0.5, 1.5),
            enough=lambda killed: killed == 12,
            reached=newest,
        )
        printed, told = parent.communicate()
    assert parent.returncode == 0, printed + told
    study, records = study_of(tmp_path), results(outputs)
    assert len(study.trials) == 24 and {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) == 24
    finished = [record for record in records if record["status"] == "finished"]
    packed = [record["packed"] for record in finished if record["packed"]["seeds"]]
    resumed = [form for form in packed if form["epochs"] is not None]
    assert len(finished) == len(records) == 24 and 0 < len(resumed) < len(packed)
    assert not any(holder(path) for path in Path(os.environ["MMSA_LOCKS"]).glob("*.lock"))
    with capsys.disabled():
        print(f"\n24 of 24 points after {killed} killed workers: {len(packed)} began together, ", end="")
        print(f"{len(resumed)} of them went on alone")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pretended_gpus_are_never_shared(short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSA_PRETEND_GPUS", "24,24,0.5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    own, environment = sleeping_methods(tmp_path / "own")
    common = [*own, *[word for word in short if word != "device=cpu"], "fusion=sleeping", "tracking=none"]
    common.append("device.pack_seeds=off")  # where a slot has one trial at a time
    grid = ["sweep=grid", "seed=range(1,9)", "fusion.seconds=0.2,1.0", "sweep.slots_per_gpu=2"]
    with Program(
        *common, *grid, "sweep.study=first", f"paths.outputs={tmp_path / 'first'}", environment=environment
    ) as first:
        wait_for(lambda: (tmp_path / "first" / "sweeps" / "first" / "workers").exists())
        done = train(*common, *grid, "sweep.study=study", environment=environment)
        first.communicate()
    assert done.returncode == 0 and first.returncode == 0, done.stderr + done.stdout
    one, other = spans(open_study(tmp_path / "first" / "sweeps" / "first")), spans(study_of(tmp_path))
    assert set(one) | set(other) == {f"cuda:{gpu} {slot}/2" for gpu in (0, 1) for slot in (1, 2)}
    for slot in set(one) | set(other):
        times = sorted([*one.get(slot, []), *other.get(slot, [])])
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times)), slot


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_a_launcher_starts_workers(launcher: str, short: list[str], tmp_path: Path) -> None:
    pytest.importorskip(
        "submitit" if launcher.startswith("submitit") else "ray", reason=f"pip install -e '.[{launcher}]'"
    )
    command = [
        *short, "sweep=search", "sweep.trials=6", "sweep.study=study", "sweep.workers=2", f"hydra/launcher={launcher}",
        "optimizer.lr=tag(log,interval(1e-3,1e-2))", "tracking=none",
    ]  # fmt: skip
    done = train(*command)
    assert done.returncode == 0, done.stderr + done.stdout
    study = study_of(tmp_path)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert len({trial.user_attrs["owner"]["worker"] for trial in study.trials}) == 2
    (line,) = [line for line in done.stdout.splitlines() if line.endswith("sweep=grid")]
    assert shlex.split(line)
