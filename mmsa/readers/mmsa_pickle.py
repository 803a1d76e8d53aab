"""Reader of MMSA's pickles and those of MMSA-FET: {train, valid, test} -> padded arrays, aligned or each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS, Prepared, Ragged
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import column, name_rows
from mmsa.readers.padding import PaddedFold, padded_rows, strip_folds
from mmsa.readers.rows import Utterance, gather, numbers, sentiment_targets, words_said

FAMILY = "MMSA"
_KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
_TARGETS = {
    "sentiment": "regression_labels",
    "sentiment_text": "regression_labels_T",
    "sentiment_audio": "regression_labels_A",
    "sentiment_visual": "regression_labels_V",
}
_OWN_KEYS = {"regression_labels", "classification_labels", "text_bert", "raw_text", "annotations"}


def matches(content: Any) -> bool:
    """Whether this is MMSA's layout: train, valid and test with keys that no other family has."""
    if not isinstance(content, dict) or not all(isinstance(content.get(fold), dict) for fold in FOLDS):
        return False
    if all("regression_labels" in content[fold] for fold in FOLDS):
        return True
    return all(content[fold].keys() & _OWN_KEYS and "labels" not in content[fold] for fold in FOLDS)


def read(content: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read all of the pickle without its padding: of CMU-MOSI, CMU-MOSEI, CH-SIMS, one modality, or MMSA-FET.

    Steps of a modality: those of rows that are not padded; what `audio_lengths` and `vision_lengths` state; for text,
    and without either for arrays that are all as long, the sum of the attention mask in `text_bert`; without that,
    whatever precedes or follows the steps that are not zero is padding, in an aligned file those that are zero in
    every modality. A length of 0 is an absent modality. Rows without ids are videos of their own. CH-SIMS's labels per
    modality are the targets sentiment_text, sentiment_audio and sentiment_visual; seven columns of labels are a
    sentiment and six emotions.

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
    for fold in FOLDS:
        folds.append(_Fold(fold, content[fold], modalities, targets))
        content[fold] = {}  # CMU-MOSEI's text alone takes 3.5 GB
    names, odd = name_rows({fold.name: fold.ids for fold in folds})
    rows: list[Utterance] = []
    sides: dict[str, dict[str, str]] = {m: {} for m in modalities}
    beyond = dict.fromkeys(modalities, 0)
    stripped = strip_folds([fold.padded for fold in folds])
    for read_fold, cut in zip(folds, progress(stripped, "reading MMSA's pickle", len(FOLDS)), strict=True):
        rows += read_fold.rows(names[len(rows) : len(rows) + len(read_fold.ids)], cut.steps)
        for m in modalities:
            sides[m][read_fold.name] = cut.sides[m]
            beyond[m] += cut.beyond[m]
    outside = {"beyond_length": beyond} if any(beyond.values()) else {}
    return gather(rows, modalities, {"ids": odd, "padding": sides, **outside})


def _check_keys(part: Mapping[str, Any], fold: str, required: Sequence[str]) -> None:
    if "regression_labels" not in part:
        raise DataError(
            f"fold {fold} lacks regression_labels of MMSA's layout; it has {', '.join(sorted(map(str, part)))}."
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
        labels = {target: numbers(part[_TARGETS[target]], self._place(_TARGETS[target])) for target in targets}
        count = len(labels["sentiment"]) if labels["sentiment"].ndim else 0
        self.ids = column(part.get("id"), count, self._place("id"))
        self._words = [words_said(said) for said in column(part.get("raw_text"), count, self._place("raw_text"))]
        rows = {m: padded_rows(part[_KEYS[m]], self._place(_KEYS[m])) for m in modalities}
        counts = {"id": len(self.ids), "raw_text": len(self._words)}
        counts |= {_TARGETS[name]: values.size for name, values in labels.items() if name != "sentiment"}
        counts["regression_labels"] = count
        counts |= {_KEYS[m]: len(array) for m, (array, _) in rows.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"fold {name}: as many ids, labels and rows of every modality are required, got {counts}.")
        self._targets = _targets(labels, f"fold {name}")
        arrays = {m: array for m, (array, _) in rows.items()}
        lengths = {m: own for m, (_, own) in rows.items() if own is not None}
        self.padded = PaddedFold(arrays, self._lengths(part, arrays) | lengths, f"fold {name}, ")

    def rows(self, names: Sequence[tuple[str, int]], steps: Mapping[str, Ragged]) -> list[Utterance]:
        """The utterances under these names, with these steps."""
        return [
            Utterance(
                self.name,
                *names[i],
                {target: labels[i] for target, labels in self._targets.items()},
                {modality: of_fold[i] for modality, of_fold in steps.items()},
                self._words[i],
            )
            for i in range(len(self.ids))
        ]

    def _lengths(self, part: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The steps that the fold states, per modality of which it does."""
        stated = {m: f"{_KEYS[m]}_lengths" for m in arrays if f"{_KEYS[m]}_lengths" in part}
        lengths = {m: numbers(part[key], self._place(key)).reshape(-1) for m, key in stated.items()}
        mask = self._mask(part)
        if mask is None:
            return lengths
        used = (mask != 0).sum(axis=1)
        aligned = not lengths and all(array.shape[1] == mask.shape[1] for array in arrays.values())
        of_mask = [m for m in arrays if aligned or (m == "text" and arrays[m].shape[1] == mask.shape[1])]
        return dict.fromkeys(of_mask, used) | lengths

    def _mask(self, part: Mapping[str, Any]) -> np.ndarray | None:
        """(N, T) the attention mask, where there is one."""
        if "text_bert" not in part or not self.ids:
            return None
        tokens = numbers(part["text_bert"], self._place("text_bert"))
        if tokens.ndim == 3 and tokens.shape[1] != 3 == tokens.shape[2]:
            tokens = tokens.transpose(0, 2, 1)
        if tokens.ndim != 3 or tokens.shape[:2] != (len(self.ids), 3):
            raise DataError(
                f"{self._place('text_bert')} of shape ({len(self.ids)}, 3, steps) is required, got {tokens.shape}."
            )
        mask: np.ndarray = tokens[:, 1]
        return mask

    def _place(self, key: str) -> str:
        return f"fold {self.name}, {key}"


def _targets(labels: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Sentiments, the emotions of seven columns, and the labels of the single modalities."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is not finite, and dropped as that
        read = sentiment_targets(labels["sentiment"], where)
        read |= {name: values.reshape(-1) for name, values in labels.items() if name != "sentiment"}
        return {name: values.astype(np.float32) for name, values in read.items()}
