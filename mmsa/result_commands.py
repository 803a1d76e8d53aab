"""The commands of `mmsa` on runs that have finished: thin calls into one module each."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmsa.commands import quoted
from mmsa.config import conf_folder
from mmsa.data_commands import OPTIONS, check_folder, data_sets
from mmsa.errors import ConfigError, printable, printable_lines
from mmsa.files import remove_all

# The arguments that choose runs.
_WHAT = "RUN, SWEEP, DATASET, KEY=VALUE"
_SELECTED = typer.Argument(help=f"{_WHAT}; else all.", metavar="[WHAT...]", autocompletion=lambda: _selectable())
OUTPUTS = typer.Option(help="Folder of the runs.", metavar="FOLDER")


def report(
    context: typer.Context,
    what: Annotated[list[str] | None, _SELECTED] = None,
    outputs: Annotated[Path, OUTPUTS] = Path("outputs"),
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
    check_folder(figures, "--figures")
    from mmsa.analysis import citations, tables
    from mmsa.analysis.archive import write_archive
    from mmsa.analysis.rendering import rendered
    from mmsa.analysis.selection import Selection
    from mmsa.analysis.shape import Shape, shape_of
    from mmsa.sweep import report as studies

    asked = Selection.of(what or [], outputs, sweep or [])
    shape = shape_of(metrics or [], percent, rows or [], not no_baselines, seeds, by or [], reference, pairs, anchors)
    names = asked.searches
    tabled = shape != Shape() or figures is not None or archive is not None or bibtex
    if names and not tabled and all(studies.is_study(outputs, name) for name in names):
        print(printable_lines(studies.report(outputs, *names, style=style)))
        return
    made, results = tables.reported(asked, shape)
    cited = (run for one in results for group in one.groups for run in group.runs)
    print(printable_lines(citations.bibtex(cited) if bibtex else rendered(made, style)))
    if figures is not None:
        from mmsa.analysis.result_figures import write_figures

        drawn = [path.name for path in write_figures(results, shape, figures)]
        print(printable(f"figures in {figures}: {', '.join(drawn) or 'none, as of the table'}"), file=sys.stderr)
    if archive is not None:
        again = _typed(context, ("what", "outputs", "sweep", "archive", "figures", "style", "bibtex"))
        num = write_archive(archive, asked, shape, results, shlex.join(["mmsa", "report", "runs/*", *again]))
        print(printable(f"{archive}: the table and {num} run{'' if num == 1 else 's'}"), file=sys.stderr)
    every = asked == Selection(outputs) and style in ("table", "markdown") and not bibtex
    if every and (lines := studies.study_lines(outputs)):
        print("\n" + "\n".join(map(printable, lines)))


def leaderboard(
    what: Annotated[list[str] | None, _SELECTED] = None,
    outputs: Annotated[Path, OUTPUTS] = Path("outputs"),
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
    return [*data_sets(), *sweeps, *groups]


def _metric_names() -> list[str]:
    from mmsa.training.metrics import METRICS

    return [*METRICS, "has0/non0"]


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
    outputs: Annotated[Path, OUTPUTS] = Path("outputs"),
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
    from mmsa.earlier_run import store_of
    from mmsa.trained import load_run

    check_folder(output)
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
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Log it in MLflow too, to be served.")] = False,
    register: Annotated[
        str | None, typer.Option(help="With --mlflow: register it there by this name.", metavar="NAME")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Of the model, for its card: mit.", metavar="NAME")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload it to the Hugging Face hub too.", metavar="USER/NAME")
    ] = None,
) -> None:
    """Pack finished runs into a folder that predicts without data."""
    from mmsa.serving import hub
    from mmsa.serving.pack import described
    from mmsa.serving.pack import pack as packed

    if register is not None and not mlflow:
        raise ConfigError(f"--register needs --mlflow.\n  type --mlflow --register {quoted(register)}")
    if push is not None:
        hub.check_push(push, license_)
    model = packed(runs, output, data, license_)
    lines = described(model)
    try:
        if push is not None:
            lines.append(f"pushed: {hub.push(model, push)}")
        if mlflow:
            from mmsa.serving.logged import log

            lines += log(model, runs, register)
    except BaseException:  # so that the same line can be typed again
        remove_all([model.folder])
        raise
    print(printable_lines("\n".join(lines)))


def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a packed model.")],
    input_: Annotated[Path, typer.Option("--input", help="File or folder that prepare reads, or its store.")],
    output: Annotated[
        Path | None, typer.Option(help="FILE.csv or FILE.json.", metavar="FILE", show_default="the screen")
    ] = None,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Predict utterances with a packed model; labels are not needed."""
    from mmsa.serving.predict import predict_file

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr)

    count = predict_file(model, input_, output, options or [], say)
    if output is not None:
        say(f"{count:,} predictions in {output}")


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

    if not again(run, data):
        sys.exit(1)
