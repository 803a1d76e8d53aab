from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mmsa.errors import ConfigError, DataError
from mmsa.training.classification import Classification
from mmsa.training.kinds import KINDS
from mmsa.training.metrics import METRICS, regression_metrics
from mmsa.training.regression import Regression

STATED = {"sentiment": "sims", "humor": "binary", "emotions": "emotions"}


def logged(task: Any) -> set[str]:
    blank = np.zeros((2, 6) if task.meaning.columns else 2)
    return set(task.metrics(blank, blank))


def test_what_a_data_set_states_decides_unless_it_is_typed() -> None:
    assert Regression().kind == "sentiment" and Regression(target="age").kind == "number"
    assert Regression(kinds=STATED).kind == "sims"
    assert Regression(kinds=STATED, kind="sentiment").kind == "sentiment"
    assert [Regression(target=name).kind for name in ("emotions", "humor")] == ["emotions", "binary"]
    assert Classification(target="humor", kinds=STATED).kind == "binary"
    with pytest.raises(ConfigError, match=r"type task\.kind="):
        Regression(kinds={"sentiment": "mood"})


def test_a_sentiment_is_scored_as_ever() -> None:
    prediction, truth = np.array([0.2, -2.0, 3.5]), np.array([1.0, 0.0, 3.0])
    assert list(Regression().metrics(prediction, truth).items()) == list(regression_metrics(prediction, truth).items())
    assert "acc7" not in logged(Regression(kinds=STATED)) and "acc5_sims" in logged(Regression(kinds=STATED))
    assert logged(Regression(target="age")) == {"mae", "rmse", "corr"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [Regression, Classification])
def test_everything_shown_and_monitored_is_logged_and_described(make: Any, kind: str) -> None:
    cuts = {"thresholds": [0]} if make is Classification and kind == "number" else {}
    task = make(kind=kind, **cuts)
    assert {task.monitor, *task.shown} <= logged(task) <= set(METRICS)
    if make is Regression and task.levels:
        assert task.finest in logged(task)
        levels = np.array(task.levels)
        each = [task.metrics(np.full(len(levels), level), levels)[task.finest] for level in levels]
        assert each == pytest.approx([1 / len(levels)] * len(levels)), "one level in each of the finest classes"


def test_a_metric_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.monitor=acc7: .*sims(.|\n)*type task\.monitor=mae_sims"):
        Regression(kinds=STATED, monitor="acc7")
    with pytest.raises(ConfigError, match=r"type task\.monitor=f1_emotions"):
        Classification("emotions", kinds=STATED, monitor="f1_macro")
    assert Classification("emotions", kinds=STATED, monitor="wacc_emotions").mode == "max"


@pytest.mark.parametrize(
    ("kind", "values"),
    [("sims", [0.0, 1.2]), ("binary", [0, 1, 2]), ("binary", [-1, 1]), ("number", np.zeros((3, 6)))],
)
def test_labels_of_another_kind_are_refused(kind: Any, values: Any) -> None:
    with pytest.raises(DataError, match=r"\n  type task\."):
        Regression(kind=kind).truths({"sentiment": np.asarray(values, dtype=np.float32)})


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 6, 1)])
def test_emotions_are_six_columns(shape: tuple[int, ...]) -> None:
    task = Classification("emotions", kind="emotions")
    with pytest.raises(DataError, match=r"6 columns(.|\n)*\n  (type task\.|write each column)"):
        task.truths({"emotions": np.zeros(shape, np.float32)})
    with pytest.raises(DataError, match="no such target"):
        task.truths({"sentiment": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match="at least 0"):
        task.truths({"emotions": np.full((3, 6), -1, np.float32)})


def test_the_cuts_of_each_kind() -> None:
    def classes(values: list[float], **options: Any) -> list[int]:
        return Classification(**options).truths({"sentiment": np.array(values, dtype=np.float32)}).tolist()

    assert Regression().output_dim == 1 and Classification(kind="sims").output_dim == 3
    assert classes([-0.2, 0, 0.2]) == [0, 1, 1]
    assert classes([-0.2, 0, 0.2], kind="sims") == [0, 1, 2]
    assert classes([0, 1], kind="binary") == [0, 1]
    assert classes([0, 3, 7], kind="number", thresholds=[2, 5]) == [0, 1, 2]
    degrees = np.array([[0, 1 / 3, 3, 0, 0, 1]], dtype=np.float32)
    assert Classification("emotions").truths({"emotions": degrees}).tolist() == [[0, 1, 1, 0, 0, 1]]
    with pytest.raises(ConfigError, match=r"type for example task\.thresholds="):
        classes([0.0], kind="number")
    with pytest.raises(ConfigError, match=r"type task\.thresholds=null"):
        Classification("emotions", kind="emotions", thresholds=[1])
    with pytest.raises(ConfigError, match="increasing"):
        Classification(thresholds=[])


def test_two_classes_are_regressed_as_minus_one_and_one() -> None:
    task = Regression(target="humor", kinds=STATED)
    truths = task.truths({"humor": np.array([0, 1, 1], dtype=np.float32)})
    assert truths.tolist() == [-1, 1, 1]
    got = task.metrics(np.array([-0.3, 0.4, -2.0]), truths)
    assert got["acc2_non0"] == pytest.approx(2 / 3) and set(got) == {"mae", "rmse", "corr", "acc2_non0", "f1_non0"}


@pytest.mark.parametrize("make", [Regression, Classification])
def test_emotions_are_learnt_each_by_an_output_of_its_own(make: Any) -> None:
    torch.manual_seed(0)
    task = make("emotions", kinds=STATED)
    degrees = torch.relu(torch.randn(40, 6))
    truth = task.truth(degrees)
    head = task.head(6)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    assert head(degrees).shape == (40, 6) == truth.shape
    for _ in range(300):
        optimizer.zero_grad()
        task.primary_loss(head(degrees), truth).backward()
        optimizer.step()
    decided = task.decide(head(degrees)).detach().numpy()
    got = task.metrics(decided, truth.numpy())
    assert got["mae"] < 0.05 if make is Regression else got["accuracy"] > 0.9


def test_a_diverged_head_decides_on_no_emotion() -> None:
    task = Classification("emotions", kinds=STATED)
    decided = task.decide(torch.tensor([[math.nan, 1.0, -1.0, 0.0, 2.0, -3.0]]))
    np.testing.assert_array_equal(decided, [[math.nan, 1, 0, 0, 1, 0]])
