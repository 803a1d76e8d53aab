"""Finished runs, read back from their folders and grouped by configuration."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsa.analysis.choices import chosen
from mmsa.analysis.layout import counted
from mmsa.errors import DataError, printable
from mmsa.record import NO_SEED, RunRecord
from mmsa.run_folder import OF_STEPS, OF_THE_RUN, flat_parameters, override_key, stored_config, value_text

Options = frozenset[tuple[str, str]]
# Options, or whole groups, that change nothing of what one seed computes on one fold.
_NOT_CONFIGURATION = (
    "seed",
    "dataset.held_out",
    "name",
    "dataset.source",
    "dataset.glove",
    "dataset.doctor",
    *(f"device.{option}" for option in OF_STEPS),
    *(f"trainer.{option}" for option in OF_THE_RUN),
    "tracking",
    "paths",
    "hydra",
)


class Run(RunRecord):
    """The record of a finished run, and what it is compared and labelled by.

    Args:
        folder: the run's folder.
        configuration: the options that it was computed with, flat, as text (see `configuration_of`).
        shown: the typed ones among them, as a label shows them (see `shown_overrides`).
        title: the name that it was given (`name=`), if any.
        path: where its data came from, as typed, if anything was.
        among: the utterances, by id and place among those of the id, to which its scores are restricted; None: all.
    """

    folder: Path
    configuration: Mapping[str, str]
    shown: Mapping[str, str]
    title: str | None = None
    path: str | None = None
    among: frozenset[tuple[str, int]] | None = None

    @property
    def called(self) -> str | None:
        """The name that its row gets; an import says that it is one."""
        return f"{self.title} (imported)" if self.title and self.is_import else self.title

    def option(self, key: str) -> str | None:
        """The value of an option as text, or of a group, such as `feedback`, the option that was chosen.

        Where a group was not typed, that is the one whose values the run has. None: the run has no such option.
        """
        known = {"seed": str(self.seed), "dataset": self.dataset, "dataset.source": self.data.source}
        known |= {"name": self.title, "sweep": self.sweep}
        known |= {"dataset.held_out": str(self.data.held_out)} if self.data.parts else {}
        if key in known:
            return known[key]
        if key in self.configuration:
            return self.configuration[key]
        if key in self.shown:
            return self.shown[key].partition("=")[2]
        place = "encoder.default." if key == "encoder" else f"{key.replace('/', '.')}."
        if f"{place}_target_" not in self.configuration:
            return None
        part = {name.removeprefix(place): value for name, value in self.configuration.items() if name.startswith(place)}
        return chosen(key.partition("/")[0], part)

    def made_by(self, group: str) -> set[str]:
        """The modules of a group's classes in this run, such as `{"mmlatch"}` of `feedback`; of a data set its name."""
        if group == "dataset":
            return {self.dataset}
        targets = [key for key in self.configuration if key.startswith(f"{group}.") and key.endswith("._target_")]
        return {name for key in targets for name in self.configuration[key].split(".")[-2:-1]}

    @property
    def place(self) -> tuple[int, int]:
        """Its place in a row: the held-out part of own folds, -1 on the folds of the source, and the seed."""
        return (-1 if self.data.held_out is None else self.data.held_out), self.seed

    @property
    def place_text(self) -> str:
        """The same as options: `seed=1`, or `held_out=0 seed=1`; empty of an import without seeds."""
        held_out = [f"held_out={self.data.held_out}"] if self.data.parts else []
        return " ".join([*held_out, *([] if self.seed == NO_SEED else [f"seed={self.seed}"])])

    @property
    def options(self) -> set[str]:
        """Every key that `option` knows in this run."""
        return {*self.configuration, *self.shown, *self._groups, "seed", "dataset", "dataset.source", "name", "sweep"}

    @property
    def choices(self) -> dict[str, str]:
        """Of each group the option that was chosen; of encoders that differ each modality's."""
        found = {key: self.option(key) for key in ("experiment", *self._groups)}
        known = {key: option for key, option in found.items() if option is not None}
        encoders = {key.partition("/")[2]: known.pop(key) for key in sorted(known) if key.startswith("encoder/")}
        if encoders:
            alike = len(set(encoders.values())) == 1
            each = ", ".join(f"{modality}: {option}" for modality, option in encoders.items())
            known["encoder"] = next(iter(encoders.values())) if alike else each
        return known

    @property
    def _groups(self) -> list[str]:
        groups = [key.removesuffix("._target_") for key in self.configuration if key.endswith("._target_")]
        return ["encoder" if group == "encoder.default" else group.replace(".", "/") for group in groups]


@dataclass(frozen=True)
class Group:
    """Runs that are one row, such as those that differ in nothing but their held-out part and seed, in their order.

    Args:
        label: the row's name.
        runs: of the row.
        parts: the overrides that are its label, unless it has a name of its own.
    """

    label: str
    runs: tuple[Run, ...]
    parts: tuple[str, ...] = ()

    @property
    def extent(self) -> str:
        """The number of its runs in words: `3 seeds`, or of own folds `5 folds × 3 seeds`; empty without seeds."""
        if not self.runs[0].data.parts:
            return "" if self.runs[0].seed == NO_SEED else counted(len(self.runs))
        folds, seeds = {run.data.held_out for run in self.runs}, {run.seed for run in self.runs}
        every = f"{counted(len(folds), 'fold')} × {counted(len(seeds))}"
        return every if len(self.runs) == len(folds) * len(seeds) else f"{counted(len(self.runs), 'run')} of {every}"


def read_run(folder: Path) -> Run:
    """Read one finished run.

    Raises:
        DataError: the folder does not hold a finished run.
    """
    record = RunRecord.read(folder)
    if record.status != "finished":
        raise DataError(f"{folder}: a finished run is needed; this one is {record.status}.")
    return run_of(folder, record)


def by_configuration(runs: Iterable[Run]) -> list[Group]:
    """Group runs by what they computed, in the order of their names; of two with the same seed and held-out part
    the newest counts, and one that repeats another only where no other is there.

    A group's label is the fewest overrides that one of its runs was started with: `feedback=none`, where that is the
    default, is `defaults` as soon as a run of the group was started without it. Where groups would have one label
    (a default was edited, a run was resumed with other options), each also names the options in which they differ.
    A group whose runs have one name (`name=`), which no other group has, is called by it.
    """
    found: dict[Options, dict[tuple[int, int], Run]] = {}
    shown: dict[Options, dict[str, str]] = {}
    for run in sorted(runs, key=lambda run: (run.repeats is None, run.folder.name)):
        key = frozenset(run.configuration.items())
        found.setdefault(key, {})[run.place] = run
        typed = dict(run.shown)
        shown[key] = min(shown.get(key, typed), typed, key=lambda parts: (len(parts), len(_label(parts))))
    _tell_apart(shown)
    members = {key: tuple(run for _, run in sorted(found[key].items())) for key in found}
    titles = {key: {run.called for run in runs} for key, runs in members.items()}
    taken = Counter(title for named in titles.values() for title in named)
    return [
        Group(
            title
            if (title := next(iter(titles[key]))) and len(titles[key]) == taken[title] == 1
            else _label(shown[key]),
            runs,
            tuple(shown[key].values()),
        )
        for key, runs in members.items()
    ]


def without_shared(groups: Sequence[Group]) -> tuple[str, list[Group]]:
    """The overrides that all trained groups have, as text, and the groups without them; one without others is
    `defaults`.

    Nothing is shared where one trained group stands alone.
    """
    first, *others = [group.parts for group in groups if not group.runs[0].is_import] or [()]
    shared = set(first).intersection(*others) if others else set()
    rest = []
    for group in groups:
        parts = tuple(part for part in group.parts if part not in shared)
        label = _joined(parts) if group.label == _joined(group.parts) else group.label
        rest.append(replace(group, label=label, parts=parts))
    return " ".join(part for part in first if part in shared), rest


def source_of(runs: Iterable[Run]) -> str | None:
    """The source of runs on the same data: one name, unless copies of it have other names."""
    return ", ".join(dict.fromkeys(run.data.source for run in runs if run.data.source)) or None


def configuration_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What decides a run's result beside its seed: every option that is used, `group.key` -> value as text.

    Args:
        config: the resolved configuration; encoders of modalities that are not in it are left out.
    """
    config = dict(config)
    encoder, modalities = config.get("encoder"), (config.get("dataset") or {}).get("modalities")
    if isinstance(encoder, Mapping) and isinstance(modalities, list):
        used = set(modalities) if set(modalities) <= set(encoder) else {*modalities, "default"}
        config["encoder"] = {name: part for name, part in encoder.items() if name in used}
    return {name: value_text(value) for name, value in flat_parameters(config).items() if not _is_bookkeeping(name)}


def shown_overrides(overrides: Iterable[str], configuration: Mapping[str, str]) -> dict[str, str]:
    """Overrides for a label, key -> text: the last of each key, sorted, with the value that the run has.

    Those that change no result are left out, and so are the data set and its folds, which a table names in its title.

    Args:
        overrides: as they were typed.
        configuration: the run's configuration; a resumed run may have another value than was typed at first.
    """
    last: dict[str, str] = {}
    for override in overrides:
        key = override_key(override)
        if key not in ("dataset", "dataset.num_folds") and not _is_bookkeeping(key):
            last[key] = f"{key}={configuration[key]}" if key in configuration else override.lstrip("+")
    return {key: last[key] for key in sorted(last)}


def _tell_apart(shown: Mapping[Options, dict[str, str]]) -> None:
    """Add to labels that are equal the options in which their configurations differ, until no two are equal."""
    grown = True
    while grown:
        grown = False
        alike: dict[str, list[Options]] = defaultdict(list)
        for configuration, parts in shown.items():
            alike[_label(parts)].append(configuration)
        for members in alike.values():
            common = frozenset.intersection(*members)
            for member in members:
                new = {key: f"{key}={value}" for key, value in sorted(member - common) if key not in shown[member]}
                shown[member].update(new)
                grown = grown or bool(new)


def _label(parts: Mapping[str, str]) -> str:
    return _joined(parts.values())


def _joined(parts: Iterable[str]) -> str:
    return " ".join(parts) or "defaults"


def _is_bookkeeping(key: str) -> bool:
    return any(f"{key}.".startswith(f"{left_out}.") for left_out in _NOT_CONFIGURATION)


def run_of(folder: Path, record: RunRecord) -> Run:
    """The run of a record, with the configuration that is in its folder.

    Raises:
        DataError: the configuration is missing or damaged.
    """
    config = stored_config(folder)
    try:
        configuration = configuration_of(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} is not the folder of a run: its config.yaml is damaged.") from error
    shown = shown_overrides(record.overrides, configuration)
    known = dict(record)
    source = (config.get("dataset") or {}).get("source")
    if record.data.source is None and source:  # of an older version, which kept the path alone
        known["data"] = record.data.model_copy(update={"source": printable(Path(str(source)).name)})
    title = str(config["name"]) if config.get("name") else None
    path = printable(str(source)) if source else None
    return Run(**known, folder=folder, configuration=configuration, shown=shown, title=title, path=path)
