"""The objective, optimisers and schedule of a model, from a configuration."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch.optim import Optimizer

from mmsa.config import check_options
from mmsa.errors import ConfigError
from mmsa.model import Learner, MultimodalModel
from mmsa.parts import built, values_of
from mmsa.stages import Objective, Phase, Task
from mmsa.training.groups import GroupOptions, check_prefixes, options_by_prefix
from mmsa.training.phases import num_steps, stepped
from mmsa.training.schedules import Schedule
from mmsa.training.trainer import MAIN


def check_needs(objective: Objective, absent: Sequence[str]) -> None:
    """Refuse an objective that needs a target which is absent.

    Raises:
        ConfigError: it does.
    """
    if absent:
        raise ConfigError(
            f"objective needs the target {absent[0]}, which the data set does not have.\n"
            "  type objective=task, or a dataset whose source has it"
        )


def build_objective(cfg: DictConfig, model: MultimodalModel, task: Task, generator: torch.Generator) -> Objective:
    """The objective, with its heads and memories.

    Args:
        cfg: the configuration.
        model: built of it.
        task: whose loss it is.
        generator: source of its draws.
    """
    return cast(
        Objective,
        built(
            cfg,
            "objective",
            task=task,
            utterance_dims={m: int(encoder.utterance_dim) for m, encoder in model.encoders.items()},
            fused_dim=int(model.fusion.output_dim),
            published_dims=dict(getattr(model.fusion, "published_dims", {})),
            generator=generator,
        ),
    )


def build_optimizers(cfg: DictConfig, learner: Learner) -> dict[str, Optimizer]:
    """The run's optimiser as "main", and those that phases of the objective have of their own, by their names.

    Raises:
        ConfigError: two of them would step the same parameter, or a phase none.
    """
    made: dict[str, Optimizer] = {}
    owned: set[torch.nn.Parameter] = set()
    for phase in learner.objective.phases:
        own = stepped(phase, learner)
        if phase.optimizer is not None:
            if phase.name == MAIN or phase.name in made or owned.intersection(own):
                raise ConfigError(
                    f"the phase {phase.name} of the objective needs a name and parameters that no other has.\n"
                    "  type objective=task, or correct the objective"
                )
            owned.update(own)
            made[phase.name] = phase.optimizer([p for p in own if p.requires_grad])
    check_groups(cfg, learner)
    main = built(cfg, "optimizer", parameters=parameter_groups(learner, owned), named=learner.named())
    return {MAIN: main, **made}


def check_groups(cfg: DictConfig, learner: Learner) -> None:
    """Check the modules and options of `optimizer.groups`.

    Raises:
        ConfigError: an option is unknown or out of range, or a module is none of the model's or the objective's.
    """
    by_prefix = options_by_prefix(values_of(cfg, "optimizer").get("groups") or {})
    for prefix, options in by_prefix.items():
        check_options(options, GroupOptions, f"optimizer.groups.{prefix}")
    check_prefixes(by_prefix, learner.named())


def parameter_groups(learner: torch.nn.Module, without: Container[torch.nn.Parameter] = ()) -> list[dict[str, Any]]:
    """The parameters of the run's optimiser: the trainable ones `without` some; those of a module with its own `lr` or
    `weight_decay` apart."""
    own: dict[torch.nn.Module, dict[str, float]] = {}
    for module in learner.modules():
        found = {key: getattr(module, key, None) for key in ("lr", "weight_decay")}
        if options := {key: value for key, value in found.items() if value is not None}:
            own[module] = options
    apart = {parameter for module in own for parameter in module.parameters()}
    groups: list[dict[str, Any]] = [{"params": [p for p in learner.parameters() if p not in apart]}]
    groups += [{"params": list(module.parameters()), **options} for module, options in own.items()]
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad and p not in without]
    return [group for group in groups if group["params"]]


def build_schedule(
    cfg: DictConfig, optimizer: Optimizer, mode: str, phases: Sequence[Phase], num_train: int
) -> Schedule | None:
    """The schedule of the learning rate; None for a constant rate.

    Args:
        cfg: the composed configuration.
        optimizer: whose learning rate changes.
        mode: "min" or "max" of the monitored value.
        phases: of the objective, whose steps count.
        num_train: utterances of the train fold.

    Raises:
        ConfigError: a part of the user's own is none of ours.
    """
    planned = {key: cfg.trainer[key] for key in ("max_epochs", "batch_size", "accumulate")}
    given = {"total_steps": num_steps(phases, num_train, **planned), "total_epochs": planned["max_epochs"]}
    schedule = built(cfg, "scheduler", optimizer=optimizer, mode=mode, **given)
    if schedule is None or isinstance(schedule, Schedule):
        return schedule
    raise ConfigError(
        f"scheduler._target_={cfg.scheduler._target_}: needs a mmsa.training.schedules.Schedule, which says when it "
        f"moves, or None; came a {type(schedule).__name__}.\n"
        '  return Schedule(scheduler, unit="epoch") there, or unit="step"'
    )
