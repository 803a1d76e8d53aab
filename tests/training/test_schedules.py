"""Schedules: the whole curve of each, when it moves, what it is handed, and that it goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmsa import learning, parts
from mmsa.compose import compose
from mmsa.errors import ConfigError
from mmsa.stages import Phase
from mmsa.training.optimizers import adam, adamw
from mmsa.training.schedules import Schedule
from tests.contracts.conftest import configuration, options

EPOCHS, STEPS = 5, 4
TOTAL = EPOCHS * STEPS
RATE = 0.5
STALLED = [0.5] * EPOCHS


def sgd(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (RATE,)]
    return torch.optim.SGD(groups, lr=1.0)


def scheduled(optimizer: torch.optim.Optimizer, *typed: str, epochs: int = EPOCHS) -> Schedule | None:
    cfg = configuration(*typed, f"trainer.max_epochs={epochs}", "trainer.batch_size=1")
    parts.check_node(cfg, "scheduler")
    return learning.build_schedule(cfg, optimizer, "min", [Phase()], STEPS)


def rates(
    schedule: Schedule | None, optimizer: torch.optim.Optimizer, first: int = 0, last: int = TOTAL
) -> list[float]:
    """The rate at each of these steps of a training whose score stalls."""
    found = []
    for done in range(first, last):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.after_step()
            if (done + 1) % STEPS == 0:
                schedule.after_epoch(STALLED[done // STEPS])
    return found


def warm(rise: float, total: int, rest: Callable[[float], float]) -> Callable[[int], float]:
    """A factor after some of `total` steps: up to 1 after `rise` of them, never 0, then `rest` from 0 to 1."""
    return lambda done: (done + 1) / (rise + 1) if done < rise else rest((done - rise) / (total - rise))


def half_cosine(low: float) -> Callable[[float], float]:
    return lambda part: low + (1 - low) * math.cos(part * math.pi / 2) ** 2


CURVES: dict[str, Callable[[int], float]] = {
    "none": lambda step: 1.0,
    "constant": lambda step: 1.0,
    "constant scheduler.warmup=0.25": lambda step: min(1.0, (step + 1) / 6),
    "constant scheduler.warmup=0.4 scheduler.unit=epoch": lambda step: [1 / 3, 2 / 3, 1, 1, 1][step // 4],
    "linear": lambda step: (20 - step) / 20,
    "linear scheduler.warmup=0.2": warm(4, 20, lambda part: 1 - part),
    "linear scheduler.warmup=0.33": warm(6.6, 20, lambda part: 1 - part),
    "linear scheduler.unit=epoch": lambda step: (5 - step // 4) / 5,
    "linear scheduler.warmup=0.2 scheduler.unit=epoch": lambda step: [1 / 2, 1, 3 / 4, 2 / 4, 1 / 4][step // 4],
    "cosine": lambda step: half_cosine(0)(step / 20),
    "cosine scheduler.min_factor=0.1": lambda step: half_cosine(0.1)(step / 20),
    "cosine scheduler.warmup=0.3": warm(6, 20, half_cosine(0)),
    "cosine scheduler.unit=epoch": lambda step: half_cosine(0)((step // 4) / 5),
    "cosine scheduler.warmup=0.4 scheduler.min_factor=0.1 scheduler.unit=epoch": (
        lambda step: warm(2, 5, half_cosine(0.1))(step // 4)
    ),
    "step scheduler.factor=0.3 scheduler.every=2": lambda step: 0.3 ** (step // 8),
    "exponential scheduler.factor=0.8": lambda step: 0.8 ** (step // 4),
    "plateau scheduler.patience=1 scheduler.cooldown=0": lambda step: [1, 1, 1, 0.5, 0.5][step // 4],
}
"""What is typed after `scheduler=`, and the rate at a step of 20 in 5 epochs, as a share of the first."""
MOVING = [typed for typed, curve in CURVES.items() if curve(0) != curve(TOTAL - 1)]


@pytest.mark.parametrize("typed", CURVES)
def test_the_whole_curve_is_the_stated_one(typed: str) -> None:
    optimizer = sgd()
    schedule = scheduled(optimizer, *f"scheduler={typed}".split())
    assert rates(schedule, optimizer) == pytest.approx([RATE * CURVES[typed](step) for step in range(TOTAL)], abs=1e-12)


def test_every_option_has_its_curve() -> None:
    assert {typed.split()[0] for typed in CURVES} == set(options("scheduler"))


def test_groups_keep_their_proportions() -> None:
    optimizer = sgd(1.0, 0.01)
    schedule = scheduled(optimizer, "scheduler=cosine", "scheduler.warmup=0.3")
    for done in range(TOTAL):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(first / 100, abs=1e-15)
        rates(schedule, optimizer, done, done + 1)


class Recorded:
    """A scheduler that notes what it is handed."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def step(self, *arguments: Any) -> None:
        self.calls.append(arguments)

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_a_schedule_moves_at_its_unit_and_only_one_that_reads_the_score_is_handed_it() -> None:
    """A cosine that is handed the score takes it for its epoch."""
    found = {}
    for name, schedule in {
        "step": Schedule(Recorded(), "step"),
        "epoch": Schedule(Recorded(), "epoch"),
        "score": Schedule(Recorded(), "epoch", reads_score=True),
    }.items():
        rates(schedule, sgd())
        found[name] = schedule.scheduler.calls
    assert found == {"step": [()] * TOTAL, "epoch": [()] * EPOCHS, "score": [(score,) for score in STALLED]}
    with pytest.raises(ValueError, match="unit=epoch"):
        Schedule(Recorded(), "step", reads_score=True)


def test_of_ours_only_plateau_reads_the_score() -> None:
    made = {name: scheduled(sgd(), f"scheduler={name}") for name in options("scheduler")}
    assert [name for name, schedule in made.items() if schedule and schedule.reads_score] == ["plateau"]


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restored", [True, False])
@pytest.mark.parametrize("typed", MOVING)
def test_a_restored_schedule_goes_on_with_the_same_bits_and_a_fresh_one_does_not(
    typed: str, restored: bool, tmp_path: Path
) -> None:
    """Saved after an epoch; making it anew moves the rates. Exponential alone remembers nothing but the rate."""
    words, stop = f"scheduler={typed}".split(), STEPS
    whole_optimizer = sgd()
    whole = rates(scheduled(whole_optimizer, *words), whole_optimizer)

    optimizer = sgd()
    schedule = scheduled(optimizer, *words)
    assert schedule is not None
    rates(schedule, optimizer, 0, stop)
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "last.pt")

    last = torch.load(tmp_path / "last.pt", weights_only=True)
    optimizer = sgd()
    schedule = scheduled(optimizer, *words)
    assert schedule is not None
    optimizer.load_state_dict(last["optimizer"])
    if restored:
        schedule.load_state_dict(last["schedule"])
    assert (rates(schedule, optimizer, stop) == whole[stop:]) is (restored or typed.startswith("exponential"))


@pytest.mark.parametrize("typed", ["linear", "cosine", "constant scheduler.warmup=0.2"])
def test_a_curve_of_another_length_is_refused(typed: str) -> None:
    """Its rates would jump: the length is part of the curve."""
    words = f"scheduler={typed}".split()
    made, longer = scheduled(sgd(), *words), scheduled(sgd(), *words, epochs=9)
    assert made is not None and longer is not None
    with pytest.raises(ConfigError, match=rf"trainer\.max_epochs=9[\s\S]*over {EPOCHS} [\s\S]*max_epochs={EPOCHS},"):
        longer.load_state_dict(made.state_dict())


@pytest.mark.parametrize("typed", ["constant", "step", "exponential", "plateau"])
def test_a_curve_without_a_length_goes_on_for_as_long_as_one_likes(typed: str) -> None:
    made, longer = scheduled(sgd(), f"scheduler={typed}"), scheduled(sgd(), f"scheduler={typed}", epochs=9)
    assert made is not None and longer is not None
    longer.load_state_dict(made.state_dict())


def test_what_older_runs_saved_of_plateau_is_restored() -> None:
    """PyTorch's own state, and nothing else."""
    made, fresh = scheduled(sgd(), "scheduler=plateau"), scheduled(sgd(), "scheduler=plateau")
    assert made is not None and fresh is not None
    made.after_epoch(0.3)
    fresh.load_state_dict(made.scheduler.state_dict())
    assert fresh.scheduler.state_dict() == made.scheduler.state_dict()


# --- a schedule of one's own ------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """A configuration whose schedule, `triangle`, is in a package of one's own."""
    (tmp_path / "own_schedules.py").write_text(
        "from torch.optim.lr_scheduler import LambdaLR\n"
        "from mmsa.training.schedules import Schedule\n"
        "def triangle(optimizer, total_steps, peak=0.5):\n"
        "    top = peak * total_steps\n"
        "    height = lambda done: min(done / top, (total_steps - done) / (total_steps - top))\n"
        "    return Schedule(LambdaLR(optimizer, height), unit='step')\n"
        "def bare(optimizer):\n"
        "    return LambdaLR(optimizer, lambda done: 1 / (1 + done))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("mmsa.config.PACKAGES", ("own_schedules",))
    cfg = compose(["scheduler=none", f"trainer.max_epochs={EPOCHS}", "trainer.batch_size=1"])
    OmegaConf.update(cfg, "scheduler", {"_target_": "own_schedules.triangle", "peak": 0.2}, force_add=True)
    return cfg


def test_a_schedule_of_ones_own_is_given_what_it_asks_for(own: DictConfig) -> None:
    parts.check_node(own, "scheduler")
    optimizer = sgd()
    schedule = learning.build_schedule(own, optimizer, "max", [Phase()], STEPS)
    assert rates(schedule, optimizer) == pytest.approx([RATE * min(i / 4, (20 - i) / 16) for i in range(TOTAL)])


def test_a_bare_scheduler_of_pytorch_does_not_say_when_it_moves_and_is_refused(own: DictConfig) -> None:
    OmegaConf.update(own, "scheduler", {"_target_": "own_schedules.bare"}, merge=False)
    with pytest.raises(ConfigError, match=r'came a LambdaLR[\s\S]*return Schedule\(scheduler, unit="epoch"\)'):
        learning.build_schedule(own, sgd(), "min", [Phase()], STEPS)


# --- groups without weight decay --------------------------------------------------------------------------------------


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))


@pytest.mark.parametrize("make", [adam, adamw])
def test_without_decay_of_biases_each_group_is_two_and_keeps_its_own_options(make: Any) -> None:
    model = normed()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    given: list[dict[str, Any]] = [
        {"params": list(model[:2].parameters())},
        {"params": list(model[2].parameters()), "lr": 1e-5, "weight_decay": 0.2},
    ]
    groups = make(given, lr=1e-3, weight_decay=0.1, decay_biases=False).param_groups
    found = [([names[id(p)] for p in group["params"]], group["lr"], group["weight_decay"]) for group in groups]
    assert found == [
        (["0.weight"], 1e-3, 0.1),
        (["0.bias", "1.weight", "1.bias"], 1e-3, 0.0),
        (["2.weight"], 1e-5, 0.2),
        (["2.bias"], 1e-5, 0.0),
    ]
    assert len(given[0]["params"]) == 4, "what was given is as it was"
    together = make(list(model.parameters()), lr=1e-3, decay_biases=False).param_groups
    assert [len(group["params"]) for group in together] == [2, 4]


@pytest.mark.parametrize("decays", [True, False])
def test_parameters_of_one_axis_shrink_only_where_they_decay(decays: bool) -> None:
    cfg = configuration("optimizer=adamw", "optimizer.weight_decay=0.5", f"optimizer.decay_biases={decays}")
    model = normed()
    optimizer = parts.part(cfg, "optimizer")(parameters=learning.parameter_groups(model))
    assert len(optimizer.param_groups) == (1 if decays else 2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    of_one_axis = {"0.bias", "1.weight", "2.bias"}  # the norm's bias is 0, which cannot shrink
    assert moved == {"0.weight", "2.weight"} | (of_one_axis if decays else set())
