"""What no train utterance has is never read through weights that have not learned of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsa
from mmsa import build
from mmsa.compose import compose
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Prepared, Store, write_store
from mmsa.errors import DataError
from mmsa.training.classification import Classification
from tests.data.test_word_pieces import Characters

pytestmark = pytest.mark.usefixtures("undrawn")
Arrays = dict[str, Any]
NUM = 36
TRAIN = np.arange(NUM) < NUM // 3


def arrays() -> Arrays:
    """36 utterances of three modalities, twelve in each fold, two steps each; words for text."""
    rng = np.random.default_rng(0)
    content: Arrays = {f"features/{m}": rng.normal(size=(NUM, 2, 3)) for m in ("text", "audio", "visual")}
    content |= {f"lengths/{m}": np.full(NUM, 2) for m in ("text", "audio", "visual")}
    content |= {"words": np.array(["good", "film"] * NUM), "offsets/words": 2 * np.arange(NUM + 1)}
    return content | {
        "fold": np.repeat(FOLDS, NUM // 3),
        "id": np.array([f"v{row}_1" for row in range(NUM)]),
        "target": rng.uniform(-1, 1, NUM),
    }


def take(content: Arrays, modality: str, rows: np.ndarray) -> None:
    content[f"lengths/{modality}"][rows] = 0


def silence(content: Arrays, modality: str, rows: np.ndarray) -> None:
    content[f"features/{modality}"][rows] = 0.0


def overrides(folder: Path, content: Arrays, *more: str) -> list[str]:
    np.savez(folder / "own.npz", **content)
    source = [f"dataset.source={folder / 'own.npz'}", f"paths.data={folder}", f"paths.outputs={folder / 'outputs'}"]
    return ["dataset=custom", *source, "dataset.kind=sentiment", "tracking=none", "device=cpu", "hidden_dim=4", *more]


@pytest.mark.parametrize("spoil", [take, silence])
def test_a_run_that_could_not_learn_a_modality_is_refused_with_the_line_that_trains(
    tmp_path: Path, spoil: Callable[[Arrays, str, np.ndarray], None]
) -> None:
    content = arrays()
    spoil(content, "text", TRAIN)
    asked = overrides(tmp_path, content, "trainer.max_epochs=1")
    with pytest.raises(DataError, match=r"no train utterance of .* has text") as refused:
        mmsa.run(asked, quiet=True)
    assert not (tmp_path / "outputs" / "runs").exists()
    typed = str(refused.value).rpartition("type ")[2]
    assert typed == "dataset.modalities=[audio,visual]"
    result = mmsa.run([*asked, typed], quiet=True)
    mmsa.load(result.folder).evaluate("test")


@pytest.mark.parametrize("rows", [TRAIN & (np.arange(NUM) != 1), ~TRAIN])
def test_one_train_utterance_is_enough(tmp_path: Path, rows: np.ndarray) -> None:
    content = arrays()
    take(content, "text", rows)
    _, data = build.open_data(compose(overrides(tmp_path, content)))
    assert data.lacking("train") == []
    assert data.lacking("valid") == (["text"] if rows[-1] else [])


def test_what_is_looked_at_is_what_is_read(tmp_path: Path) -> None:
    """Steps beyond `max_length` are not there, and words are where an encoder reads words, or trains their vectors."""
    steps = {m: [np.zeros((3, 2), np.float32) for _ in FOLDS] for m in ("text", "audio")}
    for sequence in steps["audio"]:
        sequence[2] = 1.0
    prepared = Prepared(
        ids=["a[0]", "b[0]", "c[0]"],
        videos=["a", "b", "c"],
        folds=list(FOLDS),
        targets={"sentiment": np.zeros(3, np.float32)},
        features={m: Ragged.join(sequences) for m, sequences in steps.items()},
        words=[["sp", "so", "good"], ["sp"] * 3, ["well"] * 3],
    )
    write_store(tmp_path / "s.h5", prepared, dataset="tiny", sources={}, options={})
    store = Store.open(tmp_path / "s.h5")
    both = ("text", "audio")
    assert Data(store, both).lacking("train") == ["text"]
    assert Data(store, both, Loading(max_length=2)).lacking("train") == ["text", "audio"]
    assert Data(store, both, Loading(word_vectors="trained")).lacking("train") == []
    pieces = {"text": Characters()}
    assert Data(store, both, tokenizers=pieces).lacking("train") == []
    assert Data(store, both, Loading(max_length=1), pieces).lacking("train") == ["text", "audio"]
    assert Data(store, both, tokenizers=pieces).lacking("valid") == ["text"]


@pytest.mark.parametrize("normalize", ["train", "none"])
def test_a_column_that_is_constant_on_the_train_fold_is_zero_once_standardised(tmp_path: Path, normalize: str) -> None:
    content = arrays()
    content["features/audio"][TRAIN, :, 1] = 2.0
    _, data = build.open_data(compose(overrides(tmp_path, content, f"dataset.normalize={normalize}")))
    read = data.fold("test").batch(np.arange(3)).features["audio"][..., 1]
    assert bool((read == 0).all()) == (normalize == "train")


def test_a_class_that_the_train_fold_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = arrays()
    content["target"][TRAIN] = -abs(content["target"][TRAIN])
    asked = overrides(tmp_path, content, "trainer.max_epochs=1", "task=classification", "task.thresholds=[-2,0]")
    mmsa.run(asked)
    said = "no train utterance is of class 0 (below -2), class 2 (from 0 up): "
    assert said in capsys.readouterr().out
    emotions = Classification(target="emotions")
    felt = np.eye(6, dtype=np.float32)[:5]
    assert emotions.unlearnt({"emotions": felt}) == ["fear"]
