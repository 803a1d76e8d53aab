"""What a user is promised: the joint model finds what no modality holds alone, and real input trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mmsa
from mmsa.dataset.synthetic import best_reachable_mae

BEST = best_reachable_mae()["test"]


def test_mae(*overrides: str) -> float:
    return mmsa.run(overrides, quiet=True).metrics["test/mae"]


test_mae.__test__ = False  # type: ignore[attr-defined]


def closed_share(base: list[str], *modalities: str) -> float:
    """How much of the way from the best of these single modalities to the best reachable error the joint model goes."""
    single = min(test_mae(*base, "fusion=concat", f"dataset.modalities=[{m}]") for m in modalities)
    return (single - test_mae(*base)) / (single - BEST)


def base_of(small: list[str]) -> list[str]:
    return [override for override in small if not override.startswith(("hidden_dim", "trainer"))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_joint_model_closes_half_of_the_distance_with_the_defaults(
    small: list[str], whole_corpus: Path, seed: int
) -> None:
    assert (
        closed_share([*base_of(small), f"paths.data={whole_corpus}", f"seed={seed}"], "text", "audio", "visual") >= 0.5
    )


def record_of(result: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((result.folder / "result.json").read_text())
    return record


def test_computational_sequences_train(small: list[str], csd_folder: Path) -> None:
    data = ["dataset=cmu_mosi", f"dataset.source={csd_folder}", "fusion=concat"]
    result = mmsa.run([*base_of(small), *data, "hidden_dim=32", "trainer.max_epochs=4"], quiet=True)
    record = record_of(result)
    assert record["data"]["utterances"] == {"train": 1283, "valid": 229, "test": 686}
    assert result.metrics["valid/mae"] < 0.85 * record["baselines"]["mean"]["valid/mae"]


def test_mmsa_pickle_trains(small: list[str], mmsa_pickle: Path) -> None:
    data = ["dataset=cmu_mosi", f"dataset.source={mmsa_pickle}", "fusion=concat"]
    result = mmsa.run([*base_of(small), *data, "hidden_dim=32", "trainer.max_epochs=12"], quiet=True)
    record = record_of(result)
    assert record["data"]["utterances"] == {"train": 131, "valid": 53, "test": 45}
    assert result.metrics["valid/mae"] < 0.9 * record["baselines"]["mean"]["valid/mae"]
