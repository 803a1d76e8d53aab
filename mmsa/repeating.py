"""A run that repeats another: all that may change a bit of it, and whether it comes to the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmsa import config
from mmsa.analysis.outdated import lacking
from mmsa.analysis.repetition import CLASS_TOLERANCE, TOLERANCE, Results, differences, not_in_both, verdict
from mmsa.analysis.runs import run_of
from mmsa.errors import DataError
from mmsa.record import Git, RunRecord

Say = Callable[[str], None]
_UNKNOWN = "unknown"


class Repetition:
    """A run beside the one that it repeats.

    Args:
        folder: of the run, whose record is there.
        say: takes a line.

    Raises:
        DataError: the former run is gone, or its folder is damaged.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder, self._say = folder, say
        record = RunRecord.read(folder)
        self._former = folder.parent / str(record.repeats)
        self._data = record.data.fingerprint
        self._then = Results.read(self._former)
        self._changed = _changes(self._former, RunRecord.read(self._former), folder, record)

    def announce(self) -> None:
        """Print which run is repeated and all that may change a bit, before the training."""
        self._say(f"{self._former} again, on data {self._data}")
        for line in self._changed or ["code, libraries and machine: as they were"]:
            self._say(line)

    def compare(self) -> bool:
        """Print the results that differ; returns whether they are equal, or within the tolerance of docs/metrics.md."""
        now = Results.read(self._folder)
        found = differences(self._then, now)
        if alone := not_in_both(self._then, now):
            self._say(f"not compared, as only one of the runs has them: {', '.join(alone)}")
        for one in found:
            self._say(f"  {one.text}{'' if one.within else ', beyond the tolerance'}")
        worst = verdict(found)
        if worst == "within" and not self._changed:
            worst = "differs"  # on the same machine only equal bits are right
        self._say(f"compared with {self._former}: {_said(worst, not self._changed)}")
        return worst != "differs"


def repetition_of(folder: Path, record: RunRecord, say: Say) -> Repetition | None:
    """A run beside the one that it repeats, with what may differ printed; None where there is none."""
    if record.repeats is None:
        return None
    try:
        repetition = Repetition(folder, say)
    except DataError as error:
        say(f"it is not compared with the run that it repeats: {str(error).splitlines()[0]}")
        return None
    repetition.announce()
    return repetition


def _said(worst: str, same: bool) -> str:
    if worst == "equal":
        return "equal to the bit"
    if worst == "within":
        return f"within the tolerance of {TOLERANCE:g} (classes: {CLASS_TOLERANCE:.0%} of the utterances)"
    return "differs" + (": the same code, libraries and machine have to give equal bits" if same else "")


def _changes(folder: Path, then: RunRecord, new: Path, now: RunRecord) -> list[str]:
    """Lines on all that may change a bit: state of the code, versions, machine, and what nobody knows of them."""
    before, after = _state(then.git), _state(now.git)
    unchanged = f"{before} then and now" if before == after else f"{before} then, {after} now"
    changed = [] if before == after and then.git.dirty is False else [f"  code: {unchanged}"]
    for name in dict.fromkeys([*then.environment, *now.environment]):
        absent = "1" if name == "devices" else _UNKNOWN
        ours, theirs = then.environment.get(name, absent), now.environment.get(name, absent)
        changed += [f"  {name}: {ours} then, {theirs} now"] if ours != theirs else []
    run, again = run_of(folder, then), run_of(new, now)
    for key, value in again.configuration.items():  # of a repetition that was resumed with other ones
        if (former := run.configuration.get(key, value)) != value:
            changed.append(f"  {key}: {former} then, {value} now")
    changed += [f"  repaired since: {one.part}: {one.text}" for one in lacking(run)]
    targets = [value for key, value in run.configuration.items() if key.endswith("_target_")]
    own = sorted({target.partition(".")[0] for target in targets} & set(config.PACKAGES))
    changed += [f"  not compared: the code of {', '.join(own)}, of which no state is kept"] if own else []
    if then.packed.seeds:
        changed.append(
            f"  trained in joint steps of the seeds {', '.join(map(str, then.packed.seeds))} then, alone now"
        )
    if run.configuration.get("device.deterministic") == "false":
        changed.append("  device.deterministic=false: sums may have another order each time, and bits with them")
    return ["differs from then, or may:", *changed] if changed else []


def _state(git: Git) -> str:
    """The state of the code in words."""
    changes = {True: " with uncommitted changes", False: "", None: " and unknown changes"}[git.dirty]
    return f"{git.commit[:12]}{changes}" if git.commit else _UNKNOWN
