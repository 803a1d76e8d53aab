"""Samplers: a trial's parameters depend on the seed, its number and the study, and on nothing drawn before."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from mmsa.errors import ConfigError
from mmsa.sweep.sampling import is_grid, make_sampler
from mmsa.sweep.storage import open_storage
from tests.conftest import ROOT

PLUGIN = "hydra_plugins.hydra_optuna_sweeper"
NODES: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 5, "multivariate": False},
    "tpe, joint": {
        "_target_": "optuna.samplers.TPESampler",
        "n_startup_trials": 5,
        "multivariate": True,
        "group": True,
    },
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "popsize": 4},
    "gp": {"_target_": "optuna.samplers.GPSampler", "n_startup_trials": 11},
    "nsgaii": {"_target_": f"{PLUGIN}._impl.create_nsgaii_sampler", "population_size": 4},
    "nsgaiii": {"_target_": f"{PLUGIN}._impl.create_nsgaiii_sampler", "population_size": 4},
    "qmc": {"_target_": "optuna.samplers.QMCSampler"},
}
STARTUP = {"tpe": 5, "tpe, joint": 5, "gp": 11, "nsgaii": 4, "nsgaiii": 4}
"""Trials that a sampler draws at random; all of them where none is said."""
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "dim": IntDistribution(16, 128),
    "dropout": FloatDistribution(0.0, 0.5),
    "feedback": CategoricalDistribution(["none", "static", "mmlatch"]),
}
TRIALS = 15

every_sampler = pytest.mark.parametrize("name", NODES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    former = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(former)


def opened(name: str, storage: str | BaseStorage | None = None, seed: int = 1) -> optuna.Study:
    """A study, as a new process opens it."""
    sampler = make_sampler(NODES[name], seed)
    return optuna.create_study(study_name="study", storage=storage, sampler=sampler, load_if_exists=True)


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def score(params: dict[str, Any]) -> float:
    return float((params["dropout"] - 0.3) ** 2 + params["dim"] / 100 + len(params["feedback"]) / 10 + params["lr"])


def run(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, score(trial.params))
    return [trial.params for trial in study.trials]


@functools.cache
def drawn_at_once(name: str) -> list[dict[str, Any]]:
    """The trials of a study that one process draws."""
    return run(opened(name), TRIALS)


def suggest(trial: Trial, names: Sequence[str]) -> dict[str, Any]:
    return {name: trial._suggest(name, SPACE[name]) for name in names}


@every_sampler
def test_three_processes_draw_what_one_draws(name: str) -> None:
    storage = InMemoryStorage()
    for _ in range(3):
        in_parts = run(opened(name, storage), TRIALS // 3)
    assert in_parts == drawn_at_once(name)


def test_three_processes_draw_what_one_draws_through_a_database(tmp_path: Path) -> None:
    for _ in range(3):
        in_parts = run(opened("tpe, joint", open_storage(f"sqlite:///{tmp_path / 'study.db'}")), TRIALS // 3)
    assert in_parts == drawn_at_once("tpe, joint")


@every_sampler
def test_no_two_trials_start_at_one_point(name: str) -> None:
    storage = InMemoryStorage()
    workers = [opened(name, storage) for _ in range(2)]
    trials = [worker.ask(SPACE) for _ in range(STARTUP.get(name, TRIALS) // 2 + 1) for worker in workers]
    assert len({trial.params["dropout"] for trial in trials}) == len(trials)


@every_sampler
def test_workers_that_ask_at_once_get_different_points(name: str) -> None:
    storage = InMemoryStorage()
    run(opened(name, storage), TRIALS)
    trials = [opened(name, storage).ask() for _ in range(3)]
    points = [trial.relative_params or suggest(trial, list(SPACE)) for trial in trials]
    assert len({tuple(sorted(point.items())) for point in points}) == 3


def test_qmc_gives_a_place_to_one_trial_though_workers_read_the_same_count(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = InMemoryStorage()
    run(opened("qmc", storage), TRIALS)
    monkeypatch.setattr(storage, "get_study_system_attrs", lambda study_id: {})
    first, second = (opened("qmc", storage).ask(SPACE).params for _ in range(2))
    assert first != second


def test_parameters_of_one_kind_get_different_values() -> None:
    trial = opened("random").ask(dict.fromkeys(("text", "audio"), SPACE["dropout"]))
    assert trial.params["text"] != trial.params["audio"]


@every_sampler
def test_a_trial_left_half_suggested_gets_its_other_parameters(name: str, tmp_path: Path) -> None:
    left = opened(name, journal(tmp_path / "study.log"))
    run(left, TRIALS - 1)
    trial = left.ask()
    first, *others = SPACE
    expected = drawn_at_once(name)[-1]
    assert suggest(trial, [first]) == {first: expected[first]}
    adopted = Trial(opened(name, journal(tmp_path / "study.log")), trial._trial_id)
    assert suggest(adopted, others) == {other: expected[other] for other in others}


@pytest.mark.parametrize("name", [name for name in NODES if name not in ("tpe", "random")])
def test_parameters_drawn_together_stay_so_when_other_trials_end(name: str, tmp_path: Path) -> None:
    left = opened(name, journal(tmp_path / "study.log"))
    run(left, TRIALS - 1)
    trial = left.ask()
    first, *others = [key for key in SPACE if key in trial.relative_params]
    suggest(trial, [first])
    run(opened(name, journal(tmp_path / "study.log")), 4)
    adopted = Trial(opened(name, journal(tmp_path / "study.log")), trial._trial_id)
    assert suggest(adopted, others) == {other: drawn_at_once(name)[-1][other] for other in others}


@every_sampler
def test_parameters_drawn_one_by_one_do_not_follow_the_order_they_are_asked_in(name: str) -> None:
    forward, backward = (suggest(opened(name).ask(), names) for names in (list(SPACE), list(SPACE)[::-1]))
    assert forward == backward


@every_sampler
def test_two_seeds_differ(name: str) -> None:
    first, second = (run(opened(name, seed=seed), 3) for seed in (1, 2))
    assert first != second


def test_a_seed_of_the_users_own_replaces_the_sweeps() -> None:
    study = optuna.create_study(sampler=make_sampler({**NODES["random"], "seed": 7}, 1))
    assert run(study, 3) == run(opened("random", seed=7), 3) != run(opened("random", seed=1), 3)


def test_a_sampler_inside_another_is_seeded_too() -> None:
    node = {**NODES["gp"], "independent_sampler": NODES["random"]}
    first, second = (run(optuna.create_study(sampler=make_sampler(node, 1)), 3) for _ in range(2))
    assert first == second


def test_tpe_reckons_with_the_trials_that_still_run() -> None:
    def next_point(running: int) -> dict[str, Any]:
        study = opened("tpe")
        run(study, 10)
        for number in range(5):
            trial = study.ask(SPACE)
            if number >= running:
                study.tell(trial, state=TrialState.FAIL)
        return study.ask(SPACE).params

    assert next_point(running=5) != next_point(running=0)


CONDITIONAL = """
import optuna
from mmsa.sweep.sampling import make_sampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(sampler=make_sampler({node!r}, 1))
for number in range(15):
    trial = study.ask()
    value = sum(trial.suggest_float(name, 0, 1) for name in "abcd")
    if number % 2:
        value += sum(trial.suggest_float(name, 0, 1) for name in ("left", "right", "middle"))
    study.tell(trial, value)
print([trial.params for trial in study.trials])
"""


def test_joint_tpe_draws_alike_whatever_the_hash_seed() -> None:
    printed = [
        subprocess.run(
            [sys.executable, "-c", CONDITIONAL.format(node=NODES["tpe, joint"])],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for hash_seed in ("1", "2")
    ]
    assert printed[0].stdout == printed[1].stdout != ""
    assert printed[0].stderr == ""


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({**NODES["nsgaii"], "population_size": 1}, "population_size"),
        ({**NODES["tpe, joint"], "multivariate": False}, "group"),
        ({**NODES["tpe"], "unknown": 1}, "unknown"),
        ({**NODES["random"], "seed": -1}, "it is -1"),
        ({"_target_": "optuna.samplers.Nothing"}, "Nothing"),
        ({"_target_": "os.system", "command": "true"}, "cannot be"),
        ({"_target_": f"{PLUGIN}.config.raise_motpe_removed"}, "sampler=tpe"),
        ({"_target_": "optuna.samplers.GridSampler", "_partial_": True}, "not a sampler"),
    ],
)
def test_a_node_that_makes_no_sampler_is_refused(node: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        make_sampler(node, 1)
    assert "\n  type " in str(caught.value)


@pytest.mark.parametrize(("name", "package"), [("cmaes", "cmaes"), ("gp", "torch")])
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == package else found(module))
    with pytest.raises(ConfigError, match=f"type pip install {package}"):
        make_sampler(NODES[name], 1)


def test_a_grid_is_told_by_its_node() -> None:
    assert is_grid({"_target_": "optuna.samplers.GridSampler", "_partial_": True, "seed": None})
    assert not any(is_grid(node) for node in NODES.values())
