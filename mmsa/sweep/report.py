"""A study in words: its best trials as a table, its progress, and the next command."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import fmean

from mmsa.analysis import tables
from mmsa.analysis.layout import Cell, Column, Row, Table, headed, number
from mmsa.analysis.rendering import Style, rendered
from mmsa.analysis.selection import Selection
from mmsa.commands import report_command
from mmsa.errors import MmsaError
from mmsa.run_folder import override_key, shown_value
from mmsa.sweep.options import SPEC_FILE, SweepSpec
from mmsa.sweep.summary import Summary, TrialRecord, rerun_command, summarise

_TOP = 10  # trials that are shown
_REASONS = 5  # different reasons of failures that are shown
_FRACTION = re.compile(r"-?(\d+\.\d*|\.\d+|\d+(?=e))(e[+-]?\d+)?", re.IGNORECASE)


def is_study(outputs: Path, name: str) -> bool:
    """Whether a study of this name was kept under `outputs`."""
    return (outputs / "sweeps" / name / SPEC_FILE).is_file()


def report(outputs: Path, *names: str, style: Style = "table") -> str:
    """The best trials of studies, and the commands that train the best ones again; of plain grids the table of runs.

    Args:
        outputs: the outputs folder.
        names: of the studies.
        style: as for `rendered`.

    Raises:
        DataError, ConfigError: a study cannot be read.
    """
    summaries = {name: _summary(outputs / "sweeps" / name, outputs) for name in names}
    grids = tuple(name for name, summary in summaries.items() if summary.final and summary.counts["done"])
    searches = [summary for name, summary in summaries.items() if name not in grids]
    made = [_table(summary, summary.ranked[:_TOP]) for summary in searches]
    made += tables.reported(Selection(outputs, sweeps=grids))[0] if grids else []
    again = [rerun_note(summary, style) for summary in searches] if style in ("table", "markdown") else []
    return "\n\n".join(filter(None, [rendered(made, style), *again]))


def rerun_note(summary: Summary, style: Style) -> str:
    """The command that trains the best configuration again, with its purpose; empty while no trial is done."""
    command = rerun_command(summary)
    if command is None:
        return ""
    several = len(summary.objectives) > 1
    best = f"the trial of the Pareto front that is best in {summary.objectives[0]}" if several else "the best trial"
    shown = f"```\n{command}\n```" if style == "markdown" else f"  {command}"
    return f"{best} over five new seeds, which is the first to read the test fold:\n{shown}"


def study_lines(outputs: Path) -> list[str]:
    """One line per study under `outputs`, in the order of their names; one that cannot be read says so."""
    lines = []
    for spec in sorted((outputs / "sweeps").glob(f"*/{SPEC_FILE}")):
        try:
            lines.append(study_line(_summary(spec.parent, outputs), str(outputs)))
        except MmsaError as error:
            lines.append(f"study {spec.parent.name} cannot be read: {str(error).splitlines()[0]}")
    return lines


def study_line(summary: Summary, outputs: str) -> str:
    """How far a study is and its best value, with the command that shows it whole.

    Args:
        summary: the study.
        outputs: the outputs folder as typed.
    """
    values = {} if summary.final else summary.best_values()
    best = [f"{name} {value_text(name, value)}" for name, value in values.items()]
    shown = f", best {', '.join(best)}" if best else ""
    return f"study {summary.study}: {standing(summary)}{shown}: {report_command(outputs, summary.study)}"


def _summary(folder: Path, outputs: Path) -> Summary:
    """A study's summary, whose best trial is trained again in `outputs`, wherever the study was made."""
    from mmsa.sweep.storage import open_study

    summary, spec = summarise(open_study(folder)), SweepSpec.load(folder)
    made, here = Path(spec.working_folder), Path.cwd()
    elsewhere = made if made.is_dir() and made.resolve() != here.resolve() else None
    summary = replace(summary, folder=elsewhere)
    fixed = {override_key(override): override for override in summary.fixed}
    former = fixed.get("paths.outputs", "=outputs").partition("=")[2].strip("\"'")  # as typed, perhaps in quotes
    if Path(elsewhere or here, former).resolve() == outputs.resolve():
        return summary
    changed = f"paths.outputs={outputs.resolve() if elsewhere else outputs}"
    return replace(summary, fixed=list({**fixed, "paths.outputs": changed}.values()))


def text(summary: Summary, style: Style = "table", width: int | None = None, top: int = _TOP) -> str:
    """A study as text: its heading, its best trials, and why trials failed.

    Args:
        summary: the study.
        style: as for `rendered`; CSV has every trial, in full precision.
        width: as for `rendered`.
        top: the trials that are shown, from 1.

    Raises:
        DataError: there is no such style.
    """
    return rendered([_table(summary, summary.ranked[:top])], style, width)


def value_text(objective: str, value: float) -> str:
    """An objective's value as it is printed."""
    if objective == "num_parameters":
        return f"{value:,.0f}"
    return f"{value:.1f}" if objective == "seconds" else number(value)


def short(key: str, value: str) -> str:
    """A value as it is typed; fractions with the three digits that count, and of a file of data its name."""
    return f"{float(value):.3g}" if _FRACTION.fullmatch(value) else shown_value(key, value)


def standing(summary: Summary) -> str:
    """How far a study is, such as "50 of 50 trials done, 10 of them pruned, 3 failed"."""
    counts = summary.counts
    parts = [f"{summary.num_finished} of {summary.total} trials done"]
    parts += [f"{counts['pruned']} of them pruned"] if counts["pruned"] else []
    return ", ".join([*parts, *(f"{counts[state]} {state}" for state in ("failed", "running") if counts[state])])


def under_way(summary: Summary) -> str:
    """The running trials with their slots and beginnings, the longest first; empty where none is known."""
    rows = [row for row in summary.rows if row.state == "running" and math.isfinite(row.since)]
    places: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.since):
        place = f"{f' on {row.slot}' if row.slot else ''} since {datetime.fromtimestamp(row.since):%a %H:%M}"
        places.setdefault(place, []).append(str(row.number))
    parts = [f"trial{'s' if len(held) > 1 else ''} {', '.join(held)}{place}" for place, held in places.items()]
    return f"running: {', '.join(parts)}" if parts else ""


def _table(summary: Summary, shown: Sequence[TrialRecord]) -> Table:
    keys, objectives = summary.varying(), summary.objectives
    heads = ["trial", *map(headed, objectives, summary.modes), "seconds"]
    about = ("study", "dataset", "source", "fingerprint", "planted", "trial", "state", "seeds", "seconds", "reason")
    return Table(
        title=f"study {summary.study}: {standing(summary)}",
        notes=_notes(summary, shown),
        columns=[*map(Column, heads), *(Column(key, option=True) for key in keys)],
        blocks=[[_row(summary, row, keys) for row in shown]],
        best="of the Pareto front" if len(objectives) > 1 else "best trial",
        foot=_foot(summary, shown),
        fields=[*about, *objectives, f"{objectives[0]}_std", *keys],
        records=[_record(summary, row, keys) for row in summary.rows],
    )


def _row(summary: Summary, row: TrialRecord, keys: Sequence[str]) -> Row:
    """The trial's number, a cell per objective, the first with its deviation over several seeds, and its values."""
    values = list(map(value_text, summary.objectives, row.values))
    if row.deviation is not None:
        values[0] += f" ± {value_text(summary.objectives[0], row.deviation)}"
    cells = [*values, _seconds(row.seconds), *(short(key, row.overrides.get(key, "–")) for key in keys)]
    return (Cell(str(row.number), row in summary.best), *map(Cell, cells))


def _record(summary: Summary, row: TrialRecord, keys: Sequence[str]) -> list[object]:
    record: list[object] = [summary.study, summary.dataset, summary.source, summary.fingerprint]
    record += [str(summary.planted).lower(), row.number, row.state, len(row.scores) or "", row.seconds, row.reason]
    record += [*row.values, row.deviation] if row.values else [""] * (len(summary.objectives) + 1)
    return [*record, *(row.overrides.get(key, "") for key in keys)]


def _notes(summary: Summary, shown: Sequence[TrialRecord]) -> list[str]:
    """Notes on the table."""
    hashed = f", data {summary.fingerprint[:12]}" if summary.fingerprint and not summary.varies_in_data else ""
    fold = "test" if summary.final else "validation"
    notes = [f"{summary.data}, {fold} fold{hashed}", f"sampler {summary.sampler}, pruner {summary.pruner}"]
    notes += [tables.PLANTED] if summary.planted else []
    if summary.best:
        notes.append("values of the validation fold: the best one is optimistic, because they selected it")
    if summary.seeds > 1 and shown:
        value = "confidence bound" if any(row.is_bound for row in shown) else "mean"
        notes.append(f"{value} {tables.SPREAD} {summary.seeds} seeds")
    return notes


def _foot(summary: Summary, shown: Sequence[TrialRecord]) -> list[str]:
    """The lines below the table, with the most frequent reasons of failures."""
    done = summary.counts["done"]
    lines = [f"the best {len(shown)} of {done} trials that ran to their end"] if len(shown) < done else []
    if shown:
        spent = [row.seconds for row in summary.rows if math.isfinite(row.seconds)]
        of_done = [row.seconds for row in summary.ranked if math.isfinite(row.seconds)]
        mean = fmean(of_done) if of_done else math.nan
        lines.append(f"{_seconds(mean)} s per trial, {_seconds(math.fsum(spent))} s all together")
    lines += [running] if (running := under_way(summary)) else []
    lines += [f"failed: {number} × {reason}" for reason, number in list(summary.reasons.items())[:_REASONS]]
    more = sum(list(summary.reasons.values())[_REASONS:])
    return [*lines, f"failed: {more} × for other reasons"] if more else lines


def _seconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds:,.1f}"
