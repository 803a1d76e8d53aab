"""Making a sweep's folder and study, or finding them; and opening both as a worker."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from optuna.study import StudyDirection

from mmsa import build
from mmsa.commands import train_command
from mmsa.data.store import Store
from mmsa.dataset.choice import naming
from mmsa.errors import ConfigError
from mmsa.files import remove_all
from mmsa.locks import Lock
from mmsa.occupancy import is_under_way
from mmsa.overrides import text_override, typed_key, typed_overrides
from mmsa.run_folder import override_key
from mmsa.secrets import address
from mmsa.sweep.checking import CheckedSweep, first_configuration
from mmsa.sweep.endings import failures
from mmsa.sweep.options import Search, SweepSpec, is_server
from mmsa.sweep.points import FAILED_BEFORE
from mmsa.sweep.running import TrialRunner, make_pruner
from mmsa.sweep.sampling import is_grid, make_sampler, sampler_name
from mmsa.sweep.space import Space, grid_points, read_space
from mmsa.sweep.storage import choose_storage, open_storage, open_study
from mmsa.sweep.summary import ATTRIBUTE, DATA_KEYS, StudyRecord
from mmsa.sweep.trials import TrialDesk, study_lock
from mmsa.tracking.database import default_uri

ELSEWHERE = re.compile(r"[+~]*(paths|tracking|device|name)([./@=]|$)")
"""Arguments that change where a search runs and is kept, not the search."""
_FILES = ("dataset.source", "dataset.glove")


@dataclass(frozen=True)
class Sweep:
    """A sweep that is checked and whose study is made.

    Args:
        spec: the record from which its workers start.
        study: the study.
        base: configuration of the first point.
        note: a line for the user; None is nothing.
        command: resumes it here.
    """

    spec: SweepSpec
    study: optuna.Study
    base: DictConfig
    command: str
    note: str | None = None


def set_up(checked: CheckedSweep, choice: str) -> Sweep:
    """Prepare the data of a sweep, and make or find its folder and its study.

    Args:
        checked: its plan.
        choice: the option of the group `sweep` that was chosen.

    Raises:
        MmsaError: an error that the user can fix; nothing has been trained.
    """
    search = checked.search
    store, _ = build.open_data(checked.base, progress=True)
    searched = what_is_searched(search, store)
    sweeps = Path(checked.base.paths.outputs).resolve() / "sweeps"
    name = search.options["study"] or _name(choice, searched, search, sweeps)
    folder = sweeps / name
    folder.mkdir(parents=True, exist_ok=True)
    named = _naming(checked, store)
    command = train_command([f"sweep={choice}", *checked.typed, *named], search.config_folders)
    with Lock(study_lock(name), "making the study"):  # typed twice at once
        if not is_under_way(folder):
            remove_all([*folder.rglob(".*.tmp")])  # of a killed process
        storage, note = choose_storage(search.options["storage"], folder)
        _check_apart(storage, checked.base.tracking.get("uri") or default_uri(checked.base.paths.outputs))
        sources = {store.dataset: store.sources}
        spec = SweepSpec(**vars(search), study=name, folder=str(folder), storage=storage, sources=sources)
        study = make_study(spec, searched, study_record(spec, checked.space, store, command, named))
        spec.save()
    return Sweep(spec, study, checked.base, command, note)


def _check_apart(storage: str, tracking: str) -> None:
    """Refuse one database for the study and for the runs."""
    if (address("sweep.storage", storage) if is_server(storage) else storage) == address("tracking.uri", tracking):
        raise ConfigError(
            "sweep.storage and tracking.uri are one database, and the tables of Optuna and MLflow do not go together.\n"
            "  use another database for one of them"
        )


def _name(choice: str, searched: Mapping[str, Any], search: Search, sweeps: Path) -> str:
    """The study's name, made from the search; older versions included the path of the source."""

    def name(content: Mapping[str, Any]) -> str:
        return f"{choice}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]}"

    typed = [argument for argument in typed_overrides(search.arguments) if not ELSEWHERE.match(argument)]
    former = name({**searched, "arguments": sorted(typed)})
    return former if (sweeps / former).is_dir() else name(searched)


def _naming(checked: CheckedSweep, store: Store) -> list[str]:
    """The overrides that name an untyped source in commands of this sweep: later other stores may fit too."""
    cfg = checked.base
    if DATA_KEYS & checked.space.texts.keys() or cfg.dataset.get("source", "") is not None:
        return []
    return [naming(build.dataset_of_run(cfg).way_to(store))]


def what_is_searched(search: Search, store: Store) -> dict[str, Any]:
    """The identity of a study, whatever the order of its overrides."""
    return {
        "space": search.space,
        "arguments": sorted(_that_search(typed_overrides(search.arguments))),
        "sampler": search.sampler,
        "objectives": search.objectives,
        "modes": search.modes,
        "data": store.fingerprint,
        **{key: search.options[key] for key in ("seeds", "confidence", "pruner", "min_epochs", "final")},
    }


def _that_search(arguments: Sequence[str]) -> list[str]:
    """The arguments that identify a search; its fingerprint identifies its data, not their path."""
    kept = [argument for argument in arguments if not ELSEWHERE.match(argument)]
    parser = OverridesParser.create()
    return [a for a in kept if override_key(a) not in _FILES or parser.parse_override(a).is_sweep_override()]


def study_record(spec: SweepSpec, space: Space, store: Store, command: str, named: Sequence[str] = ()) -> StudyRecord:
    """The record of a study.

    Args:
        spec: of the sweep.
        space: its dimensions and fixed overrides.
        store: of the first configuration.
        command: resumes it.
        named: overrides that name the source, where it was not typed.
    """
    varies = DATA_KEYS & space.texts.keys()
    return StudyRecord(
        study=spec.study,
        objectives=spec.objectives,
        modes=spec.modes,
        total=spec.total,
        seeds=spec.options["seeds"],
        seed=spec.seed,
        final=spec.options["final"],
        dataset=store.dataset,
        fingerprint=store.fingerprint,
        source=None if varies else store.source_name,
        planted=bool(store.report.get("planted")),
        sampler=sampler_name(spec.sampler),
        pruner=spec.options["pruner"],
        fixed=[*typed_overrides(space.fixed), *named],
        space={typed_key(key): text for key, text in space.texts.items()},
        config_folders=spec.config_folders,
        command=command,
    )


def make_study(spec: SweepSpec, searched: Mapping[str, Any], record: StudyRecord) -> optuna.Study:
    """Make the study, or find it and see that it is of the same search.

    Args:
        spec: of the sweep.
        searched: the identity of the study.
        record: its record.

    Raises:
        ConfigError: a study of that name searches something else, or the storage cannot be reached.
    """
    storage = open_storage(spec.storage, spec.options["storage_minutes"])
    directions = [StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE for mode in spec.modes]
    try:
        study = optuna.create_study(study_name=spec.study, storage=storage, directions=directions, load_if_exists=True)
    except ValueError as error:  # other directions
        raise _other_search(spec.study, "objectives") from error
    known = study.user_attrs.get("searched", searched)
    known = {**known, "arguments": _that_search(known["arguments"])}  # an older version counted the source's path
    now = json.loads(json.dumps(searched))
    differ = [key for key in now if known.get(key) != now[key] and key not in ("pruner", "min_epochs")]
    if differ:
        raise _other_search(spec.study, f"{differ[0]}: {known.get(differ[0])}, not {now[differ[0]]}")
    study.set_user_attr("searched", now)
    former = study.user_attrs.get(ATTRIBUTE) or {}
    study.set_user_attr(ATTRIBUTE, {**asdict(record), "id": former.get("id") or uuid.uuid4().hex})
    study.set_user_attr(FAILED_BEFORE, [trial.number for trial in failures(study.get_trials(deepcopy=False))])
    return study


def reopen(spec: SweepSpec, command: str) -> Sweep:
    """A sweep that was set up before.

    Args:
        spec: of its folder.
        command: resumes it here.

    Raises:
        MmsaError: the folder is not a sweep's, or its storage cannot be reached.
    """
    study = open_study(Path(spec.folder), spec.options["storage_minutes"])
    return Sweep(spec, study, first_configuration(space_of(spec), spec.config_folders), command)


def space_of(spec: SweepSpec) -> Space:
    """The space of a sweep, whose trials write where its folder lies, wherever it lay when the sweep was made."""
    space = read_space(spec.space, spec.arguments, seeds_allowed=spec.options["final"])
    outputs = Path(spec.folder).parent.parent
    former = first_configuration(space, spec.config_folders).paths.outputs
    if Path(spec.working_folder, former).resolve() == outputs:
        return space
    kept = (override for override in space.fixed if override_key(override) != "paths.outputs")
    return replace(space, fixed=(*kept, text_override("paths.outputs", str(outputs))))


def open_sweep(spec: SweepSpec, slot: str, num_slots: int = 1) -> tuple[TrialDesk, TrialRunner]:
    """The sweep as a worker needs it.

    Args:
        spec: the sweep.
        slot: what the worker computes on, for people.
        num_slots: slots of the sweep on this machine; a launcher's jobs count as those of each.
    """
    options = spec.options
    space = space_of(spec)
    grid = is_grid(spec.sampler)
    points = [json.dumps(point, sort_keys=True) for point in grid_points(space)] if grid else None
    study = optuna.load_study(
        study_name=spec.study,
        storage=open_storage(spec.storage, options["storage_minutes"], waits=True),
        sampler=optuna.samplers.RandomSampler(seed=0) if grid else make_sampler(spec.sampler, spec.seed),
        pruner=make_pruner(options["pruner"], options["min_epochs"]),
    )
    limits = options["retries"], options["max_failures"]
    num_slots = options["workers"] or num_slots
    desk = TrialDesk(study, space.distributions, spec.total, *limits, slot, points=points, num_slots=num_slots)
    runner = TrialRunner(spec, space, study, desk.check)
    desk.reached = runner.epochs_of
    return desk, runner


def _other_search(study: str, difference: str) -> ConfigError:
    return ConfigError(
        f"sweep.study={study}: a study of this name exists and searches something else ({difference}).\n"
        "  type sweep.study=ANOTHER, or leave it out"
    )
