"""Setting a sweep up: everything is checked before a trial starts; and opening it as a worker."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mmsa import build
from mmsa.commands import train_command
from mmsa.compose import compose
from mmsa.config import PACKAGES_VARIABLE, check_options
from mmsa.errors import ConfigError
from mmsa.overrides import typed_key, typed_overrides
from mmsa.run_folder import check_outputs
from mmsa.sweep.options import SweepOptions, SweepSpec, check_together
from mmsa.sweep.running import TrialRunner, direction, make_pruner
from mmsa.sweep.sampling import is_grid, make_sampler
from mmsa.sweep.space import Space, check_space, grid_points, read_space
from mmsa.sweep.storage import choose_storage, open_storage, open_study, quiet_optuna
from mmsa.sweep.trials import TrialDesk
from mmsa.tracking.tracker import without_password
from mmsa.training.metrics import METRICS, metric_mode

if TYPE_CHECKING:
    import optuna

OTHER_OBJECTIVES = ("num_parameters", "seconds")


@dataclass(frozen=True)
class Sweep:
    """A sweep that is checked and whose study is made.

    Args:
        spec: what its workers need to know.
        study: the study.
        base: configuration of the first point.
        notes: what the user has to be told.
        command: what to type to go on with it.
    """

    spec: SweepSpec
    study: optuna.Study
    base: DictConfig
    notes: tuple[str, ...]
    command: str


def set_up(
    cfg: DictConfig,
    choice: str,
    sampler: Mapping[str, Any],
    params: Mapping[str, Any],
    extender: str | None,
    arguments: Sequence[str],
) -> Sweep:
    """Check a sweep, prepare its data, and make or find its study.

    Args:
        cfg: the configuration of the multirun, with its node `sweep`.
        choice: the option of the group `sweep` that was chosen.
        sampler: node of the sampler.
        params: a search space as Hydra's Optuna plugin has it; that of the node `sweep` wins.
        extender: dotted name of a function that suggests further parameters, or None.
        arguments: what was typed after train.py, in Hydra's own words.

    Raises:
        MmsaError: what the user can mend; nothing has been trained.
    """
    quiet_optuna()
    options: dict[str, Any] = OmegaConf.to_container(cfg.sweep, resolve=True)  # type: ignore[assignment]
    check_options(options, SweepOptions, "sweep")
    check_together(options)
    check_outputs(Path(cfg.paths.outputs))
    dimensions = as_typed({**params, **cfg.sweep.space})
    space = read_space(dimensions, arguments, seeds_allowed=options["final"])
    points = grid_points(space) if is_grid(sampler) else None
    config_folders = _config_folders()
    check_space(space, lambda overrides: build.check(compose(overrides, config_folders)))
    base = first_configuration(space, config_folders)
    _load_extender(extender)
    store, _ = build.open_data(base, progress=True)
    if len(options["objectives"] or ()) > 1 and _sampler_name(sampler) == "CmaEsSampler":
        raise ConfigError(
            "hydra/sweeper/sampler=cmaes: it knows one objective only.\n  type hydra/sweeper/sampler=nsgaii, or tpe"
        )
    objectives = list(options["objectives"] or [f"valid/{build.build_task(base).monitor}"])
    spec = SweepSpec(
        study="",
        folder="",
        working_folder=os.getcwd(),
        storage="",
        space=dimensions,
        arguments=[argument for argument in arguments if not argument.startswith(("sweep=", "sweep.", "hydra"))],
        sampler=dict(sampler),
        extender=extender,
        seed=base.seed,
        objectives=objectives,
        modes=[_mode(name) for name in objectives],
        num_points=None if points is None else len(points),
        config_folders=config_folders,
        packages=os.environ.get(PACKAGES_VARIABLE, ""),
        options=options,
    )
    name = options["study"] or f"{choice}-{_digest(spec, store.fingerprint)}"
    folder = Path(cfg.paths.outputs).resolve() / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    storage, note = choose_storage(options["storage"], folder)
    spec = replace(spec, study=name, folder=str(folder), storage=storage)
    if storage == base.tracking.get("uri"):
        raise ConfigError(
            "sweep.storage and tracking.uri are one database, and the tables of Optuna and MLflow do not go together.\n"
            "  type another database for one of them"
        )
    command = without_password(train_command(typed_overrides(_as_command(choice, arguments)), config_folders))
    study = make_study(
        spec,
        {
            "dataset": store.dataset,
            "planted": bool(store.report.get("planted")),
            "fingerprint": store.fingerprint,
            "fixed": typed_overrides(space.fixed),
            "space": {typed_key(key): text for key, text in space.texts.items()},
            "config_folders": config_folders,
            "command": command,
        },
    )
    if points is not None:
        enqueue_missing(study, points)
    spec.save()
    return Sweep(spec, study, base, (note,) if note else (), command)


def reopen(folder: Path) -> Sweep:
    """A sweep that was set up before, from its folder.

    Raises:
        MmsaError: the folder is not a sweep's, or its storage cannot be reached.
    """
    quiet_optuna()
    spec, study = replace(SweepSpec.load(folder), folder=str(folder.resolve())), open_study(folder)
    space = read_space(spec.space, spec.arguments, seeds_allowed=spec.options["final"])
    base = first_configuration(space, spec.config_folders)
    return Sweep(spec, study, base, (), study.user_attrs["mmsa"]["command"])


def make_study(spec: SweepSpec, facts: Mapping[str, Any]) -> optuna.Study:
    """Make the study, or find it and see that it is of the same search.

    Raises:
        ConfigError: a study of that name searches something else, or the storage cannot be reached.
    """
    import optuna

    directions = [direction(mode) for mode in spec.modes]
    storage = open_storage(spec.storage)
    about = {
        "study": spec.study, "objectives": spec.objectives, "modes": spec.modes, "seeds": spec.options["seeds"],
        "seed": spec.seed, "final": spec.options["final"], "sampler": _sampler_name(spec.sampler),
        "pruner": spec.options["pruner"], **facts,
    }  # fmt: skip
    try:
        study = optuna.create_study(study_name=spec.study, storage=storage, directions=directions, load_if_exists=True)
    except ValueError as error:  # other directions
        raise _other_search(spec.study, "objectives") from error
    known = study.user_attrs.get("mmsa") or {}
    free = ("total", "command", "pruner")
    differ = [
        key for key in about if key not in free and known and known.get(key) != json.loads(json.dumps(about[key]))
    ]
    if differ:
        raise _other_search(spec.study, f"{differ[0]}: {known.get(differ[0])}, not {about[differ[0]]}")
    study.set_user_attr("mmsa", {**about, "total": spec.total})
    return study


def enqueue_missing(study: optuna.Study, points: Sequence[Mapping[str, Any]]) -> None:
    """Queue the points of a grid that are neither done nor under way; those that failed are tried again."""
    from optuna.trial import TrialState

    there = {
        trial.user_attrs.get("point") for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL
    }
    for number, point in enumerate(points):
        if number not in there:
            study.enqueue_trial(dict(point), user_attrs={"point": number})


def open_sweep(folder: Path, slot: str) -> tuple[TrialDesk, TrialRunner]:
    """What a worker needs of a sweep."""
    import optuna

    quiet_optuna()
    spec = SweepSpec.load(folder)
    options = spec.options
    space = read_space(spec.space, spec.arguments, seeds_allowed=options["final"])
    grid = is_grid(spec.sampler)
    study = optuna.load_study(
        study_name=spec.study,
        storage=open_storage(spec.storage),
        sampler=optuna.samplers.RandomSampler(seed=0) if grid else make_sampler(spec.sampler, spec.seed),
        pruner=make_pruner(options["pruner"], options["min_epochs"]),
    )
    extend = _load_extender(spec.extender)
    extended = (
        (lambda trial: None) if extend is None else partial(extend, first_configuration(space, spec.config_folders))
    )
    desk = TrialDesk(
        study,
        space.distributions,
        total=None if grid else spec.total,
        retries=options["retries"],
        max_failures=options["max_failures"],
        slot=slot,
        extend=extended,
    )
    return desk, TrialRunner(spec, space, study)


def as_typed(space: Mapping[Any, Any]) -> dict[str, str]:
    """The values of a search space as they would be typed."""
    words = {None: "null", True: "true", False: "false"}
    return {str(k): words[v] if v is None or isinstance(v, bool) else str(v) for k, v in space.items()}


def first_configuration(space: Space, config_folders: Sequence[str]) -> DictConfig:
    """The configuration with what is fixed."""
    return compose(list(space.fixed), config_folders)


def _digest(spec: SweepSpec, fingerprint: str) -> str:
    """Eight signs that differ where something else is searched."""
    searched = {
        "space": spec.space, "arguments": sorted(spec.arguments), "sampler": spec.sampler, "extender": spec.extender,
        "objectives": spec.objectives, "data": fingerprint,
        **{key: spec.options[key] for key in ("seeds", "confidence", "pruner", "min_epochs", "final")},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(searched, sort_keys=True).encode()).hexdigest()[:8]


def _mode(objective: str) -> str:
    """ "min" or "max".

    Raises:
        ConfigError: there is no such objective.
    """
    if objective in OTHER_OBJECTIVES:
        return "min"
    fold, _, metric = objective.partition("/")
    if fold == "test":
        raise ConfigError(
            f"sweep.objectives: {objective}: a search never reads the test fold.\n"
            f"  type sweep.objectives=[valid/{metric}]"
        )
    if fold != "valid" or metric not in METRICS:
        known = ", ".join([*(f"valid/{name}" for name in METRICS), *OTHER_OBJECTIVES])
        raise ConfigError(f"sweep.objectives: there is no {objective}; there is {known}.")
    return metric_mode(metric)


def _other_search(study: str, difference: str) -> ConfigError:
    return ConfigError(
        f"sweep.study={study}: there is a study of this name, and it searches something else ({difference}).\n"
        "  type sweep.study=ANOTHER, or leave it out"
    )


def _sampler_name(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def _load_extender(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return get_object(name)
    except Exception as error:  # whatever importing a user's module raises
        raise ConfigError(f"hydra.sweeper.custom_search_space={name} cannot be imported: {error}") from error


def _config_folders() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return [str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"]


def _as_command(choice: str, arguments: Sequence[str]) -> list[str]:
    return [f"sweep={choice}", *(argument for argument in arguments if not argument.startswith("sweep="))]
