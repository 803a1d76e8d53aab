"""The errors of finished runs: the classes that they confuse, and the utterances that they predict worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmsa.analysis.layout import LABELS, Cell, Column, Row, Table, counted, number
from mmsa.analysis.predictions import Name, Predictions, read_predictions
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.tables import data_line, notes_of
from mmsa.data.store import PAUSE, Store
from mmsa.drawing import BLUE, INK, canvas, folded, shades
from mmsa.errors import DataError
from mmsa.readers.ids import segment_ids
from mmsa.run_folder import closed_to_trials
from mmsa.training.metrics import Array, printed, rounded
from mmsa.training.sims_metrics import FIVE_CLASSES, classes_between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StoreOf = Callable[[Run], Store]
NUM_WORST = 20
_MOST_CLASSES = 12
_ABREAST = 3


class Classes(NamedTuple):
    """The classes of a confusion matrix.

    Args:
        names: of the C classes.
        of: values (N,), all finite -> their classes (N,) int64 from 0 on.
        metric: whose classes they are; empty for those of a classification.
    """

    names: Sequence[str]
    of: Callable[[Array], np.ndarray]
    metric: str = ""


class Said(NamedTuple):
    """The words of an utterance, None where they are not known, and its video."""

    words: str | None
    video: str


@dataclass(frozen=True)
class Errors:
    """The predictions of a row's runs beside the labels.

    Args:
        group: the row.
        fold: the fold.
        names: the N utterances that all S runs predict.
        truth: (N,), or (N, K) of K columns.
        predicted: (S, N) or (S, N, K); NaN where a run predicts nothing finite.
        classes: None where the task has none.
    """

    group: Group
    fold: str
    names: Sequence[Name]
    truth: Array
    predicted: Array
    classes: Classes | None

    @property
    def of_classes(self) -> bool:
        """Whether the runs predict classes, and not numbers."""
        return self.group.runs[0].task == "classification"

    def confusion(self) -> np.ndarray | None:
        """(C, C) utterances by their class (row) and the predicted one, summed over the runs; None without classes."""
        if self.classes is None:
            return None
        num = len(self.classes.names)
        counts = np.zeros((num, num), dtype=np.int64)
        for predicted in self.predicted:
            known = np.isfinite(predicted)
            rows, columns = self.classes.of(self.truth[known]), self.classes.of(predicted[known])
            np.add.at(counts, (rows, columns), 1)
        return counts

    def errors(self) -> Array:
        """(N,) mean absolute errors over runs and columns, of classes the share of wrong ones; infinite where NaN."""
        far = self._distances()
        far = np.where(np.isfinite(far), far > 0, np.inf) if self.of_classes else far
        return far.mean(axis=(0, 2))

    def worst(self, most: int = NUM_WORST) -> list[int]:
        """The places of the utterances with the largest errors, none without one; of equal ones the farther class."""
        errors, far = self.errors(), self._distances().mean(axis=(0, 2))
        order = np.lexsort((-far, -errors))
        return [place for place in order[:most].tolist() if errors[place] > 0]

    def _distances(self) -> Array:
        """(S, N, K) absolute errors; infinite where a run predicts nothing finite."""
        with np.errstate(over="ignore"):
            far = np.abs(self.predicted - self.truth)
        return np.where(np.isfinite(far), far, np.inf).reshape(*far.shape[:2], -1)


def read_errors(group: Group, fold: str) -> Errors:
    """The stored predictions of a row.

    Args:
        group: runs on the same data and task.
        fold: "valid" or "test".

    Raises:
        DataError: a run has none of this fold, they are damaged, or the runs share no utterance.
    """
    for run in group.runs:
        if run.trial is not None and fold == "test":
            raise DataError(closed_to_trials(str(run.folder), str(run.sweep)))
    tables = [read_predictions(run.folder, fold) for run in group.runs]
    names = [name for name in tables[0].rows if all(name in table.rows for table in tables)]
    if not names or len({table.truth.shape[1:] for table in tables}) > 1:
        raise DataError(
            f"{group.label}: its runs share no utterance, or predict other columns.\n  name one of these runs"
        )

    def of(table: Predictions, values: Array) -> Array:
        return values[[table.rows[name] for name in names]]

    truth, predicted = of(tables[0], tables[0].truth), np.stack([of(table, table.predicted) for table in tables])
    return Errors(group, fold, names, truth, predicted, _classes_of(group.runs[0], truth, predicted))


def said_in(store: Store, fold: str) -> dict[Name, Said]:
    """The words and the video of each utterance of a fold."""
    seen: Counter[str] = Counter()
    found = {}
    for row in np.flatnonzero(store.folds == fold).tolist():
        name = store.ids[row]
        spoken = None if store.words is None else " ".join(word for word in store.words[row] if word != PAUSE)
        found[name, seen[name]] = Said(spoken, store.videos[row])
        seen[name] += 1
    return found


def make_table(errors: Errors, said: Mapping[Name, Said], remarks: Sequence[str] = ()) -> Table:
    """The worst utterances of a row, with their words, labels and predictions.

    Args:
        errors: of the row.
        said: words and videos, as far as they are known; else the id names the video.
        remarks: more notes.
    """
    several, worst = len(errors.group.runs) > 1, errors.worst()
    heads = ["label", "prediction", "wrong" if errors.of_classes else "error"]
    of_runs = f" over {counted(len(errors.group.runs), 'run')}" if several else ""
    typical = "the most frequent class" if errors.of_classes else "the mean"
    notes = [
        data_line(errors.group.runs, errors.fold),
        *notes_of(errors.group.runs[0], 1),
        f"the {len(worst)} utterances with the largest errors{of_runs}, of {counted(len(errors.names), 'utterance')}",
        *([f"prediction: {typical}{of_runs}"] if several else []),
        *remarks,
        *([] if errors.classes else ["no confusion matrix: the task has no classes"]),
    ]
    ids = [name for name, _ in errors.names]
    named = {name: video for name, (video, _) in zip(ids, segment_ids(ids)[0], strict=True)}
    size = errors.errors()
    rows: list[Row] = []
    for place in worst:
        about = said.get(errors.names[place], Said(None, named[ids[place]]))
        spoken = "–" if about.words is None else about.words or "(no words)"
        values = errors.predicted[:, place]
        cells = [ids[place], about.video, spoken, _value(errors.truth[place]), _prediction(errors, values)]
        rows.append(tuple(map(Cell, [*cells, number(float(size[place]), 2)])))
    columns = [LABELS, Column("video", folds_to=20), Column("words", folds_to=40), *map(Column, heads)]
    return Table(f"errors: {errors.group.label}", notes, columns, [rows])


def _prediction(errors: Errors, values: Array) -> str:
    """The prediction of the runs together, (S,) or (S, K)."""
    if not np.isfinite(values).all():
        return "–"
    if not errors.of_classes:
        return _value(values.mean(axis=0))
    found, counts = np.unique(values, axis=0, return_counts=True)
    return _value(found[counts.argmax()])


def _value(value: Array) -> str:
    return ", ".join(f"{one:g}" if one == round(one) else number(one, 2) for one in np.atleast_1d(value).tolist())


def _classes_of(run: Run, truth: Array, predicted: Array) -> Classes | None:
    """The classes of a task: of regression those of its finest accuracy."""
    logged = {name.partition("/")[2] for name in run.metrics}
    if truth.ndim > 1:
        return None
    if run.task == "classification":
        return _numbered(run, truth, predicted)
    if "acc7" in logged:
        return Classes([f"{value:+d}" if value else "0" for value in range(-3, 4)], _of_seven, "acc7")
    if "acc5_sims" in logged:
        cuts = [-1.0, *FIVE_CLASSES, 1.0]
        names = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
        return Classes(names, lambda values: classes_between(np.clip(values, -1, 1), FIVE_CLASSES), "acc5_sims")
    if "acc2_non0" in logged:
        return Classes(["negative", "positive"], lambda values: (values > 0).astype(np.int64), "acc2_non0")
    return None


def _of_seven(values: Array) -> np.ndarray:
    return rounded(values, 3).astype(np.int64) + 3


def _numbered(run: Run, truth: Array, predicted: Array) -> Classes | None:
    """Classes by their numbers, with their bounds where they were typed."""
    values = np.concatenate([truth, predicted[np.isfinite(predicted)]])
    if (values != np.rint(values)).any() or values.min() < 0 or values.max() >= _MOST_CLASSES:
        return None
    typed = run.configuration.get("task.thresholds", "null")
    cuts = typed.strip("[]").split(",") if typed.startswith("[") else []
    num = max(int(values.max()) + 1, len(cuts) + 1, 2)
    names = [f"class {place}" for place in range(num)]
    if len(cuts) == num - 1:
        names = [f"< {cuts[0]}", *(f"{a} to {b}" for a, b in pairwise(cuts)), f"≥ {cuts[-1]}"]
    return Classes(names, lambda found: found.astype(np.int64))


def draw_confusion(found: Sequence[Errors]) -> Figure | None:
    """A panel per row: its utterances by class and predicted class, dark where they are a large share of the class.

    Args:
        found: rows on the same data; those without classes are left out. None: all are.
    """
    shown = [(one, one.classes, counts) for one in found if (counts := one.confusion()) is not None and one.classes]
    if not shown:
        return None
    abreast, num = min(_ABREAST, len(shown)), max(len(classes.names) for _, classes, _ in shown)
    downward, side = -(-len(shown) // abreast), 1.1 + 0.36 * num
    figure = canvas(max(abreast * side + 0.4, 4.4), downward * (side + 0.3) + 0.6)
    grid = figure.subplots(downward, abreast, squeeze=False).ravel().tolist()
    for panel in grid[len(shown) :]:
        panel.remove()
    for panel, (one, classes, counts) in zip(grid, shown, strict=False):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        panel.imshow(shares, cmap=shades("white", BLUE), vmin=0.0, vmax=1.0, interpolation="nearest")
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else INK
            panel.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        names = [folded(name, 12, 1) for name in classes.names]
        turned = {"rotation": 40, "ha": "right"} if max(map(len, names)) > 3 else {}
        panel.set_xticks(range(len(names)), names, fontsize=8, parse_math=False, **turned)
        panel.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
        panel.tick_params(length=0)
        panel.set(xlabel="predicted class", ylabel="class of the label")
        runs = one.group.runs
        title = folded(f"{one.group.label} ({counted(len(runs), 'run')})", int(10 * side), 3)
        panel.set_title(title, fontsize=9, parse_math=False)
    first = shown[0][0]
    metric = shown[0][1].metric
    about = f"utterances by class{f' of {printed(metric)}' if metric else ''}, summed over runs"
    lines = [data_line(first.group.runs, first.fold), *notes_of(first.group.runs[0], 1), about]
    wide = int(14 * figure.get_figwidth())
    figure.suptitle("\n".join(folded(line, wide) for line in lines), fontsize=9, parse_math=False)
    return figure
