"""What every task holds to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsa.build import build_task
from mmsa.errors import DataError
from tests.contracts.conftest import configuration


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
