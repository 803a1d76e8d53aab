"""M3's masking against the expected statistics of the reference: five standard errors of our own number of calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsa.regularizer.m3 import M3
from tests.parity.reference import Golden

GOLDEN = {"masking statistics": {"cases", "columns"}}
NUM_CALLS = 4000


def measured(case: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Per call of a masking layer in training on ones: the value of every column."""
    num = case["n"]
    names = [f"m{index}" for index in range(num)]
    generator = torch.Generator().manual_seed(0)
    layer = M3(
        names, generator, p=case["p"], mode=case["mode"], per_step=case["sequential"], probabilities=case["p_mod"]
    ).train()
    ones = {name: torch.ones(shape) for name in names}
    kept = np.stack(
        [torch.stack(list(layer("encoded", ones).values())).numpy() for _ in range(NUM_CALLS)]
    )  # (calls, M, B, T, D)
    touched = (kept == 0).any(axis=(1, 2, 3, 4))
    cells = (kept == 0).all(axis=-1)  # (calls, M, B, T)
    columns = {
        "untouched_call": (~touched).astype(float),
        "whole_sample_sequence_masked_any": cells.all(axis=-1).any(axis=1).mean(axis=-1),
    }
    for index in range(num):
        columns[f"cell_masked_m{index}"] = cells[:, index].mean(axis=(-1, -2))
        columns[f"elem_zero_m{index}"] = (kept[:, index] == 0).mean(axis=(-1, -2, -3))
    hit = (kept[touched] == 0).any(axis=(2, 3, 4))  # (touched calls, M)
    columns["all_batch_same_modality_given_touched"] = (hit.sum(axis=1) == 1).astype(float)
    if case["mode"] == "hard":
        lost = cells[touched].argmax(axis=1)  # (touched calls, B, T) the modality that each cell lost
        columns |= {
            "masked_modalities_per_cell_given_touched": cells[touched].sum(axis=1).mean(axis=(-1, -2)),
            "same_modality_next_timestep_given_touched": (lost[:, :, 1:] == lost[:, :, :-1]).mean(axis=(-1, -2)),
            "same_modality_next_sample_given_touched": (lost[:, 1:] == lost[:, :-1]).mean(axis=(-1, -2)),
            "all_batch_same_modality_given_touched": (lost == lost[:, :1, :1]).all(axis=(-1, -2)).astype(float),
        }
    return columns


@pytest.mark.golden("masking statistics")
def test_masking_statistics(golden_file: Path) -> None:
    golden = Golden(golden_file)
    config = golden.config
    for case, expected in zip(config["cases"], golden["stat/expected"].tolist(), strict=True):
        columns = measured(case, (config["B"], config["T"], config["D"]))
        for column, value in zip(config["columns"], expected, strict=True):
            if np.isnan(value):
                continue
            calls = columns[column]
            error = max(calls.std(), np.sqrt(max(value * (1 - value), 0.0))) / np.sqrt(len(calls))
            assert abs(calls.mean() - value) <= 5 * error + 1e-7, (case, column, calls.mean(), value)


@pytest.mark.golden("masking statistics")
def test_legacy_rescaling_acts_at_evaluation_too(golden_file: Path) -> None:
    golden = Golden(golden_file)
    for num, row in zip((3, 7), golden["stat/eval_scale"].tolist(), strict=True):
        for p, scale in zip(golden["stat/eval_scale_p"].tolist(), row, strict=True):
            names = [f"m{index}" for index in range(num)]
            layer = M3(names, torch.Generator(), p=p, rescale="legacy").eval()
            for stream in layer("encoded", {name: torch.ones(2, 3, 4) for name in names}).values():
                torch.testing.assert_close(stream, torch.full((2, 3, 4), scale), rtol=1e-6, atol=0)
