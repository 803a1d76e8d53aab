"""Made-up studies, with the attributes that a sweep writes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

SPACE: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "feedback": CategoricalDistribution(["none", "static", "mmlatch"]),
    "encoder.text.dropout": FloatDistribution(0.0, 0.5),
    "hidden_dim": IntDistribution(16, 128),
}
TYPED = {
    "optimizer.lr": "tag(log, interval(1e-4, 1e-1))",
    "feedback": "none,static,mmlatch",
    "encoder.text.dropout": "interval(0.0, 0.5)",
    "hidden_dim": "range(16, 129)",
}
STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "running": TrialState.RUNNING}

TWO = {"objectives": ["valid/mae", "num_parameters"], "modes": ["min", "min"]}


def about(**changed: Any) -> dict[str, Any]:
    """What a study of ours says of itself."""
    return {
        "study": "mmlatch",
        "objectives": ["valid/mae"],
        "modes": ["min"],
        "seeds": 1,
        "seed": 1,
        "total": 50,
        "final": False,
        "dataset": "cmu_mosi",
        "planted": False,
        "fingerprint": "aaaabbbbccccdddd",
        "fixed": ["dataset=cmu_mosi", "seed=1"],
        "space": TYPED,
        "sampler": "tpe",
        "pruner": "median",
        "config_folders": [],
        "command": "python train.py -m sweep=mmlatch dataset=cmu_mosi",
    } | changed


def new_study(storage: str | None = None, **changed: Any) -> optuna.Study:
    """A study without trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    described = about(**changed)
    directions = ["minimize" if mode == "min" else "maximize" for mode in described["modes"]]
    study = optuna.create_study(storage=storage, study_name=described["study"], directions=directions)
    study.set_user_attr("mmsa", described)
    return study


def trial(
    values: Sequence[float] | None = None,
    state: str = "done",
    params: dict[str, Any] | None = None,
    scores: dict[int, Any] | None = None,
    curve: Sequence[float] = (),
    reason: str = "",
    seconds: float | None = 2.0,
) -> FrozenTrial:
    """A trial as a worker leaves it: `scores` per seed, `curve` of the monitored metric by epoch."""
    params = {"optimizer.lr": 0.01, "feedback": "none"} if params is None else params
    attributes: dict[str, Any] = {"overrides": [f"{key}={value}" for key, value in params.items()], "attempts": 1}
    if scores:
        attributes["seeds"] = {
            str(seed): {"score": score, "folder": "outputs/runs/x"} for seed, score in scores.items()
        }
    attributes |= {"reason": reason} if reason else {}
    attributes |= {"seconds": seconds} if seconds is not None else {}
    return create_trial(
        state=STATES.get(state, TrialState.COMPLETE),
        values=None if values is None else list(values),
        params=params,
        distributions={key: SPACE[key] for key in params},
        user_attrs=attributes,
        intermediate_values=dict(enumerate(curve, start=1)),
    )


def realistic_study(
    done: int = 47, pruned: int = 10, failed: int = 3, storage: str | None = None, **changed: Any
) -> optuna.Study:
    """A search over four parameters, of which the learning rate decides most.

    With two objectives the second one is the number of parameters.
    """
    study = new_study(storage, total=done + pruned, **changed)
    described = study.user_attrs["mmsa"]
    dice = random.Random(7)
    states = ["done"] * done + ["pruned"] * pruned + ["failed"] * failed
    dice.shuffle(states)
    trials = []
    for state in states:
        lr, dropout, hidden = 10 ** dice.uniform(-4, -1), dice.uniform(0, 0.5), dice.randint(16, 128)
        feedback = dice.choice(["none", "static", "mmlatch"])
        params = {"optimizer.lr": lr, "feedback": feedback, "encoder.text.dropout": dropout, "hidden_dim": hidden}
        error = 0.8 + 0.15 * (math.log10(lr) + 2.5) ** 2 + 0.3 * (dropout - 0.2) ** 2 - 20 / 10000 * hidden / 16
        error += {"none": 0.05, "static": 0.03, "mmlatch": 0.0}[feedback] + dice.gauss(0, 0.02)
        scores = {1 + place: error + dice.gauss(0, 0.01) for place in range(described["seeds"])}
        value = sum(scores.values()) / len(scores)
        values = [value, 900.0 * hidden + 1234][: len(described["modes"])]
        epochs = dice.randint(3, 6) if state == "pruned" else 15
        curve = [value + 0.6 * math.exp(-epoch / 4) + dice.gauss(0, 0.01) for epoch in range(1, epochs + 1)]
        told = {
            "done": {"values": values, "scores": scores},
            "pruned": {"reason": "epoch 4: behind the median"},
            "failed": {"reason": dice.choice(["out of memory", "the loss is not finite"]), "scores": None},
        }[state]
        seconds = dice.lognormvariate(2.5, 0.5)
        trials.append(trial(state=state, params=params, curve=curve, seconds=seconds, **told))  # type: ignore[arg-type]
    study.add_trials(trials)
    return study


def study_of(*trials: Any, **changed: Any) -> optuna.Study:
    study = new_study(**changed)
    study.add_trials(trials)
    return study
