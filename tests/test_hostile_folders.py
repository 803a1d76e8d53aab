"""Whatever is in a folder of configuration files: parts and values are taken, all else is refused in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmsa import build
from mmsa.compose import compose
from mmsa.config_folder import check_folders
from mmsa.values import check_values
from tests.fuzzing import spoil
from tests.test_hostile_results import YAML, answer

FILES = {
    "fusion/own.yaml": "_target_: mmsa.fusion.mlp.MlpFusion\nhidden_dim: 4\ndropout: 0.1\n",
    "experiment/own.yaml": "# @package _global_\ndefaults:\n- override /fusion: own\n- override /task: regression\n"
    "seed: 3\ntrainer:\n  max_epochs: 2\ndataset:\n  modalities: [text, audio]\n",
}


def enter(folder: Path) -> None:
    """What a command line that names the folder comes to, up to the data."""
    check_folders(["--config-dir", str(folder)])
    cfg = compose(["experiment=own"], [str(folder)])
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    check_values(values)
    build.check(cfg)


@pytest.mark.parametrize("count", [25, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_changed_folder_is_read_or_refused_in_a_few_lines(count: int, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert answer(tmp_path, lambda: enter(tmp_path)) == ""
    random, refused = np.random.default_rng(1), 0
    for number in range(count):
        path = tmp_path / list(FILES)[number % 2]
        whole = path.read_bytes()
        spoil(path, random, *YAML)
        refused += "error:" in answer(tmp_path, lambda: enter(tmp_path))
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    assert refused > count / 3


@pytest.mark.parametrize("key", ["1.5", "true", "null", "2020-01-01", "!!binary eA=="])
def test_a_key_that_is_no_text_is_no_option(key: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text.replace("max_epochs:", f"{key}:"))
    assert "error:" in answer(tmp_path, lambda: enter(tmp_path))
