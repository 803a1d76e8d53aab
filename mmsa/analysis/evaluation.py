"""`mmsa evaluate`: loads runs, one after the other, and writes the findings of a probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmsa.analysis import masks, robustness
from mmsa.analysis.comparison import TrainedRun, agreement, comparable_groups, evaluated
from mmsa.analysis.errors import Errors, Said, StoreOf, draw_confusion, make_table, read_errors, said_in
from mmsa.analysis.layout import Table, number
from mmsa.analysis.predictions import Name
from mmsa.analysis.probe_figures import draw_mask_words, draw_masks, draw_robustness
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import Group, read_run
from mmsa.analysis.selection import Selection
from mmsa.analysis.tables import ERRORS, data_line
from mmsa.drawing import drawn, export, save
from mmsa.errors import DataError
from mmsa.run_folder import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Load = Callable[[Path], TrainedRun]
Say = Callable[[str], None]
Fold = Literal["valid", "test"]


def chosen(asked: Selection, say: Say) -> list[Path]:
    """The folders of the runs that are asked for; says which were left out.

    Raises:
        ConfigError: nothing fits a name or an option.
        DataError: there is no finished run, or none that was trained.
    """
    found = asked.finished()
    if not found.runs:
        raise DataError(
            f"{asked.outputs} holds no finished run beside the trials of studies.\n  name a study, or a folder"
        )
    trained = [run for run in found.runs if not run.is_import]
    if not trained:
        found.runs[0].check_model(found.runs[0].folder, "to evaluate")
    for line in found.left_out:
        say(line)
    if imports := len(found.runs) - len(trained):
        say(f"{imports} import{'s' if imports > 1 else ''} left out: there is no model to evaluate.")
    return [run.folder for run in trained]


def score_again(folders: Sequence[Path], load: Load, fold: Fold, say: Say) -> None:
    """Say the metrics of each run on a fold, and whether they are those of its result.json.

    Args:
        folders: of finished runs.
        load: folder -> run.
        fold: "valid" or "test".
        say: prints.

    Raises:
        DataError: a folder does not hold a finished run, or its data are no longer there.
    """
    for folder in folders:
        recorded, run = read_run(folder), load(folder)
        metrics = evaluated(run, run.model, run.data.fold(fold))
        shown = "  ".join(f"{name} {number(metrics[name])}" for name in recorded.primary)
        say(f"{folder}\n  {data_line([recorded], fold)}: {shown}\n  {agreement(recorded, fold, metrics)}")


def probe_missing(folders: Sequence[Path], load: Load, fold: Fold, output: Path | None, say: Say) -> None:
    """Probe runs with missing inputs; say the tables and write them (see `robustness`).

    Args: as of `score_again`, and
        output: where the files go; None is the folder of the only run, or a new one in `evaluations` beside the runs.

    Raises:
        DataError: two runs predict different things, or a folder does not hold a finished run.
    """
    groups = comparable_groups(folders)  # before hours of evaluation
    place = _place(groups, output)
    place.mkdir(parents=True, exist_ok=True)
    probed = robustness.probe(_loaded(groups, load, say), fold)
    say(rendered(robustness.make_tables(probed)))
    say(_told(write_robustness(probed, place)))


def study_errors(folders: Sequence[Path], store_of: StoreOf, fold: Fold, output: Path | None, say: Say) -> None:
    """Write a page of the worst utterances and of the confusion matrix, from stored predictions; no model is loaded.

    Args: as of `probe_missing`, and
        store_of: run -> its store, for the words; the page does without where it raises a DataError.

    Raises:
        DataError: as of `probe_missing`, or a run has no predictions of the fold.
    """
    groups = comparable_groups(folders)
    found = [read_errors(group, fold) for group in groups]
    say(_told(write_errors(found, store_of, _place(groups, output))))


def write_errors(found: Sequence[Errors], store_of: StoreOf, folder: Path) -> list[Path]:
    """Write errors.html, and of tasks with classes confusion.pdf, .svg and .png, as above."""
    remarks: list[str] = []
    said: Mapping[Name, Said] = {}
    try:
        said = said_in(store_of(found[0].group.runs[0]), found[0].fold)
        remarks += ["the source has no words"] if all(one.words is None for one in said.values()) else []
    except DataError as error:
        remarks.append(f"without words: {str(error).splitlines()[0]}")
    tables = [make_table(one, said, remarks) for one in found]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / ERRORS]
    if figure := draw_confusion(found):
        picture = (drawn(figure, "png"), "confusion matrix: utterances by class and predicted class")
        tables = [replace(tables[0], picture=picture), *tables[1:]]
        paths += export(figure, folder, "confusion")
    write_text(paths[0], rendered(tables, "html") + "\n")
    return paths


def study_masks(
    folders: Sequence[Path], load: Load, fold: Fold, output: Path | None, say: Say, utterances: Sequence[str] = ()
) -> None:
    """Compare the feedback's masks; say the tables and write them (see `masks`).

    Args: as of `probe_missing`, and
        utterances: as of `masks.study_masks`.

    Raises:
        ConfigError: a run has no feedback, or the fold has no such utterance.
        DataError: as of `probe_missing`.
    """
    groups = comparable_groups(folders)
    study = masks.study_masks(_loaded(groups, load, say), fold, utterances)
    say(rendered(masks.make_tables(study)))
    if study.drawn:
        say(f"drawn over their words: {', '.join(one.name for one in study.drawn)}")
    say(_told(write_masks(study, _place(groups, output))))


def write_robustness(probed: robustness.Probe, folder: Path) -> list[Path]:
    """Write robustness.json, robustness.md and robustness.png into a folder, which is made where it is missing."""
    tables = [*robustness.make_tables(probed), *robustness.difference_tables(probed)]
    return _write(folder, "robustness", robustness.content(probed), tables, draw_robustness(probed))


def write_masks(study: masks.MaskStudy, folder: Path) -> list[Path]:
    """Write masks.csv (every utterance), masks.json (the differences), masks.md and masks.png, as above.

    And mask_words.pdf, .svg and .png of the utterances that are drawn over their words.
    """
    tables = masks.make_tables(study)
    paths = _write(folder, "masks", masks.content(study), tables, draw_masks(study))
    write_text(folder / "masks.csv", rendered(tables, "csv") + "\n")
    if study.drawn:
        paths += export(draw_mask_words(study), folder, "mask_words")
    return [folder / "masks.csv", *paths]


def _write(folder: Path, name: str, content: Mapping[str, Any], tables: Sequence[Table], figure: Figure) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    numbers, text, picture = paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    write_json(numbers, content)
    write_text(text, rendered(tables, "markdown") + "\n")
    save(figure, picture)
    return paths


def _loaded(groups: Sequence[Group], load: Load, say: Say) -> Iterator[TrainedRun]:
    """One run at a time, in the order of the groups."""
    runs = [run for group in groups for run in group.runs]
    for place, run in enumerate(runs, start=1):
        if len(runs) > 1:
            say(f"run {place} of {len(runs)}: {run.folder}")
        yield load(run.folder)


def _place(groups: Sequence[Group], output: Path | None) -> Path:
    runs = [run for group in groups for run in group.runs]
    if output is not None:
        return output
    if len(runs) == 1:
        return runs[0].folder
    return runs[0].folder.resolve().parent.parent / "evaluations" / f"{datetime.now():%Y%m%d-%H%M%S}"


def _told(paths: Sequence[Path]) -> str:
    return f"written to {paths[0].parent}: {', '.join(path.name for path in paths)}"
