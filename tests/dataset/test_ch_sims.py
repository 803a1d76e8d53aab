"""CH-SIMS: MMSA's unaligned pickle with a label per modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsa
from mmsa.data.store import FOLDS
from mmsa.dataset.ch_sims import ChSims
from mmsa.errors import DataError
from tests.readers.pickles import filled, padded, write

SIMS = {"mae_sims", "corr_sims", "acc5_sims", "acc3_sims", "acc2_neg0", "f1_neg0"}
LABELS = np.array([-1.0, -0.4, 0.0, 0.6], dtype=np.float32)


def unaligned_39(labels: np.ndarray = LABELS) -> dict[str, dict[str, Any]]:
    """Four clips per fold, whose labels per modality are those of the clip, less 0, 0.1 and 0.2 of it."""
    count, rng = len(labels), np.random.default_rng(0)
    content: dict[str, dict[str, Any]] = {}
    for fold in FOLDS:
        audio, vision = rng.integers(1, 40, count), rng.integers(1, 9, count)
        mask = np.arange(39) < np.arange(3, 3 + count)[:, None]
        content[fold] = {
            "raw_text": ["我不知道"] * count,
            "id": [f"video_{fold}$_$000{k}" for k in range(count)],
            "text": padded([filled(39, 8)] * count, 39, "right"),
            "text_bert": np.stack([np.full((count, 39), 7), mask, np.zeros((count, 39))], axis=1),
            "audio": padded([filled(steps, 5) for steps in audio], 40, "right"),
            "vision": padded([filled(steps, 6) for steps in vision], 9, "right"),
            "audio_lengths": audio.tolist(),
            "vision_lengths": vision.tolist(),
            "regression_labels": labels,
            "classification_labels": np.zeros(count),
        }
        content[fold] |= {f"regression_labels_{m}": labels * (1 - 0.1 * k) for k, m in enumerate("TAV")}
    return content


def test_every_label_and_the_steps_of_every_modality_are_read(tmp_path: Path) -> None:
    content = unaligned_39()
    store = ChSims(str(write(tmp_path / "unaligned_39.pkl", content))).prepare(tmp_path / "stores", progress=False)
    assert set(store.targets) == set(ChSims.kinds)
    np.testing.assert_array_equal(store.targets["sentiment"], np.tile(LABELS, 3))
    np.testing.assert_allclose(store.targets["sentiment_visual"], np.tile(LABELS * 0.8, 3), rtol=1e-6)
    for modality, key in (("audio", "audio_lengths"), ("visual", "vision_lengths")):
        assert store.features[modality].lengths.tolist() == [n for fold in FOLDS for n in content[fold][key]]
    assert store.features["text"].lengths.tolist() == [3, 4, 5, 6] * 3
    assert store.report["beyond_nominal"]["count"] == 0
    assert ChSims().prepare(tmp_path / "stores", progress=False).path == store.path


def test_the_metrics_are_those_of_ch_sims_for_every_label(tmp_path: Path, small: list[str]) -> None:
    source = write(tmp_path / "unaligned_39.pkl", unaligned_39())
    run = [*small, "dataset=ch_sims", f"dataset.source={source}", "fusion=concat", "trainer.max_epochs=1"]
    run.append("dataset.doctor=warn")  # its few rows are alike
    for target in ("null", "sentiment_audio"):
        metrics = mmsa.run([*run, "task=regression", f"task.target={target}"], quiet=True).metrics
        assert {f"test/{name}" for name in SIMS} <= set(metrics)
        assert "test/acc7" not in metrics
    found = mmsa.run([*run, "task=classification"], quiet=True)
    assert set(found.predictions["test"].values()) <= {0.0, 1.0, 2.0}


def test_labels_of_another_scale_and_folders_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "aligned_50.pkl", unaligned_39(LABELS * 3))
    with pytest.raises(DataError, match=r"labels lie outside \[-1, 1\], the bound of CH-SIMS"):
        ChSims(str(path)).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match=r"without a known file. Did you mean dataset.source=.*aligned_50.pkl"):
        ChSims(str(tmp_path)).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match="Type: mmsa prepare ch_sims --source FILE"):
        ChSims().prepare(tmp_path / "stores")
