from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mmsa.analysis.differences import _EMPTY, Difference
from mmsa.analysis.result_figures import draw_differences, draw_scores
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.analysis.significance import Interval
from mmsa.cli import command
from mmsa.drawing import BLUE, ORANGE
from mmsa.errors import ConfigError
from mmsa.training.metrics import METRICS, printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AddRun = Callable[..., Path]


def texts(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def points(panel: Axes, marker: str) -> list[float]:
    """The places on the x axis of the marks of one kind."""
    return [float(x) for line in panel.lines if line.get_marker() == marker for x in line.get_xdata()]  # type: ignore[arg-type, union-attr]


def difference(row: str, metric: str, mean: float, half: float, adjusted: float) -> Difference:
    interval = Interval(mean, mean - half, mean + half, 20)
    return replace(_EMPTY, row=row, reference="base", metric=metric, difference=interval, adjusted=adjusted)


def test_metrics_have_the_names_that_papers_print() -> None:
    names = {"mae": "MAE", "acc7": "Acc-7", "acc2_has0": "Acc-2 (has0)", "f1_non0_swapped": "F1 (non0, swapped)"}
    names |= {"corr_sims": "Corr (SIMS)", "recall_macro": "Recall (macro)", "mine_7": "mine_7"}
    assert {name: printed(name) for name in names} == names
    assert len({printed(name) for name in METRICS}) == len(METRICS)


def test_a_dot_per_seed_and_a_mean_with_its_interval(add_run: AddRun, outputs: Path) -> None:
    for seed, mae in ((1, 0.7), (2, 0.8), (3, 0.9)):
        add_run(mae, seed)
    add_run(0.6, 1, ("fusion=lmf",))
    groups = by_configuration(read_runs(outputs).runs)
    figure = draw_scores(groups, ["mae", "acc7"], percent=True)
    first, second = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["MAE ↓", "Acc-7 % ↑"]
    assert sorted(points(first, "o")) == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert sorted(points(first, "|")) == pytest.approx([0.6, 0.8])
    interval = Interval.of([0.7, 0.8, 0.9])
    spans = [line.get_xdata() for line in first.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]  # type: ignore[arg-type]
    assert np.array(spans) == pytest.approx(np.array([[interval.low, interval.high]]))
    assert not points(second, "|") and [text.get_text() for text in second.texts] == ["–", "–"]  # nobody has it
    assert "(3 runs)" in texts(figure) and "(1 run)" in texts(figure) and "95 % interval" in texts(figure)


def test_the_interval_of_two_seeds_does_not_hide_the_others(add_run: AddRun, outputs: Path) -> None:
    for seed in (1, 2):
        add_run(0.70 + seed / 100, seed)
        add_run(0.75, seed, ("fusion=lmf",))
    panel, *_ = draw_scores(by_configuration(read_runs(outputs).runs), ["mae"]).axes
    low, high = panel.get_xlim()
    assert 0.67 < low < 0.71 and 0.75 < high < 0.79  # the interval reaches from 0.65 to 0.78


def test_a_forest_shows_which_side_is_better_and_what_is_marked() -> None:
    found = [difference("a", "mae", -0.1, 0.05, 0.01), difference("b", "mae", 0.1, 0.2, 0.6)]
    found += [difference("a", "acc7", math.nan, math.nan, math.nan), difference("b", "acc7", 0.02, 0.1, 1.0)]
    figure = draw_differences(found, percent=True, heading=["cmu_mosi"])
    mae, acc7 = figure.axes
    (better,), (worse,) = ([line for line in mae.lines if line.get_marker() == sign] for sign in "os")
    assert (better.get_color(), better.get_markerfacecolor(), *better.get_xdata()) == (BLUE, BLUE, -0.1)  # type: ignore[misc]
    assert (worse.get_color(), worse.get_markerfacecolor(), *worse.get_xdata()) == (ORANGE, "white", 0.1)  # type: ignore[misc]
    assert points(acc7, "o") == pytest.approx([2.0]) and [text.get_text() for text in acc7.texts] == ["–"]
    low, high = mae.get_xlim()
    assert low < -0.15 and high > 0.1
    assert "each row minus base" in texts(figure) and "cmu_mosi" in texts(figure)
    every = draw_differences([*found[:2], replace(found[0], reference="a", row="b")])
    assert "b − a" in texts(every) and "each row minus another" in texts(every)


def test_the_figures_of_each_table_stand_in_a_folder(
    add_run: AddRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        add_run(0.7 + seed / 50, seed, ("name=$\\frac$ <b> 今天",))
        add_run(math.nan if seed == 1 else 0.6, seed, ("fusion=lmf",))
    add_run(0.5, 1, dataset="cmu_mosei")
    folder = tmp_path / "paper" / "figures"
    shown = ["report", "--outputs", str(tmp_path / "outputs"), "--format", "csv", "--metrics", "mae"]
    shown += ["--reference", "fusion=lmf"]
    command(shown)
    table = capsys.readouterr().out
    command([*shown, "--figures", str(folder)])
    said = capsys.readouterr()
    kinds = ("pdf", "png", "svg")
    named = {f"{name}.{kind}" for name in ("scores", "scores_2", "differences") for kind in kinds}
    assert {path.name for path in folder.iterdir()} == named and all(name in said.err for name in named)
    assert said.out == table  # which may be read by a program
    (folder / "file").touch()
    with pytest.raises(ConfigError, match=r"--figures .*file is a file, a folder is needed"):
        command([*shown, "--figures", str(folder / "file")])


@pytest.mark.parametrize("rows", [1, 20])
def test_no_label_is_cut_and_none_lies_on_another(rows: int, add_run: AddRun, outputs: Path) -> None:
    for number in range(rows):
        options = [f"{key}={number}" for key in ("optimizer.lr", "encoder.text.layers", "encoder.audio.dropout")]
        add_run(0.5 + number / 100, 1, tuple(options))
    figure = draw_scores(by_configuration(read_runs(outputs).runs), ["mae", "corr"])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == rows and all(box.x0 >= 0 for box in boxes)
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))
