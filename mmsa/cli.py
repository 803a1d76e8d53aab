"""The `mmsa` command: thin calls into one module each."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmsa.config import conf_folder
from mmsa.errors import ConfigError, DataError, MmsaError, printable, printable_lines
from mmsa.program import program
from mmsa.reporting import report_errors

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
    help="cmu_mosi, cmu_mosei, synthetic, or another in conf/dataset.", autocompletion=lambda: _data_sets()
)
_SOURCE = typer.Option(help="Folder of .csd files, or a file or folder of pickles, such as MMSA's aligned_50.pkl.")
_GLOVE = typer.Option(help="GloVe text file: text becomes its vectors of the words.")
_DATA = typer.Option(help="Folder of the stores.", show_default="paths.data")
_OPTIONS = typer.Argument(help="As for training: dataset.keep_pauses=true")


@app.command()
def prepare(
    name: Annotated[str, _NAME],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the computational sequences first.")] = False,
    mirror: Annotated[str | None, typer.Option(help="Address of a folder to fetch them from.", metavar="URL")] = None,
    options: Annotated[list[str] | None, _OPTIONS] = None,
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
    options: Annotated[list[str] | None, _OPTIONS] = None,
) -> None:
    """Examine a data set and write a report; exit code 1 on errors."""
    from mmsa.data.own_folds import own_folds_lines
    from mmsa.doctor.admission import keep
    from mmsa.doctor.examination import diagnosis_lines, examine
    from mmsa.doctor.page import page
    from mmsa.run_folder import write_json, write_text

    _check_folder(output)
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
    options: Annotated[list[str] | None, _OPTIONS] = None,
) -> None:
    """Make predictions of another system a run, for mmsa report."""
    from mmsa.importing.run import import_file

    cfg, _, overrides = _named(name, source, glove, data, options)
    folds = ("valid", "test") if fold == "both" else (fold,) if fold else ()
    import_file(cfg, overrides, file, system, folds, partial, lambda text: print(printable_lines(text)))


def _named(
    name: str, source: str | None, glove: str | None, data: str | None, options: list[str] | None
) -> tuple[Any, Dataset, list[str]]:
    """The configuration and data set that the arguments of a command name, and their overrides."""
    from mmsa import build
    from mmsa.compose import compose
    from mmsa.parts import check_node

    known = _data_sets()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1) or known[:1]
        again = f"{program('mmsa')} prepare {close[0]}"
        raise ConfigError(f"{name}: there is no such data set; choose from {', '.join(known)}.\n  type {again}")
    overrides = [f"dataset={name}", *(options or [])]
    overrides += [f"paths.data={data}"] if data else []
    overrides += [f"dataset.glove={glove}"] if glove else []
    overrides += [f"dataset.source={source}"] if source else []
    cfg = compose(overrides)
    check_node(cfg, "dataset")
    return cfg, build.dataset_of_run(cfg), overrides


def _prepared(cfg: Any, dataset: Dataset) -> Store:
    """The store of a data set, with its own folds where they are asked for."""
    from mmsa.data.own_folds import own_folds

    store = dataset.prepare(Path(cfg.paths.data))
    return own_folds(store, dataset.loading.num_folds, dataset.loading.held_out)


def _data_sets() -> list[str]:
    return sorted(path.stem for path in (conf_folder() / "dataset").glob("*.yaml"))


def _check_folder(output: Path | None, option: str = "--output") -> None:
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"{option} {output} is a file, a folder is needed.\n  type {option} FOLDER")


# The arguments that choose runs.
_WHAT = "RUN, SWEEP, DATASET, KEY=VALUE"
_OUTPUTS = typer.Option(help="Folder of the runs.", metavar="FOLDER")


@app.command()
def report(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(help=f"{_WHAT}; else all.", metavar="[WHAT...]", autocompletion=lambda: _selectable()),
    ] = None,
    outputs: Annotated[Path, _OUTPUTS] = Path("outputs"),
    sweep: Annotated[
        list[str] | None, typer.Option(help="Only this multirun (its id) or study.", metavar="NAME")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Columns: mae,acc7,has0/non0.", metavar="NAMES", autocompletion=lambda: _metric_names()),
    ] = None,
    percent: Annotated[bool, typer.Option("--percent", help="Accuracies and F1 in percent.")] = False,
    rows: Annotated[list[str] | None, typer.Option(help="Only these rows, in order.", metavar="NAME=PATTERN")] = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Leave the baselines out.")] = False,
    seeds: Annotated[bool, typer.Option("--seeds", help="A row per seed.")] = False,
    by: Annotated[list[str] | None, typer.Option(help="A row per value of an option.", metavar="KEY")] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the tables too.", metavar="FOLDER")] = None,
    reference: Annotated[str | None, typer.Option(help="Test what differs from this row.", metavar="ROW")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Test each pair of rows.")] = False,
    archive: Annotated[
        Path | None, typer.Option(help="Keep the runs behind the table in a zip.", metavar="FILE")
    ] = None,
    anchors: Annotated[bool, typer.Option("--anchors", help="Published results below ours.")] = False,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print the papers to cite instead.")] = False,
    style: Annotated[
        Literal["table", "markdown", "csv", "latex", "html"],
        typer.Option("--format", help="table, markdown, csv, latex or html.", metavar="STYLE", show_default=False),
    ] = "table",
) -> None:
    """Print the table of runs, or the best trials of a study."""
    _check_folder(figures, "--figures")
    from mmsa.analysis import citations, tables
    from mmsa.analysis.archive import write_archive
    from mmsa.analysis.rendering import rendered
    from mmsa.analysis.selection import Selection
    from mmsa.analysis.shape import Shape, shape_of
    from mmsa.sweep import report as studies

    asked = Selection.of(what or [], outputs, sweep or [])
    if bibtex:
        print(printable_lines(citations.bibtex(asked.finished().runs)))
        return
    shape = shape_of(metrics or [], percent, rows or [], not no_baselines, seeds, by or [], reference, pairs, anchors)
    names = asked.searches
    tabled = shape != Shape() or figures is not None or archive is not None
    if names and not tabled and all(studies.is_study(outputs, name) for name in names):
        print(printable_lines(studies.report(outputs, *names, style=style)))
        return
    made, results = tables.reported(asked, shape)
    print(printable_lines(rendered(made, style)))
    if figures is not None:
        from mmsa.analysis.result_figures import write_figures

        drawn = [path.name for path in write_figures(results, shape, figures)]
        print(printable(f"figures in {figures}: {', '.join(drawn) or 'none, as of the table'}"), file=sys.stderr)
    if archive is not None:
        again = _typed(context, ("what", "outputs", "sweep", "archive", "figures", "style"))
        num = write_archive(archive, asked, shape, shlex.join(["mmsa", "report", "runs/*", *again]))
        print(printable(f"{archive}: the table and {num} run{'' if num == 1 else 's'}"), file=sys.stderr)
    if asked == Selection(outputs) and style in ("table", "markdown") and (lines := studies.study_lines(outputs)):
        print("\n" + "\n".join(map(printable, lines)))


@app.command()
def leaderboard(
    what: Annotated[
        list[str] | None,
        typer.Argument(help=f"{_WHAT}; else all.", metavar="[WHAT...]", autocompletion=lambda: _selectable()),
    ] = None,
    outputs: Annotated[Path, _OUTPUTS] = Path("outputs"),
    output: Annotated[
        Path | None, typer.Option(help="The page.", metavar="FILE", show_default="leaderboard.html in --outputs")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Test what differs from this row.", metavar="ROW", show_default="the best by validation"),
    ] = None,
) -> None:
    """Write all results as one page that sorts, with figures."""
    from mmsa.analysis.leaderboard import write_leaderboard
    from mmsa.analysis.selection import Selection
    from mmsa.sweep.report import study_lines

    page = output or outputs / "leaderboard.html"
    asked = Selection.of(what or [], outputs)
    num = write_leaderboard(page, asked, reference, study_lines(outputs) if asked == Selection(outputs) else ())
    print(f"leaderboard of {num:,} run{'' if num == 1 else 's'}: {page.absolute().as_uri()}")


def _typed(context: typer.Context, but: Sequence[str]) -> list[str]:
    """The words of a command line that gave its options these values, but for some."""
    words: list[str] = []
    for option in context.command.params:
        value = context.params[str(option.name)]
        if option.name not in but and value:
            values = value if isinstance(value, list) else [value]
            words += [option.opts[0]] if value is True else [word for one in values for word in (option.opts[0], one)]
    return words


def _selectable() -> list[str]:
    """Words that choose runs: data sets, sweeps, and groups, whose values follow."""
    sweeps = sorted(path.name for path in Path("outputs", "sweeps").glob("*/"))
    groups = sorted(f"{path.name}=" for path in conf_folder().iterdir() if path.is_dir())
    return [*_data_sets(), *sweeps, *groups]


def _metric_names() -> list[str]:
    from mmsa.training.metrics import METRICS

    return [*METRICS, "has0/non0"]


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


@app.command()
def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(help=f"{_WHAT}.", metavar="WHAT...", autocompletion=lambda: _selectable()),
    ],
    missing: Annotated[bool, typer.Option("--missing", help="Evaluate with modalities and steps missing.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Compare the feedback's masks.")] = False,
    utterance: Annotated[
        list[str] | None, typer.Option(help="With --masks: draw them over the words of this one.", metavar="ID")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Show the worst utterances and confused classes.")] = False,
    fold: Annotated[Literal["valid", "test"], typer.Option(help="The fold to evaluate on.")] = "test",
    outputs: Annotated[Path, _OUTPUTS] = Path("outputs"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the stores.", show_default="beside the runs, or paths.data")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the tables.", show_default="the run's; of several: outputs/evaluations/TIME"),
    ] = None,
) -> None:
    """Score trained runs again, also with missing inputs.

    The default is the test fold: every finished run has been scored on it before, and nothing is selected.
    Trials of a search have not been, and are refused on it.
    """
    from mmsa.analysis import evaluation
    from mmsa.analysis.selection import Selection
    from mmsa.resume import store_of
    from mmsa.trained import load_run

    _check_folder(output)
    if output is not None and not (missing or masks or errors):
        raise ConfigError("--output needs --missing, --masks or --errors, which write files.\n  type --missing")
    if utterance and not masks:
        raise ConfigError("--utterance needs --masks, which draws them.\n  type --masks")
    load = partial(load_run, stores=data)

    def say(text: str) -> None:
        print(printable_lines(text))

    runs = evaluation.chosen(Selection.of(what, outputs), say)
    if missing:
        evaluation.probe_missing(runs, load, fold, output, say)
    if masks:
        evaluation.study_masks(runs, load, fold, output, say, utterance or [])
    if errors:
        evaluation.study_errors(runs, partial(store_of, stores=data), fold, output, say)
    if not (missing or masks or errors):
        evaluation.score_again(runs, load, fold, say)


@app.command()
def pack(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs: the seeds of one configuration.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The new folder.", metavar="FOLDER", show_default="outputs/models/NAME")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the stores.", show_default="beside the runs, or paths.data")
    ] = None,
) -> None:
    """Pack finished runs into a folder that predicts without data."""
    from mmsa.serving.pack import described
    from mmsa.serving.pack import pack as packed

    print(printable_lines("\n".join(described(packed(runs, output, data)))))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a packed model.")],
    input_: Annotated[Path, typer.Option("--input", help="File or folder that prepare reads, or its store.")],
    output: Annotated[
        Path | None, typer.Option(help="FILE.csv or FILE.json.", metavar="FILE", show_default="the screen")
    ] = None,
    options: Annotated[list[str] | None, _OPTIONS] = None,
) -> None:
    """Predict utterances with a packed model; labels are not needed."""
    from mmsa.serving.predict import predict_file

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr)

    count = predict_file(model, input_, output, options or [], say)
    if output is not None:
        say(f"{count:,} predictions in {output}")


@app.command()
def rerun(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the stores.", show_default="beside the run, or paths.data")
    ] = None,
) -> None:
    """Train a run again; exit code 1 if its results differ.

    The new run is beside the folder, which stays as it is.
    """
    from mmsa.rerun import rerun as again

    if not again(run, data, lambda text: print(printable_lines(text))):
        sys.exit(1)


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
