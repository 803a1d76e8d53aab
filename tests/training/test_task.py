"""What every task holds to."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mmsa.build import build_task
from mmsa.errors import DataError
from mmsa.training.regression import Regression
from tests.contracts.conftest import configuration


@pytest.mark.parametrize("asked", ["sentiment", "moods", "traits", "emotions", "absent"])
@pytest.mark.parametrize("held", [["moods"], ["traits"], ["traits", "moods"], ["traits", "age"], ["emotions", "age"]])
def test_what_to_type_instead_of_a_target_is_there_and_fits(asked: str, held: list[str]) -> None:
    shapes = {"moods": (4, 6), "traits": (4, 17), "age": (4,), "emotions": (4, 7)}
    targets = {name: np.zeros(shapes[name], np.float32) for name in held}
    for kind in ("number", "emotions", "auto"):
        if asked in held and (kind, asked) == ("emotions", "moods"):
            continue
        with pytest.raises(DataError) as refused:
            Regression(target=asked, kind=kind).truths(targets)  # type: ignore[arg-type]
        advice = str(refused.value).splitlines()[-1]
        typed = dict(re.findall(r"task\.(target|kind)=(\w+)", advice))
        if typed:
            again = {"target": asked, "kind": kind if "target" not in typed else "auto"} | typed
            assert len(Regression(**again).truths(targets)) == 4  # type: ignore[arg-type]
        else:
            assert "write each column into the source" in advice and not {"age", "moods"} & set(held)


def test_predictions_and_labels_never_broadcast() -> None:
    """(B, 1) against (B,) or (B, 7) would silently compare everything with everything."""
    task = build_task(configuration("task.loss=mse"))
    output, truth = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0])
    assert task.primary_loss(output, truth) == pytest.approx(1 / 3)
    assert task.decide(output[:1]).shape == (1,)
    emotions = build_task(configuration("task.target=emotions"))
    with pytest.raises(DataError, match="7 columns"):
        emotions.truths({"emotions": np.zeros((3, 7), np.float32)})
    with pytest.raises(ValueError, match=r"\(N,\)"):
        task.metrics(np.zeros((3, 1)), np.zeros(3))
