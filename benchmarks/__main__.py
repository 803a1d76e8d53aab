"""`make bench`, the command."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.measuring import SHORT, Figures, Size, held
from benchmarks.suite import BENCHMARKS
from mmsa.provenance import environment, git_state

HEAD = ["Benchmark", "Contender", "Processor time", "Times as fast as plain", "Share of the fp32 floor", "Peak memory"]
SHOWN = ("date", "commit", "processor", "instructions", "cpus", "load", "threads", "python", "torch")


def conditions() -> dict[str, str]:
    """What the figures depend on: the code, the machine, and what else it does."""
    git = git_state()
    commit = f"{(git.commit or 'unknown')[:7]}{' with changes' if git.dirty else ''}"
    load = f"{os.getloadavg()[0]:.1f}"
    found = environment("cpu", torch.get_num_threads())
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit, "load": load, **found}


def chosen(names: Sequence[str]) -> list[str]:
    """The benchmarks whose names begin with one of these; all for none."""
    for name in names:
        if not any(known.startswith(name) for known in BENCHMARKS):
            raise typer.BadParameter(f"{name}: choose from {', '.join(BENCHMARKS)}, or a beginning such as train/")
    return [known for known in BENCHMARKS if not names or known.startswith(tuple(names))]


def cells(name: str, unit: str, contender: str, found: Figures) -> list[str]:
    """A row of the table."""
    time = f"{found.per_unit:.2f} s" if found.per_unit >= 0.1 else f"{1000 * found.per_unit:.3g} ms"
    return [
        name,
        contender,
        f"{time} per {unit}",
        spread(found.ratios, "{:.2f}"),
        spread(found.shares, "{:.0%}"),
        f"{median(found.peaks):.0f} MB" if found.peaks else "–",
    ]


def line(row: Sequence[str]) -> str:
    """A line of the table, in Markdown."""
    return f"| {' | '.join(row)} |"


def spread(values: Sequence[float], form: str) -> str:
    """Median and range."""
    if not values:
        return "–"
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} [{low}–{high}]"


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks, or the beginnings of their names.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which every contender has a turn.")] = 5,
    short: Annotated[bool, typer.Option("--short", help="Tiny sizes: whether they work, not what they cost.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the JSON file; outputs/benchmarks.")] = None,
) -> None:
    """Measure what a run costs, in processor time of one thread."""
    torch.set_num_threads(1)
    about, size = conditions(), SHORT if short else Size()
    typer.echo(", ".join(f"{key} {about[key]}" for key in SHOWN) + "\n")
    for row in (HEAD, ["---"] * len(HEAD)):
        typer.echo(line(row))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen(names or []):
            contest = BENCHMARKS[name](Path(folder), size)
            figures = held(contest, rounds, size)
            for contender, found in figures.items():
                typer.echo(line(cells(name, contest.unit, contender, found)))
            results[name] = {"unit": contest.unit, **{c: found.record() for c, found in figures.items()}}
    if not short:
        target = out or Path("outputs/benchmarks")
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps({"conditions": about, "rounds": rounds, "benchmarks": results}, indent=1))
        typer.echo(f"\nwritten to {path}")


if __name__ == "__main__":
    typer.run(main)
