"""The figures of a study."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.visualization.matplotlib import plot_parallel_coordinate

from mmsa.sweep.figures import visible_range, write_study_figures
from tests.sweep.studies import TWO, new_study, realistic_study, study_of, trial


def test_a_study_has_its_figures(tmp_path: Path) -> None:
    written = write_study_figures(realistic_study(planted=True), tmp_path / "figures")
    assert {path.name for path in written} == {
        "history.png", "importances.png", "parallel_coordinates.png", "curves.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 10_000 for path in written)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[optuna.Study], dict[str, Figure]]:
    """Draws a study: name of the file -> its figure."""

    def draw(study: optuna.Study) -> dict[str, Figure]:
        kept: dict[str, Figure] = {}
        monkeypatch.setattr(
            Figure,
            "savefig",
            lambda figure, path, **options: kept.update({Path(path.name).name.split(".", 2)[1] + ".png": figure}),
        )
        write_study_figures(study, tmp_path)
        return kept

    return draw


def test_every_figure_says_that_the_data_are_planted_or_where_they_come_from(
    drawn: Callable[[optuna.Study], dict[str, Figure]],
) -> None:
    for planted, source, ending in ((True, None, "\n(planted data)"), (False, "x.pkl", "\n(x.pkl)"), (False, None, "")):
        figures = drawn(realistic_study(planted=planted, source=source, study="a$b^$", **TWO))
        assert len(figures) == 7
        assert {figure.axes[0].get_title() for figure in figures.values()} == {f"study a$b^$, cmu_mosi{ending}"}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_each_axis_of_the_parallel_coordinates_has_its_own_name(
    drawn: Callable[[optuna.Study], dict[str, Figure]],
) -> None:
    study = realistic_study()
    panel = drawn(study)["parallel_coordinates.png"].axes[0]
    names = [label.get_text() for label in panel.get_xticklabels()]
    assert names == ["valid/mae ↓", "encoder.text.dropout", "feedback", "hidden_dim", "optimizer.lr"]
    cut = [label.get_text().rstrip(".") for label in plot_parallel_coordinate(study).get_xticklabels()]
    pyplot.close()
    assert all(name.startswith(short) for name, short in zip(names[1:], cut[1:], strict=True))


def test_one_diverged_trial_does_not_flatten_the_figures(drawn: Callable[[optuna.Study], dict[str, Figure]]) -> None:
    study = realistic_study()
    study.add_trial(trial([900.0], params=dict(study.trials[0].params), curve=[900.0, 901.0]))
    figures = drawn(study)
    for name in ("history.png", "parallel_coordinates.png", "curves.png"):
        assert figures[name].axes[0].get_ylim()[1] < 2.0


def test_two_objectives_have_their_front(tmp_path: Path) -> None:
    assert {path.name for path in write_study_figures(realistic_study(**TWO), tmp_path)} == {
        "history.png", "history_2.png", "importances.png", "importances_2.png", "parallel_coordinates.png",
        "curves.png", "pareto_front.png",
    }  # fmt: skip


def test_what_cannot_be_drawn_yet_is_left_out(tmp_path: Path) -> None:
    assert write_study_figures(new_study(), tmp_path) == []
    assert write_study_figures(study_of(trial([0.7]), trial(state="running")), tmp_path) == []
    one = {"optimizer.lr": 0.01}
    equal = study_of(*(trial([0.7], params=one, curve=[0.9]) for _ in range(12)))
    assert [path.name for path in write_study_figures(equal, tmp_path)] == ["history.png"]


def test_a_figure_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("optuna.visualization.matplotlib.plot_parallel_coordinate", fail)
    (tmp_path / "history.png").mkdir()
    names = {path.name for path in write_study_figures(realistic_study(), tmp_path)}
    assert names == {"importances.png", "curves.png"}


def test_pyplot_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna.visualization.matplotlib.plot_pareto_front", _fail_with_a_figure)
    pyplot.rcdefaults()
    pyplot.switch_backend("svg")
    mine = pyplot.figure().number
    before = dict(pyplot.rcParams)
    written = {path.name for path in write_study_figures(realistic_study(**TWO), tmp_path)}
    assert "importances.png" in written  # for which Optuna needs another backend
    assert pyplot.get_fignums() == [mine] and dict(pyplot.rcParams) == before
    pyplot.close()
    pyplot.switch_backend("agg")


def _fail_with_a_figure(*arguments: Any, **options: Any) -> None:
    pyplot.figure()
    raise RuntimeError("no font")


def test_a_parameter_that_only_some_trials_have_is_drawn(tmp_path: Path) -> None:
    some = [
        trial([0.7 + n / 100], params={"optimizer.lr": 0.01, **({"hidden_dim": 20} if n % 2 else {})})
        for n in range(12)
    ]
    assert "parallel_coordinates.png" in {path.name for path in write_study_figures(study_of(*some), tmp_path)}


def test_one_diverged_trial_does_not_flatten_the_others() -> None:
    assert visible_range([0.6, 0.7, 0.8, 900.0], "min") == (0.6, 0.8)
    assert visible_range([0.6, 0.5, 0.4, -900.0], "max") == (0.4, 0.6)
    assert visible_range([0.6, 0.6, 0.6], "min") == (0.6, 0.6)
    assert visible_range([0.6, math.nan], "min") == (0.6, 0.6)
