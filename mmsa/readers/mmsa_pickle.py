"""Reader of MMSA's pickles and those of MMSA-FET: {train, valid, test} -> padded arrays, aligned or each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import column
from mmsa.readers.padded_folds import KEYS, Fold, held_modalities, padded_arrays, strip_rows
from mmsa.readers.padding import PaddedFold
from mmsa.readers.rows import check_required, float32, gather, numbers, sentiment_targets, words_said

FAMILY = "MMSA"
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
    """
    for fold in FOLDS:
        part = content[fold]
        if "regression_labels" not in part:
            raise DataError(
                f"fold {fold} lacks regression_labels of MMSA's layout; it has {', '.join(sorted(map(str, part)))}."
            )
        check_required(options.required, [m for m, key in KEYS.items() if key in part], f"fold {fold}")
    modalities = held_modalities(content)
    targets = [name for name, key in _TARGETS.items() if all(key in content[fold] for fold in FOLDS)]
    folds = {}
    for fold in FOLDS:
        folds[fold] = _fold(content[fold], f"fold {fold}", modalities, targets)
        content[fold] = {}  # CMU-MOSEI's text alone takes 3.5 GB
    return gather(*strip_rows(folds, progress, FAMILY, "right"), folder=options.folder)


def _fold(part: Mapping[str, Any], where: str, modalities: Sequence[str], targets: Sequence[str]) -> Fold:
    labels = {target: numbers(part[_TARGETS[target]], f"{where}, {_TARGETS[target]}") for target in targets}
    count = len(labels["sentiment"]) if labels["sentiment"].ndim else 0
    ids, said = (column(part.get(key), count, f"{where}, {key}") for key in ("id", "raw_text"))
    counts = {_TARGETS[name]: values.size for name, values in labels.items()} | {"regression_labels": count}
    arrays, lengths = padded_arrays(part, modalities, {"id": len(ids), "raw_text": len(said), **counts}, where)
    padded = PaddedFold(arrays, _lengths(part, arrays, count, where) | lengths, f"{where}, ")
    read = sentiment_targets(labels.pop("sentiment"), where)
    read |= {name: values.reshape(-1) for name, values in labels.items()}
    words = [words_said(sentence) for sentence in said]
    return Fold(ids, padded, words, {name: float32(values) for name, values in read.items()})


def _lengths(
    part: Mapping[str, Any], arrays: Mapping[str, np.ndarray], count: int, where: str
) -> dict[str, np.ndarray]:
    """The steps that the fold states, per modality of which it does."""
    stated = {m: f"{KEYS[m]}_lengths" for m in arrays if f"{KEYS[m]}_lengths" in part}
    lengths = {m: numbers(part[key], f"{where}, {key}").reshape(-1) for m, key in stated.items()}
    if "text_bert" not in part or not count:
        return lengths
    mask = _mask(part["text_bert"], count, f"{where}, text_bert")
    used = (mask != 0).sum(axis=1)
    aligned = not lengths and all(array.shape[1] == mask.shape[1] for array in arrays.values())
    of_mask = [m for m in arrays if aligned or (m == "text" and arrays[m].shape[1] == mask.shape[1])]
    return dict.fromkeys(of_mask, used) | lengths


def _mask(values: object, count: int, where: str) -> np.ndarray:
    """(N, T) the attention mask among BERT's inputs (N, 3, T), or (N, T, 3)."""
    tokens = numbers(values, where)
    if tokens.ndim == 3 and tokens.shape[1] != 3 == tokens.shape[2]:
        tokens = tokens.transpose(0, 2, 1)
    if tokens.ndim != 3 or tokens.shape[:2] != (count, 3):
        raise DataError(f"{where} of shape ({count}, 3, steps) is required, got {tokens.shape}.")
    mask: np.ndarray = tokens[:, 1]
    return mask
