"""Reader of MMSA's pickles and those of MMSA-FET: {train, valid, test} -> padded arrays, aligned or each on its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.readers.ids import segment_ids
from mmsa.data.readers.padding import strip_padding, strip_together
from mmsa.data.readers.rows import Row, gather, numbers
from mmsa.data.store import FOLDS, Prepared, Ragged
from mmsa.errors import DataError

if TYPE_CHECKING:
    from mmsa.data.readers.families import ReadOptions

FAMILY = "MMSA"
_KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
_TARGETS = {
    "sentiment": "regression_labels",
    "sentiment_text": "regression_labels_T",
    "sentiment_audio": "regression_labels_A",
    "sentiment_visual": "regression_labels_V",
}
_OWN_KEYS = {"regression_labels", "classification_labels", "text_bert", "raw_text", "annotations"}
# Chinese has no spaces between words: each character stands for itself, as in BERT's own tokeniser.
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def matches(content: Any) -> bool:
    """Whether this is MMSA's layout: train, valid and test with keys that no other family has."""
    if not isinstance(content, dict) or not all(isinstance(content.get(fold), dict) for fold in FOLDS):
        return False
    return all(content[fold].keys() & _OWN_KEYS and "labels" not in content[fold] for fold in FOLDS)


def read(content: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read all of the pickle without its padding: of CMU-MOSI, CMU-MOSEI, CH-SIMS, one modality, or MMSA-FET.

    Steps of a modality: what `audio_lengths` and `vision_lengths` state; without either, and for text, the sum of the
    attention mask in `text_bert`; without that, whatever precedes or follows the steps that are not zero is padding,
    in an aligned file those that are zero in every modality. A length of 0 is an absent modality. CH-SIMS's labels per
    modality are the targets sentiment_text, sentiment_audio and sentiment_visual.

    Args:
        content: of which `matches`; its arrays are let go as they are read.
        options: modalities that have to be there; the others are read where every fold has them.
        progress: shown per fold.

    Raises:
        DataError: a key is missing, or the arrays do not fit together.
    """
    for fold in FOLDS:
        _check_keys(content[fold], fold, options.required)
    modalities = [m for m, key in _KEYS.items() if all(key in content[fold] for fold in FOLDS)]
    targets = [name for name, key in _TARGETS.items() if all(key in content[fold] for fold in FOLDS)]
    folds = []
    for fold in progress(FOLDS, "reading MMSA's pickle", len(FOLDS)):
        folds.append(_Fold(fold, content[fold], modalities, targets))
        content[fold] = {}  # CMU-MOSEI's text alone takes 3.5 GB
    names, odd = segment_ids([raw for fold in folds for raw in fold.ids])
    rows: list[Row] = []
    for read_fold in folds:
        rows += read_fold.rows(names[len(rows) : len(rows) + len(read_fold.ids)])
    sides = {m: {fold.name: fold.sides[m] for fold in folds} for m in modalities}
    return gather(rows, modalities, {"ids": odd, "padding": sides})


def _check_keys(part: Mapping[str, Any], fold: str, required: Sequence[str]) -> None:
    missing = sorted({"id", "regression_labels"} - part.keys())
    if missing:
        raise DataError(
            f"fold {fold} lacks {', '.join(missing)} of MMSA's layout; it has {', '.join(sorted(map(str, part)))}."
        )
    lacking = [modality for modality in required if _KEYS.get(modality) not in part]
    if lacking:
        present = [m for m in required if m not in lacking] or [m for m, key in _KEYS.items() if key in part]
        without = f" Go without: dataset.modalities=[{','.join(present)}]" if present else ""
        raise DataError(f"fold {fold} lacks {', '.join(lacking)}.{without}")


class _Fold:
    """The utterances of one fold, checked against each other and stripped of their padding.

    Args:
        name: train, valid or test.
        part: the fold's dictionary.
        modalities: what is read of it.
        targets: which labels are.
    """

    def __init__(self, name: str, part: Mapping[str, Any], modalities: Sequence[str], targets: Sequence[str]) -> None:
        self.name = name
        self.ids = self._column(part, "id")
        texts = self._column(part, "raw_text") if "raw_text" in part else None
        self._words = None if texts is None else [_WORD.findall(str(text)) for text in texts]
        with np.errstate(over="ignore"):  # beyond float32 is not finite, and dropped as that
            self._targets = {name: self._labels(part, _TARGETS[name]).astype(np.float32) for name in targets}
        arrays = {m: numbers(part[_KEYS[m]], self._place(_KEYS[m]), num_axes=3) for m in modalities}
        counts = {"id": len(self.ids)} | {_TARGETS[name]: len(labels) for name, labels in self._targets.items()}
        counts |= {_KEYS[m]: len(array) for m, array in arrays.items()}
        counts |= {"raw_text": len(self._words)} if self._words is not None else {}
        if len(set(counts.values())) != 1:
            raise DataError(f"fold {name}: as many ids, labels and rows of every modality are required, got {counts}.")
        self._steps, self.sides = self._stripped(part, arrays)

    def rows(self, names: Sequence[tuple[str, int]]) -> list[Row]:
        """The utterances under these names."""
        return [
            Row(
                self.name,
                *names[i],
                {target: labels[i] for target, labels in self._targets.items()},
                {modality: steps[i] for modality, steps in self._steps.items()},
                self._words[i] if self._words is not None else None,
            )
            for i in range(len(self.ids))
        ]

    def _stripped(
        self, part: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Ragged], dict[str, str]]:
        """The true steps per modality, and the side of their padding."""
        lengths = {m: self._labels(part, f"{_KEYS[m]}_lengths") for m in arrays if f"{_KEYS[m]}_lengths" in part}
        mask = self._mask(part)
        if mask is not None:
            of_mask = [m for m in arrays if m not in lengths and arrays[m].shape[1] == mask.shape[1]]
            lengths |= {m: (mask != 0).sum(axis=1) for m in of_mask if m == "text" or not lengths}
        if not lengths and arrays:
            return strip_together(arrays)
        try:
            cut = {m: strip_padding(array, lengths.get(m)) for m, array in arrays.items()}
        except DataError as error:
            raise DataError(f"fold {self.name}: {error}") from error
        return {m: steps for m, (steps, _) in cut.items()}, {m: side for m, (_, side) in cut.items()}

    def _mask(self, part: Mapping[str, Any]) -> np.ndarray | None:
        """(N, T) the attention mask, where there is one."""
        if "text_bert" not in part:
            return None
        tokens = numbers(part["text_bert"], self._place("text_bert"))
        if tokens.ndim != 3 or tokens.shape[:2] != (len(self.ids), 3):
            raise DataError(
                f"{self._place('text_bert')} of shape ({len(self.ids)}, 3, steps) is required, got {tokens.shape}."
            )
        mask: np.ndarray = tokens[:, 1]
        return mask

    def _labels(self, part: Mapping[str, Any], key: str) -> np.ndarray:
        return numbers(part[key], self._place(key)).reshape(-1)

    def _column(self, part: Mapping[str, Any], key: str) -> list[Any]:
        values = part[key]
        if not isinstance(values, list | tuple | np.ndarray) or getattr(values, "ndim", 1) != 1:
            raise DataError(f"{self._place(key)}: one entry per utterance is required, got {type(values).__name__}.")
        return list(values)

    def _place(self, key: str) -> str:
        return f"fold {self.name}, {key}"
