"""Reader of MMSA's aligned pickle (aligned_50.pkl): {train, valid, test} -> arrays padded on the right."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress, silent
from mmsa.data.readers.restricted_pickle import load_pickle
from mmsa.data.store import FOLDS, Prepared, Ragged
from mmsa.errors import DataError

_KEYS = {"text": "text", "audio": "audio", "visual": "vision"}
_ID = re.compile(r"(?P<video>.+)\$_\$(?P<clip>\d+)")


def read_aligned_pickle(
    path: Path, *, required: Sequence[str] = ("text", "audio", "visual"), progress: Progress = silent
) -> Prepared:
    """Read all of MMSA's aligned pickle and strip the padding; values that are not finite become 0 and are counted.

    The true length is the sum of the attention mask in `text_bert`; without that key, whatever follows the last step
    that is not zero in every modality is padding.

    Args:
        path: the pickle.
        required: those of text, audio, visual that must be there; the others are read where every fold has them.
        progress: shown per fold.

    Raises:
        DataError: the pickle is damaged, holds a foreign object, or is not of this layout.
    """
    folds = _recognised(path, load_pickle(path), required)
    modalities = [m for m, key in _KEYS.items() if all(key in folds[fold] for fold in FOLDS)]
    rows: list[_Row] = []
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    non_finite = Counter(dict.fromkeys(modalities, 0))
    touched = Counter(dict.fromkeys(modalities, 0))
    for fold in progress(FOLDS, f"reading {path.name}", len(FOLDS)):
        content = _Fold(path, fold, folds[fold], modalities)
        for row in content.rows():
            if not len(row.steps[modalities[0]]):
                dropped["no steps"].append(row.id)
            elif not np.isfinite(row.label):
                dropped["label not finite"].append(row.id)
            else:
                rows.append(row)
                for modality, steps in row.steps.items():
                    wrong = ~np.isfinite(steps)
                    non_finite[modality] += int(wrong.sum())
                    touched[modality] += bool(wrong.any())
                    steps[wrong] = 0.0
    empty = [np.zeros((0, 1), dtype=np.float32)]
    return Prepared(
        ids=[row.id for row in rows],
        videos=[row.video for row in rows],
        folds=[row.fold for row in rows],
        targets={"sentiment": np.array([row.label for row in rows], dtype=np.float32)},
        features={m: Ragged.join([row.steps[m] for row in rows] or empty) for m in modalities},
        words=[row.words for row in rows] if all("raw_text" in folds[fold] for fold in FOLDS) else None,
        report={"dropped": dict(dropped), "non_finite": dict(non_finite), "non_finite_utterances": dict(touched)},
    )


class _Row:
    """One utterance of the pickle."""

    def __init__(
        self, fold: str, video: str, clip: int, label: float, words: list[str], steps: dict[str, np.ndarray]
    ) -> None:
        self.fold = fold
        self.video = video
        self.clip = clip
        self.id = f"{video}[{clip}]"
        self.label = label
        self.words = words
        self.steps = steps


class _Fold:
    """The arrays of one fold, checked against each other.

    Args:
        path: named in errors.
        fold: train, valid or test.
        content: the fold's dictionary.
        modalities: what is read.
    """

    def __init__(self, path: Path, fold: str, content: Mapping[str, Any], modalities: Sequence[str]) -> None:
        self._where = f"{path}, fold {fold}"
        self._fold = fold
        self._ids = [str(name) for name in content["id"]]
        self._texts = [str(text) for text in content["raw_text"]] if "raw_text" in content else None
        self._labels = self._numbers(content["regression_labels"], "regression_labels").reshape(-1)
        self._arrays = {m: self._numbers(content[key], key) for m, key in _KEYS.items() if key in content}
        shapes = {array.shape[:2] for array in self._arrays.values()}
        counts = {len(self._ids), len(self._labels), *(shape[0] for shape in shapes)}
        if len(shapes) != 1 or len(counts) != 1 or any(array.ndim != 3 for array in self._arrays.values()):
            found = {m: array.shape for m, array in self._arrays.items()}
            raise DataError(
                f"{self._where}: one id and label per utterance and arrays (utterances, steps, features) are required, "
                f"got {len(self._ids)} ids, {len(self._labels)} labels, {found}."
            )
        self._lengths = self._true_lengths(content)
        self._modalities = modalities

    def rows(self) -> list[_Row]:
        """The utterances by video and clip, without padding."""
        rows = []
        for i, name in enumerate(self._ids):
            matched = _ID.fullmatch(name)
            if matched is None:
                raise DataError(f"{self._where}: an id video$_$clip is required, got {name!r}.")
            steps = {m: self._arrays[m][i, : self._lengths[i]].astype(np.float32) for m in self._modalities}
            words = self._texts[i].split() if self._texts is not None else []
            rows.append(_Row(self._fold, matched["video"], int(matched["clip"]), float(self._labels[i]), words, steps))
        return sorted(rows, key=lambda row: (row.video, row.clip))

    def _true_lengths(self, content: Mapping[str, Any]) -> np.ndarray:
        num_steps = next(iter(self._arrays.values())).shape[1]
        if "text_bert" not in content:
            used = np.any([(array != 0).any(axis=2) for array in self._arrays.values()], axis=0)  # (N, T); NaN is used
            return np.where(used.any(axis=1), num_steps - used[:, ::-1].argmax(axis=1), 0)
        tokens = self._numbers(content["text_bert"], "text_bert")
        if tokens.shape != (len(self._ids), 3, num_steps):
            raise DataError(
                f"{self._where}: text_bert of shape {(len(self._ids), 3, num_steps)} is required, got {tokens.shape}."
            )
        lengths: np.ndarray = tokens[:, 1].sum(axis=1).astype(np.int64)
        return lengths

    def _numbers(self, values: object, key: str) -> np.ndarray:
        try:
            array = np.asarray(values)
            return array if array.dtype.kind in "fiu" else array.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._where}: {key} must hold numbers ({error}).") from error


def _recognised(path: Path, content: object, required: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """The folds of an aligned pickle of MMSA; any other layout is refused by its name."""
    found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not all(isinstance(content.get(fold), dict) for fold in FOLDS):
        raise DataError(
            f"{path}: MMSA's aligned layout, a dictionary with {', '.join(FOLDS)}, is required; got {found}."
        )
    for fold in FOLDS:
        keys = set(content[fold])
        if keys & {"audio_lengths", "vision_lengths"}:
            raise DataError(
                f"{path} is MMSA's unaligned layout, which is not readable yet: its modalities have their own steps. "
                "Give the aligned file instead: dataset.source=.../aligned_50.pkl"
            )
        missing = {"id", "regression_labels"} - keys
        if missing:
            other = (
                " It looks like the layout of MulT or MultiBench, which is not readable yet."
                if "labels" in keys
                else ""
            )
            raise DataError(
                f"{path}: fold {fold} lacks {', '.join(sorted(missing))} of MMSA's aligned layout; "
                f"it has {', '.join(sorted(map(str, keys)))}.{other}"
            )
        lacking = [modality for modality in required if _KEYS.get(modality) not in keys]
        if lacking:
            present = [modality for modality in required if modality not in lacking]
            without = f" Go without: dataset.modalities=[{','.join(present)}]" if present else ""
            raise DataError(f"{path}: fold {fold} lacks {', '.join(lacking)}.{without}")
    return content
