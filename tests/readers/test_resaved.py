"""What other people's programs do to a file when they save it again changes nothing of what is read."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.prepare import silent
from mmsa.data.store import Prepared
from mmsa.errors import DataError
from mmsa.readers.families import ReadOptions, read_file
from tests.readers.test_families import MADE

ARRAYS = ("text", "audio", "vision", "text_bert")
LABELS = ("labels", "regression_labels")


def of_rows(values: Any) -> np.ndarray:
    """An array of objects, one per row."""
    rows = np.empty(len(values), dtype=object)
    for i, row in enumerate(values):
        rows[i] = row
    return rows


def changing(keys: tuple[str, ...], change: Callable[[Any], Any]) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
    """The change to these parts of every fold; MAG's folds have no parts."""

    def changed(content: dict[Any, Any]) -> dict[Any, Any]:
        return {
            fold: {key: change(value) if key in keys else value for key, value in part.items()}
            if isinstance(part, dict)
            else part
            for fold, part in content.items()
        }

    return changed


def renaming(names: dict[str, Any]) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
    def renamed(content: dict[Any, Any]) -> dict[Any, Any]:
        return {
            names.get(fold, fold): {names.get(key, key): value for key, value in part.items()}
            if isinstance(part, dict)
            else part
            for fold, part in content.items()
        }

    return renamed


KEYS = ("train", "valid", "dev", "test", "id", "raw_text", *ARRAYS, *LABELS)
RESAVED: dict[str, Callable[[dict[Any, Any]], dict[Any, Any]]] = {
    "dev": renaming({"valid": "dev"}),
    "val": renaming({"valid": "val", "dev": "val"}),
    "Validation": renaming({"valid": "Validation", "dev": "Validation", "train": "TRAIN"}),
    "keys of bytes": renaming({key: key.encode() for key in KEYS}),
    "other names": renaming({"vision": "visual", "audio": "acoustic"}),
    "another order": lambda content: dict(reversed(content.items())),
    "more at the top": lambda content: content | {"align": None, "mode": "x", "meta": {"train": 1}},
    "more in the folds": lambda content: {
        fold: part | {"path": None, "feature_names": ["a"], 5: 1} if isinstance(part, dict) else part
        for fold, part in content.items()
    },
    "float64": changing((*ARRAYS, *LABELS), lambda values: np.asarray(values, dtype=np.float64)),
    "big-endian": changing((*ARRAYS, *LABELS), lambda values: np.asarray(values, dtype=">f4")),
    "columns first": changing(ARRAYS, np.asfortranarray),
    "lists": changing((*ARRAYS, *LABELS, "id"), lambda values: np.asarray(values).tolist()),
    "arrays of arrays": changing((*ARRAYS, "raw_text"), of_rows),
    "labels of arrays": changing(LABELS, lambda values: of_rows([np.reshape(value, (1,)) for value in values])),
    "labels (N,)": changing(LABELS, np.ravel),
    "labels (N, 1)": changing(LABELS, lambda values: np.reshape(values, (-1, 1))),
    "labels (N, 1, 1)": changing(LABELS, lambda values: np.reshape(values, (-1, 1, 1))),
    "ids of bytes": changing(("id",), lambda ids: np.asarray(ids).astype("S")),
    "ids of objects": changing(("id",), lambda ids: np.asarray(ids).astype(object)),
    "ids in a tuple": changing(("id",), lambda ids: tuple(map(np.array, np.asarray(ids).tolist()))),
    "ids (N, 1)": changing(("id",), lambda ids: np.asarray(ids)[:, None]),
}


def read(folder: Path, content: object, protocol: int = 4) -> Prepared:
    path = folder / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return read_file(path, ReadOptions(), silent)


def assert_equal(prepared: Prepared, plain: Prepared) -> None:
    assert (prepared.ids, prepared.folds, prepared.words) == (plain.ids, plain.folds, plain.words)
    assert {name: target.tolist() for name, target in prepared.targets.items()} == {
        name: target.tolist() for name, target in plain.targets.items()
    }
    assert list(prepared.features) == list(plain.features)
    for modality, ragged in plain.features.items():
        assert prepared.features[modality].values.dtype == np.dtype(np.float32)
        np.testing.assert_array_equal(prepared.features[modality].values, ragged.values)
        np.testing.assert_array_equal(prepared.features[modality].offsets, ragged.offsets)


@pytest.mark.parametrize("how", RESAVED)
@pytest.mark.parametrize("family", MADE)
def test_the_same_is_read(family: str, how: str, tmp_path: Path) -> None:
    plain = read(tmp_path, MADE[family][0]())
    assert_equal(read(tmp_path, RESAVED[how](MADE[family][0]())), plain)


@pytest.mark.parametrize("protocol", range(6))
def test_the_same_is_read_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    for make, _ in MADE.values():
        assert_equal(read(tmp_path, make(), protocol), read(tmp_path, make()))


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ({"valid": None}, "one object of type NoneType"),
        ({"valid": {}}, "an empty dict"),
        ({"train": [((1, 2, 3, 4), (1, 2, 3, 4), 7, 1)]}, "a list of 1 tuple"),  # HKT's
    ],
)
def test_folds_of_no_known_layout_are_described(folds: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no known layout: its folds are .*{said}.* of MAG lists") as refused:
        read(tmp_path, MADE["MMSA aligned"][0]() | folds)
    assert len(str(refused.value)) < 600
