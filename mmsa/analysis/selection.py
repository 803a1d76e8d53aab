"""Which runs a command is asked for: folders, patterns of folders, sweeps, data sets and options."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path

from mmsa.analysis.runs import Run, run_of
from mmsa.errors import ConfigError, DataError, printable
from mmsa.occupancy import run_folders
from mmsa.program import training
from mmsa.record import FILE, RunRecord
from mmsa.run_folder import value_text

_NUM_NAMED = 3
_MOST_CHOICES = 8


@dataclass(frozen=True)
class FoundRuns:
    """The finished runs that were asked for in the order of their names, and those that were left out.

    Args:
        runs: the runs.
        num_unfinished: run folders without a result.
        damaged: why run folders cannot be read, one line each.
        trials: study -> run folders of its trials.
        debug: option of `debug` -> run folders with it.
    """

    runs: tuple[Run, ...]
    num_unfinished: int
    damaged: tuple[str, ...]
    trials: Mapping[str, int]
    debug: Mapping[str, int]

    @property
    def left_out(self) -> list[str]:
        """Lines on the folders and runs left out, with the first folders that cannot be read."""
        more = [f"and {len(self.damaged) - _NUM_NAMED} more"] if len(self.damaged) > _NUM_NAMED else []
        counted = [f"{self.counts} left out.", *self.damaged[:_NUM_NAMED], *more] if self.counts else []
        return [*counted, *(_hidden(number, f"debug={option}") for option, number in self.debug.items())]

    @property
    def counts(self) -> str:
        """How many run folders could not be used, in words; empty where there are none."""
        parts = {"unfinished": self.num_unfinished, "damaged": len(self.damaged)}
        named = [f"{count} {kind}" for kind, count in parts.items() if count]
        return f"{' and '.join(named)} run folder{'s' if sum(parts.values()) > 1 else ''}" if named else ""


@dataclass(frozen=True)
class Selection:
    """The runs that are asked for: those of folders and sweeps, or all of `outputs`; of these, what fits the rest.

    Trials of a search and runs of `debug=` are left out where neither they nor their sweep are named.

    Args:
        outputs: the outputs folder.
        folders: of runs.
        sweeps: ids of multiruns, names of studies.
        names: of sweeps or of data sets.
        options: key -> the values that a run may have, in which * and ? stand for any signs.
    """

    outputs: Path = Path("outputs")
    folders: tuple[Path, ...] = ()
    sweeps: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Iterable[str], outputs: Path = Path("outputs"), sweeps: Sequence[str] = ()) -> Selection:
        """The selection of a command line.

        Args:
            words: a run's folder, a pattern of folders, a sweep, a data set, or KEY=VALUE (several: KEY=VALUE,VALUE).
            outputs, sweeps: as above.

        Raises:
            ConfigError: no folder fits a pattern.
        """
        folders: list[Path] = []
        more: list[str] = []
        names: list[str] = []
        options: dict[str, tuple[str, ...]] = {}
        for word in words:
            path = Path(word)
            if path.is_dir() and ("/" in word or (path / FILE).is_file()):
                in_sweeps = path.absolute().parent == (outputs / "sweeps").absolute()
                (more.append(path.name) if in_sweeps else folders.append(path))
            elif option := wanted(word):
                options[option[0]] = options.get(option[0], ()) + option[1]
            elif "/" in word or has_magic(word):
                found = sorted(Path(one) for one in glob(word) if Path(one).is_dir())
                if not found:
                    raise ConfigError(f"{word}: no folder fits it.\n  name folders of runs, as in {outputs}/runs")
                folders += found
            else:
                names.append(word)
        return cls(outputs, tuple(dict.fromkeys(folders)), (*sweeps, *more), tuple(names), options)

    @property
    def searches(self) -> tuple[str, ...]:
        """The sweeps, where nothing but sweeps and names is asked for; a name may be that of a data set."""
        return () if self.folders or self.options else (*self.sweeps, *self.names)

    def read(self) -> FoundRuns:
        """Read the runs; unfinished ones are counted and left out, damaged ones named and left out.

        Raises:
            ConfigError: nothing has a name, or no run fits the options.
        """
        damaged: list[str] = []
        known = [(folder, record) for folder in self.folders if (record := _record(folder, damaged))]
        named = {folder for folder, _ in known}
        if not self.folders or self.sweeps or self.names:
            of_outputs = [folder for folder in run_folders(self.outputs) if folder not in named]
            known += [(folder, record) for folder in of_outputs if (record := _record(folder, damaged))]
        sweeps, datasets = self._meant([record for _, record in known])
        found = _Found(damaged)
        for folder, record in known:
            from_sweep = record.sweep in sweeps
            asked = folder in named or from_sweep
            if (datasets and record.dataset not in datasets) or (not asked and (sweeps or self.folders)):
                continue
            found.take(folder, record, asked, self.options)
        if self.options and not found.runs:
            found.explain_nothing(self.options)
        return FoundRuns(tuple(found.runs), found.num_unfinished, tuple(damaged), found.trials, found.debug)

    def finished(self) -> FoundRuns:
        """As `read`.

        Raises:
            ConfigError: as `read`.
            DataError: there is no finished run.
        """
        found = self.read()
        if not found.runs and not found.trials:
            raise DataError(self._nothing_found(found))
        return found

    def _meant(self, records: Sequence[RunRecord]) -> tuple[set[str], set[str]]:
        """The sweeps and the data sets that are asked for; a name that both have is the data set's."""
        datasets = {record.dataset for record in records}
        known = {record.sweep for record in records if record.sweep}
        for name in self.names:
            if name not in datasets | known:
                there = [
                    f"{kind} {_choices(names)}" for kind, names in (("data sets", datasets), ("sweeps", known)) if names
                ]
                raise ConfigError(
                    f"{name}: needed is a run's folder, a sweep, a data set or KEY=VALUE.\n"
                    f"  {self.outputs} holds {' and '.join(there) or 'no run'}{_nearest(name, datasets | known)}"
                )
        return {*self.sweeps, *(set(self.names) - datasets)}, set(self.names) & datasets

    def _nothing_found(self, found: FoundRuns) -> str:
        left_out = found.left_out
        others = f" ({found.counts})" if found.counts else ""
        place = ", ".join(map(str, self.folders[:_NUM_NAMED])) if self.folders else str(self.outputs)
        if self.folders and len(self.folders) == len(found.damaged) == 1:
            return found.damaged[0]
        if not self.sweeps:
            reasons = "".join(f"\n  {line}" for line in left_out[bool(found.counts) :])
            again = f"  type {training()}, or name the folder of the runs"
            return f"{place} holds no finished run{others}.{reasons}\n{again}"
        there = Selection(self.outputs).read()
        known = sorted({*(run.sweep for run in there.runs if run.sweep), *there.trials})[-5:]
        choice = f"one of {', '.join(known)}" if known else "no sweep, to see all runs"
        return f"{place} holds no finished run of the sweep {', '.join(self.sweeps)}{others}.\n  type {choice}"


def read_runs(outputs: Path, sweep: str | None = None) -> FoundRuns:
    """Every finished run under an outputs folder, or those of one sweep."""
    return Selection(outputs, sweeps=() if sweep is None else (sweep,)).read()


def wanted(word: str) -> tuple[str, tuple[str, ...]] | None:
    """KEY=VALUE,VALUE as the key and its values; None where it is something else."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[\w.@/-]+", key):
        return None
    return key, tuple(re.split(r",(?![^\[{]*[\]}])", value))


def fits(run: Run, options: Mapping[str, Sequence[str]]) -> bool:
    """Whether a run has one of the values of each of these options."""
    return all(any(is_like(run.option(key), value) for value in values) for key, values in options.items())


def is_like(text: str | None, pattern: str) -> bool:
    """Whether a text is that of a pattern, in which * and ? stand for any signs; numbers are compared as numbers."""
    if text is None:
        return False
    return text in (pattern, _as_stored(pattern)) or fnmatchcase(text, pattern.replace("[", "[[]"))


def check_option(key: str, runs: Iterable[Run]) -> None:
    """Check that a run has an option.

    Raises:
        ConfigError: none has it.
    """
    known = {name for run in runs for name in run.options}
    if key not in known and not any(run.option(key) is not None for run in runs):
        raise ConfigError(f"{printable(key)}: none of these runs has such an option{_nearest(key, known)}")


class _Found:
    """What `Selection.read` has found so far."""

    def __init__(self, damaged: list[str]) -> None:
        self.runs: list[Run] = []
        self.others: list[Run] = []
        self.num_unfinished = 0
        self.damaged = damaged
        self.trials: Counter[str] = Counter()
        self.debug: Counter[str] = Counter()

    def take(self, folder: Path, record: RunRecord, asked: bool, options: Mapping[str, Sequence[str]]) -> None:
        """Take a run, or count it."""
        if record.trial is not None and not asked:
            self.trials[str(record.sweep)] += 1
        elif record.status != "finished" and not options:
            self.num_unfinished += 1
        elif record.debug and not asked and "debug" not in options:
            self.debug[record.debug] += 1
        else:
            self._read(folder, record, options)

    def _read(self, folder: Path, record: RunRecord, options: Mapping[str, Sequence[str]]) -> None:
        try:
            run = run_of(folder, record)
        except DataError as error:
            self.damaged.append(str(error).splitlines()[0])
            return
        if not fits(run, options):
            self.others.append(run)
        elif record.status != "finished":
            self.num_unfinished += 1
        else:
            self.runs.append(run)

    def explain_nothing(self, options: Mapping[str, Sequence[str]]) -> None:
        """Raise the reason why no run fits the options, where there are runs."""
        if not self.others:
            return
        for key, values in options.items():
            check_option(key, self.others)
            there = {text for run in self.others if (text := run.option(key)) is not None}
            if not any(is_like(text, value) for text in there for value in values):
                raise ConfigError(f"{key}={','.join(values)}: no run has that.\n  {key} is one of {_choices(there)}")
        together = " ".join(f"{key}={','.join(values)}" for key, values in options.items())
        raise ConfigError(f"{together}: no run has all of that.\n  leave one of them out")


def _record(folder: Path, damaged: list[str]) -> RunRecord | None:
    try:
        return RunRecord.read(folder)
    except DataError as error:
        damaged.append(str(error).splitlines()[0])
        return None


def _hidden(number: int, option: str) -> str:
    runs, them = ("run", "it") if number == 1 else ("runs", "them")
    return f"{number} {runs} of {option} left out; name {option} to see {them}."


def _as_stored(value: str) -> str:
    """A value as typed in the form in which configurations are compared: 1e-3 is 0.001."""
    try:
        return value_text(float(value))
    except ValueError:
        return value.strip("\"'").replace(" ", "")


def _choices(names: Iterable[str]) -> str:
    """Some names in a line, shortened."""
    there = sorted(names)
    shown = ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in there[:_MOST_CHOICES])
    return f"{shown}, …" if len(there) > _MOST_CHOICES else shown


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"\n  did you mean {close[0]}?" if close else ""
