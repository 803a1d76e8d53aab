"""The `mmsa` command: thin calls into one module each; `result_commands` has those on finished runs."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmsa.errors import ConfigError, DataError, MmsaError, printable_lines
from mmsa.program import program
from mmsa.reporting import report_errors
from mmsa.result_commands import (
    OPTIONS,
    check_folder,
    data_sets,
    evaluate,
    leaderboard,
    pack,
    predict,
    report,
    rerun,
)

if TYPE_CHECKING:
    from mmsa.data.store import Store
    from mmsa.dataset.dataset import Dataset

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


# The arguments that reading and examining data share.
_NAME = typer.Argument(
    help="cmu_mosi, cmu_mosei, synthetic, or another in conf/dataset.", autocompletion=lambda: data_sets()
)
_SOURCE = typer.Option(help="Folder of .csd files, or a file or folder of pickles, such as MMSA's aligned_50.pkl.")
_GLOVE = typer.Option(help="GloVe text file: text becomes its vectors of the words.")
_DATA = typer.Option(help="Folder of the stores.", show_default="paths.data")


@app.command()
def prepare(
    name: Annotated[str, _NAME],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the computational sequences first.")] = False,
    mirror: Annotated[str | None, typer.Option(help="Address of a folder to fetch them from.", metavar="URL")] = None,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Read a data set's source files into a store for training."""
    from mmsa import build
    from mmsa.data.own_folds import own_folds_lines
    from mmsa.data.prepare import describe
    from mmsa.doctor.admission import diagnosed
    from mmsa.doctor.examination import brief
    from mmsa.training.kinds import kind_of

    if mirror is not None and not download:
        again = f"{program('mmsa')} prepare {name} --download --mirror URL"
        raise ConfigError(f"--mirror needs --download.\n  type {again}")
    cfg, dataset, overrides = _named(name, source, glove, data, options)
    if download:
        from mmsa.download.download import download as fetch

        given = [*(["--glove", glove] if glove else []), *(["--data", data] if data else []), *(options or [])]
        source = str(fetch(dataset, Path(cfg.paths.data), mirror, given))
        cfg, dataset, overrides = _named(name, source, glove, data, options)
    store = _prepared(cfg, dataset)
    kinds = {target: kind_of(target, dataset.stated_kinds) for target in store.targets}
    print("\n".join([*describe(store, kinds), *own_folds_lines(store)]))
    diagnosis, _ = diagnosed(store, dataset)
    print("\n".join(brief(diagnosis, build.examining(cfg, dataset, store))))
    if all(fold["utterances"] for fold in diagnosis.numbers["folds"].values()):
        print(_train_line([*overrides, *diagnosis.going_on(dataset.modalities)], dataset, store))


def _train_line(overrides: list[str], dataset: Dataset, store: Store) -> str:
    """The line that trains on a store: with the default model, else with the fusion that takes any modalities."""
    from mmsa import build
    from mmsa.commands import train_command
    from mmsa.compose import compose

    refusal = None
    for beside in ([], ["fusion=concat"]):
        try:
            build.check_on(compose([*overrides, *beside]), dataset, store)
            return f"train on it: {train_command([*overrides, *beside])}"
        except MmsaError as error:
            refusal = refusal or error
    return f"it cannot be trained on: {refusal}"


@app.command()
def doctor(
    name: Annotated[str, _NAME],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="outputs/doctor/STORE")
    ] = None,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Examine a data set and write a report; exit code 1 on errors."""
    from mmsa.data.own_folds import own_folds_lines
    from mmsa.doctor.admission import keep
    from mmsa.doctor.examination import diagnosis_lines, examine
    from mmsa.doctor.page import page
    from mmsa.run_folder import write_json, write_text

    check_folder(output)
    cfg, dataset, _ = _named(name, source, glove, data, options)
    store = _prepared(cfg, dataset)
    diagnosis = examine(store, dataset)
    keep(diagnosis, store, dataset)
    held_out = f"-held_out-{store.parts.held_out}-of-{store.parts.num_folds}" if store.parts else ""
    folder = output or Path(cfg.paths.outputs, "doctor", f"{store.path.stem}{held_out}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", diagnosis.as_json())
    write_text(folder / "report.html", page(diagnosis))
    print("\n".join([*own_folds_lines(store), *diagnosis_lines(diagnosis)]))
    print(f"report: {folder / 'report.html'}, {folder / 'report.json'}")
    if diagnosis.of("error"):
        raise DataError(f"{store.title}: {diagnosis.verdict}.\n  fix the errors above before you train on {store.path}")


@app.command(name="import")
def import_(
    name: Annotated[str, _NAME],
    file: Annotated[Path, typer.Argument(help="CSV or .npz with id, prediction; also seed, fold.", metavar="FILE")],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    system: Annotated[
        str | None, typer.Option("--name", help="Name of the system.", metavar="NAME", show_default="the file's")
    ] = None,
    fold: Annotated[
        Literal["valid", "test", "both"] | None,
        typer.Option(help="The folds to score.", show_default="test, and valid if a column fold has it"),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Utterances may be missing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of others of its name.")] = False,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Make predictions of another system a run, for mmsa report."""
    from mmsa.importing.run import import_file

    cfg, _, overrides = _named(name, source, glove, data, options)
    folds = ("valid", "test") if fold == "both" else (fold,) if fold else ()
    import_file(cfg, overrides, file, system, folds, partial, replace, lambda text: print(printable_lines(text)))


def _named(
    name: str, source: str | None, glove: str | None, data: str | None, options: list[str] | None
) -> tuple[Any, Dataset, list[str]]:
    """The configuration and data set that the arguments of a command name, and their overrides."""
    from mmsa import build
    from mmsa.compose import compose
    from mmsa.config import check_value
    from mmsa.parts import check_node

    known = data_sets()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        instead = f"\n  type {close[0]} in its place" if close else ""
        raise ConfigError(f"{name}: there is no such data set; choose from {', '.join(known)}.{instead}")
    overrides = [f"dataset={name}", *(options or [])]
    overrides += [f"paths.data={data}"] if data else []
    overrides += [f"dataset.glove={glove}"] if glove else []
    overrides += [f"dataset.source={source}"] if source else []
    cfg = compose(overrides)
    check_node(cfg, "dataset")
    check_value("paths.data", cfg.paths.data, str)
    return cfg, build.dataset_of_run(cfg), overrides


def _prepared(cfg: Any, dataset: Dataset) -> Store:
    """The store of a data set, with its own folds where they are asked for."""
    from mmsa.data.own_folds import own_folds

    store = dataset.prepare(Path(cfg.paths.data))
    return own_folds(store, dataset.loading.num_folds, dataset.loading.held_out)


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
    from mmsa.summaries import renew_summaries
    from mmsa.tracking.ui import serve

    outputs = run.absolute().parent.parent if run else outputs
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
