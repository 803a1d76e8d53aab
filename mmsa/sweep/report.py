"""What `mmsa report` says of the studies under an outputs folder."""

from __future__ import annotations

from pathlib import Path

from mmsa.analysis import tables
from mmsa.analysis.rendering import Style
from mmsa.commands import report_command
from mmsa.errors import MmsaError
from mmsa.sweep.options import SPEC_FILE
from mmsa.sweep.summary import Summary, rerun_command, summarise
from mmsa.sweep.trial_tables import standing, text, value_text


def is_study(outputs: Path, name: str) -> bool:
    """Whether a study of this name was kept under `outputs`."""
    return (outputs / "sweeps" / name / SPEC_FILE).is_file()


def report(outputs: Path, name: str, style: Style = "table") -> str:
    """A study's best trials and the command that trains the best one again; of a plain grid its table of runs.

    Args:
        outputs: the outputs folder.
        name: the study's.
        style: a table for the terminal, Markdown or CSV.

    Raises:
        DataError, ConfigError: the study cannot be read.
    """
    summary = _summary(outputs / "sweeps" / name)
    if summary.final and summary.counts["done"]:
        return tables.report(outputs, sweep=name, format=style)
    again = "" if style == "csv" else rerun_note(summary, style)
    return "\n\n".join(filter(None, [text(summary, style), again]))


def rerun_note(summary: Summary, style: Style) -> str:
    """The command that trains the best configuration again, and what it does; empty while no trial is done."""
    command = rerun_command(summary)
    if command is None:
        return ""
    several = len(summary.objectives) > 1
    best = f"the trial of the Pareto front that is best in {summary.objectives[0]}" if several else "the best trial"
    shown = f"```\n{command}\n```" if style == "markdown" else f"  {command}"
    return f"{best} over five new seeds, which then meets the test fold for the first time:\n{shown}"


def study_lines(outputs: Path) -> list[str]:
    """One line per study under `outputs`, in the order of their names; one that cannot be read says so."""
    lines = []
    for spec in sorted((outputs / "sweeps").glob(f"*/{SPEC_FILE}")):
        try:
            lines.append(study_line(_summary(spec.parent), str(outputs)))
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


def _summary(folder: Path) -> Summary:
    from mmsa.sweep.storage import open_study

    return summarise(open_study(folder))
