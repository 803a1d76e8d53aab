from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.records import record

DEFAULTS = ["feedback=none", "optimizer.lr=0.001", "trainer.max_epochs=20", "dataset.modalities=[text,audio]"]
DEFAULTS += ["encoder.default.layers=1", "encoder.text.layers=1", "encoder.audio.layers=1", "encoder.visual.layers=1"]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def add_run(outputs: Path) -> Callable[..., Path]:
    """Write the folder of a finished run: `mae` on the test fold, its seed, its overrides, and what else is given.

    Its configuration is the defaults, then the overrides, then `edited`, which was not typed.
    """

    def add(
        mae: float, seed: int = 1, overrides: tuple[str, ...] = (), edited: tuple[str, ...] = (), **changed: Any
    ) -> Path:
        number = len(list((outputs / "runs").iterdir())) if (outputs / "runs").exists() else 0
        folder = outputs / "runs" / f"20260101-{number:06}_run"
        folder.mkdir(parents=True)
        known = {
            "seed": seed,
            "overrides": [*overrides, f"seed={seed}"],
            "metrics": {"test/mae": mae, "test/corr": 1 - mae, "valid/mae": mae + 1, "valid/corr": 0.5},
            "baselines": {
                "mean": {"test/mae": 1.4, "test/corr": None},
                "ridge joint": {"test/mae": 1.1, "test/corr": 0.2},
            },
        }
        config = OmegaConf.from_dotlist([*DEFAULTS, *overrides, *edited, f"seed={seed}", f"paths.outputs={folder}"])
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
        (folder / "result.json").write_text(json.dumps(record(**known).model_dump(mode="json") | changed))
        return folder

    return add


@pytest.fixture
def add_folds(add_run: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Write runs on own folds: `mae` of each (held-out part, seed), overrides, and what else is given of their data."""

    def add(
        mae: dict[tuple[int, int], float], overrides: tuple[str, ...] = (), num_folds: int = 5, **of_data: Any
    ) -> list[Path]:
        folders = []
        for (held_out, seed), value in mae.items():
            data = {"fingerprint": "aaaabbbbccccdddd", "store": "cmu_mosi-aaaa.h5", "parts": f"parts{num_folds}"}
            data |= {"num_folds": num_folds, "held_out": held_out, "utterances": {"train": 60, "valid": 20, "test": 20}}
            typed = (f"dataset.num_folds={num_folds}", f"dataset.held_out={held_out}", *overrides)
            of_fold = {"mean": {"test/mae": 1.0 + held_out}}
            folders.append(add_run(value, seed, typed, data=data | of_data, baselines=of_fold))
        return folders

    return add
