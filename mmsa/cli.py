"""The `mmsa` command: thin calls into one module each; those on data and on finished runs have files of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsa.data_commands import doctor, import_, prepare
from mmsa.errors import ConfigError
from mmsa.program import program
from mmsa.reporting import report_errors
from mmsa.result_commands import evaluate, leaderboard, pack, predict, report, rerun

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def mmsa() -> None:
    """Multimodal sentiment analysis: train models, prepare data, read results."""


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,  # whatever is typed is for Hydra
)
def train(overrides: Annotated[list[str] | None, typer.Argument(metavar="OVERRIDES")] = None) -> None:
    """Train one model, or many; mmsa train --help lists the options."""
    from mmsa import train as training

    sys.exit(training.main(overrides or []))


app.command()(prepare)
app.command()(doctor)
app.command(name="import")(import_)
app.command()(report)
app.command()(leaderboard)


@app.command()
def worker(
    folder: Annotated[Path, typer.Argument(help="The sweep's folder, outputs/sweeps/NAME.")],
    slots: Annotated[
        list[str] | None, typer.Option(help="auto, a number, or devices: --slots cuda:0 --slots cpu.")
    ] = None,
    config_dir: Annotated[
        list[Path] | None, typer.Option(help="A folder of configuration files that the sweep was started with.")
    ] = None,
) -> None:
    """Work on a sweep that another machine has started.

    Both machines need access to its folder.
    """
    from mmsa.sweep.hydra_sweep import join_here

    first, *more = slots or ["auto"]
    chosen = [first, *more] if more else int(first) if first.isdecimal() else first
    join_here(folder, chosen, [str(path.resolve()) for path in config_dir or ()])


@app.command()
def track(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs.", metavar="[RUN...]")] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of --outputs.")] = False,
    outputs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs"),
    uri: Annotated[
        str | None, typer.Option(help="MLflow's address.", show_default="the database in the outputs folder")
    ] = None,
) -> None:
    """Hand runs in to MLflow that it lacks; close those that died.

    Runs from a machine without network, ended while MLflow was away, or killed. Each is handed in once. What you
    have deleted in MLflow comes back only where RUN names it.
    """
    from mmsa.compose import compose
    from mmsa.occupancy import run_folders
    from mmsa.overrides import text_override
    from mmsa.settling import track as hand_in
    from mmsa.summaries import renew_summaries
    from mmsa.sweep.study_run import renew_studies

    if bool(runs) == every:
        again = program("mmsa")
        raise ConfigError(f"track needs the folders of runs, or --all.\n  type {again} track --all")
    for place in dict.fromkeys(run.absolute().parent.parent for run in runs or ()) or [outputs]:
        given = [text_override("tracking.uri", uri)] if uri else []
        cfg = compose(["tracking=mlflow", text_override("paths.outputs", str(place)), *given])
        named = [run for run in runs or () if run.absolute().parent.parent == place]
        hand_in(named or run_folders(place), cfg, print, even_deleted=bool(named))
        if every:
            renew_studies(place, cfg, print)
            renew_summaries(place, cfg, print)


@app.command()
def clean(
    outputs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs"),
    data: Annotated[Path | None, typer.Option(help="Folder of the stores.", show_default="paths.data")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
) -> None:
    """Show what nobody reads any more, and with --yes remove it.

    Checkpoints that nobody resumes, copies of weights in MLflow, and leftovers of processes that died. A finished
    run keeps its weights, predictions and records, and runs under way are left alone.
    """
    from functools import cache

    from mmsa.cleaning import clean as cleaned
    from mmsa.commands import clean_command
    from mmsa.compose import compose
    from mmsa.overrides import text_override
    from mmsa.sweep.weights import given_up

    stores = data or Path(compose([text_override("paths.outputs", str(outputs))]).paths.data)
    typed = None if data is None else str(data)
    cleaned(outputs, stores, cache(partial(given_up, outputs)), print, clean_command(str(outputs), typed), yes)


app.command()(evaluate)
app.command()(pack)
app.command()(predict)
app.command()(rerun)


@app.command()
def ui(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run, whose page it names too.")] = None,
    outputs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs"),
    port: Annotated[int, typer.Option(help="First port to try.", min=1, max=65535)] = 5000,
) -> None:
    """Show the runs in MLflow, on this machine's own address."""
    from mmsa.compose import compose
    from mmsa.overrides import text_override
    from mmsa.record import RunRecord
    from mmsa.summaries import renew_summaries
    from mmsa.tracking.ui import serve

    if run:
        RunRecord.read(run)  # refuses what is none, whose grandparent would be taken for the outputs
        outputs = run.absolute().parent.parent
    if (outputs / "mlflow.db").is_file():
        cfg = compose(["tracking=mlflow", text_override("paths.outputs", str(outputs))])
        renew_summaries(outputs, cfg, lambda line: None)  # a database that may only be read is shown as it is
    serve(outputs, port, run)


@app.command()
def completion(line: Annotated[str | None, typer.Argument(hidden=True)] = None) -> None:
    """Let TAB complete, in bash or zsh: eval "$(mmsa completion)"."""
    from mmsa.completion import SCRIPT, offers

    for text in [SCRIPT] if line is None else offers(line, _offered):
        print(text)


def _offered(words: Sequence[str], word: str) -> list[str]:
    """The commands; or what may follow these words of one: its options, the values of one, data sets."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if not words or words[0] not in commands:
        return [] if words else [*commands, "--help"]
    command = commands[words[0]]
    options = {flag: one for one in command.params for flag in one.opts if flag.startswith("-")}
    asked = options.get(words[-1])
    if asked is None or asked.is_flag:
        if word.startswith("-"):
            return [*options, "--help"]
        asked = command.params[0] if len(words) == 1 else None
    context = command.make_context(words[0], [], resilient_parsing=True)
    return [item.value for item in asked.shell_complete(context, word)] if asked else []


def main() -> None:
    """Entry point of the `mmsa` command."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    sys.exit(report_errors(lambda: command(sys.argv[1:]), show_traceback))


def command(arguments: list[str]) -> None:
    """Do what `mmsa ARGUMENTS` does; errors are raised."""
    group = typer.main.get_command(app)
    with suppress(typer.Exit), group.make_context("mmsa", arguments or ["--help"]) as context:  # which --help raises
        group.invoke(context)


if __name__ == "__main__":
    main()
