"""The `mmsa` command: thin calls into one module each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmsa.reporting import report_errors

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def mmsa() -> None:
    """Multimodal sentiment analysis: prepare data and read results. Training: python train.py --help."""


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Data set: an option of the group dataset, such as cmu_mosi.")],
    source: Annotated[str | None, typer.Option(help="Folder of computational sequences, or a pickle.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the stores; default paths.data.")] = None,
    options: Annotated[list[str] | None, typer.Argument(help="Further overrides, as for train.py.")] = None,
) -> None:
    """Read a data set's source files into the store that training maps."""
    from mmsa.build import build_dataset
    from mmsa.compose import compose
    from mmsa.data.prepare import describe

    overrides = [f"dataset={name}", *(options or [])]
    overrides += [f"dataset.source='{source}'"] if source else []
    overrides += [f"paths.data='{data}'"] if data else []
    cfg = compose(overrides)
    store = build_dataset(cfg).prepare(Path(cfg.paths.data))
    print("\n".join(describe(store)))
    print(f"train on it: python train.py dataset={name}")


@app.command()
def report(
    outputs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs"),
    sweep: Annotated[str | None, typer.Option(help="Only the runs of this multirun.")] = None,
    style: Annotated[Literal["table", "markdown", "csv"], typer.Option("--format")] = "table",
) -> None:
    """One row per configuration over its seeds, with the baselines below."""
    from mmsa.analysis import tables

    print(tables.report(outputs, sweep=sweep, format=style))


def main() -> None:
    """Entry point of the `mmsa` command."""
    import os

    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    sys.exit(report_errors(lambda: app(standalone_mode=False), show_traceback))
