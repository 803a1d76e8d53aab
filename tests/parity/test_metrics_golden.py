"""Golden metric vectors: what the published evaluation code prints for the same predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsa.training.metrics import classification_metrics, regression_metrics
from mmsa.training.sims_metrics import sims_metrics

GOLDEN = {"metrics": {"label_step"}}
pytestmark = pytest.mark.golden("metrics")

# key of the reference -> our name; what the references leave open is in the names
MMLATCH = {
    "mae": "mae", "corr": "corr", "acc_7": "acc7", "acc_5": "acc5",
    "bin_acc_pos": "acc2_has0", "f1_pos": "f1_has0_swapped",
    "bin_acc_neg": "acc2_neg0", "f1_neg": "f1_neg0_swapped",
    "bin_acc": "acc2_non0", "f1": "f1_non0_swapped",
}  # fmt: skip
OLDER = {"mae": "mae", "corr": "corr", "acc_7": "acc7", "acc_5": "acc5"}
OLDER_KEEP = {**OLDER, "f1": "f1_has0_swapped", "f1_neg": "f1_neg0_swapped", "bin_acc_neg": "acc2_neg0"}
OLDER_EXCLUDE = {**OLDER, "f1": "f1_non0_geq_swapped", "f1_neg": "f1_non0_swapped", "bin_acc_neg": "acc2_non0"}
MISA = {
    "mae": "mae", "corr": "corr", "mult_a7": "acc7", "mult_a5": "acc5", "f_score": "f1_non0_swapped",
    "accuracy (pos/neg)": "acc2_non0", "accuracy (non-neg/neg)": "acc2_has0", "returned": "acc2_has0",
}  # fmt: skip
MMSA = {
    "MAE": "mae", "Corr": "corr", "Mult_acc_7": "acc7", "Mult_acc_5": "acc5",
    "Has0_acc_2": "acc2_has0", "Has0_F1_score": "f1_has0", "Non0_acc_2": "acc2_non0", "Non0_F1_score": "f1_non0",
}  # fmt: skip
SIMS = {
    "MAE": "mae_sims", "Corr": "corr_sims", "Mult_acc_2": "acc2_neg0", "F1_score": "f1_neg0",
    "Mult_acc_3": "acc3_sims", "Mult_acc_5": "acc5_sims",
}  # fmt: skip
ROUNDED = 0.5e-4  # this reference rounds to 4 decimals
REFERENCES = {
    "eval_mosei_senti": (MMLATCH, 0.0),
    "eval_mosei_senti_old_keep": (OLDER_KEEP, 0.0),
    "eval_mosei_senti_old_exclude": (OLDER_EXCLUDE, 0.0),
    "misa": (MISA, 0.0),
    "mmsa_mosi_regression": (MMSA, ROUNDED),
    "mmsa_mosei_regression": (MMSA, ROUNDED),
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_regression_metrics_equal_the_reference(golden_file: Path, reference: str) -> None:
    with np.load(golden_file, allow_pickle=False) as golden:
        if f"metric/{reference}" not in golden:
            pytest.skip(f"{golden_file.name} does not hold {reference}")
        ours = regression_metrics(golden["input/pred"], golden["input/target"])
        expected = json.loads(str(golden[f"metric/{reference}"]))
    names, rounding = REFERENCES[reference]
    assert set(expected) == set(names)
    for key, name in names.items():
        assert ours[name] == pytest.approx(expected[key], rel=0, abs=rounding + 1e-6, nan_ok=True), (key, name)


def test_sims_metrics_equal_mmsa(golden_file: Path) -> None:
    with np.load(golden_file, allow_pickle=False) as golden:
        ours = sims_metrics(golden["input/sims_pred"], golden["input/sims_target"])
        expected = json.loads(str(golden["metric/mmsa_sims_regression"]))
    assert set(expected) == set(SIMS)
    for key, name in SIMS.items():
        assert ours[name] == pytest.approx(expected[key], rel=0, abs=ROUNDED + 1e-6), (key, name)


@pytest.mark.parametrize("reference", ["mmsa_mosi_classification", "mmsa_sims_classification"])
def test_three_classes_equal_mmsa(golden_file: Path, reference: str) -> None:
    with np.load(golden_file, allow_pickle=False) as golden:
        scores, target = golden["input/cls_logits"], golden["input/cls_target"]
        expected = json.loads(str(golden[f"metric/{reference}"]))
    polar = target != 1
    outer = scores[:, 2] > scores[:, 0]  # its two classes are those of the outer scores, and neutral has none
    found = {
        ("Acc_3", "F1_score_3"): (scores, target),
        ("Has0_acc_2", "Has0_F1_score"): (outer, target == 2),
        ("Non0_acc_2", "Non0_F1_score"): (outer[polar], target[polar]),  # 1 never equals 2: no positive is ever right
    }
    assert {key for pair in found for key in pair} == set(expected)
    for (accuracy, f1), (predicted, truth) in found.items():
        ours = classification_metrics(_classes(predicted), truth.astype(np.int64))
        assert ours["accuracy"] == pytest.approx(expected[accuracy], rel=0, abs=ROUNDED + 1e-6), accuracy
        assert ours["f1_weighted"] == pytest.approx(expected[f1], rel=0, abs=ROUNDED + 1e-6), f1


def _classes(predicted: NDArray[np.generic]) -> NDArray[np.generic]:
    return predicted.astype(np.int64) if predicted.dtype == np.bool_ else predicted


def test_every_golden_metric_is_compared(golden_file: Path) -> None:
    with np.load(golden_file, allow_pickle=False) as golden:
        held = {name.removeprefix("metric/") for name in golden if name.startswith("metric/")}
    classification = {"mmsa_mosi_classification", "mmsa_sims_classification", "misa_ur_funny"}
    assert held == {*REFERENCES, *classification, "mmsa_sims_regression"}


def test_two_class_accuracy_equals_misa(golden_file: Path) -> None:
    with np.load(golden_file, allow_pickle=False) as golden:
        ours = classification_metrics(golden["input/funny_logits"], golden["input/funny_target"])
        expected = json.loads(str(golden["metric/misa_ur_funny"]))
    assert ours["accuracy"] == pytest.approx(expected["returned"], rel=0, abs=1e-6)
