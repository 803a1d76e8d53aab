"""Desks of trials for tests."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mmsa.sweep.sampling import make_sampler
from mmsa.sweep.storage import open_storage, quiet_optuna
from mmsa.sweep.trials import TrialDesk

SPACE = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "width": IntDistribution(8, 64, step=8),
    "feedback": CategoricalDistribution(("none", "static", "mmlatch")),
}


RANDOM = {"_target_": "optuna.samplers.RandomSampler"}


def make_desk(url: str, total: int = 5, sampler: dict[str, Any] = RANDOM, **options: Any) -> TrialDesk:
    quiet_optuna()
    study = optuna.create_study(
        study_name="study", storage=open_storage(url), sampler=make_sampler(sampler, 1), load_if_exists=True
    )
    desk = TrialDesk(study, SPACE, total, **{"retries": 2, "max_failures": 3, **options})
    desk.open()
    return desk


def objective(trial: optuna.Trial) -> float:
    return float(trial.params["lr"] * trial.params["width"] + len(trial.params["feedback"]))


def run(desk: TrialDesk, most: int = 1000) -> None:
    for _ in range(most):
        trial = desk.next()
        if trial is None:
            return
        assert desk.tell(trial, TrialState.COMPLETE, [objective(trial)])


def points(url: str) -> list[tuple[Any, ...]]:
    study = optuna.load_study(study_name="study", storage=open_storage(url))
    return [
        (trial.number, trial.state, tuple(trial.params.items()), tuple(trial.values or ())) for trial in study.trials
    ]
