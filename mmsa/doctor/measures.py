"""Measurements of a prepared data set: lengths, columns, duplicates, labels; read in blocks, never as a whole."""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Store

_BLOCK = 1 << 23
_SHOWN_IDS = 20
_BARS = 31
_LEAST_STEPS = 3
"""Different steps from which on equal features are no coincidence."""
_TINY = 1e-3
_ALMOST = 0.95
_NOISE = 1e-12


@dataclass(frozen=True)
class Contents:
    """The content of the utterances in one modality.

    Args:
        digests: one per utterance; empty where it is nothing but zeros.
        telling: (N,) bool: whether it has enough different steps that an equal utterance must be a copy.
    """

    digests: list[bytes]
    telling: np.ndarray


def measure_modality(store: Store, modality: str, labels: np.ndarray) -> tuple[dict[str, Any], Contents]:
    """Everything that is counted of one modality, and its contents for the search for duplicates.

    Args:
        store: the data set.
        modality: one of its features.
        labels: (N,), of which the columns' correlation is taken.
    """
    ragged = store.features[modality]
    train = store.folds == "train"
    columns, utterances = _Columns(ragged.width, labels[train]), _Utterances(len(ragged))
    digests: list[bytes] = []
    wrong = 0
    for first, last, raw in _blocks(ragged):
        finite = np.isfinite(raw)
        wrong += int(raw.size - finite.sum())
        block = np.where(finite, raw, 0).astype(np.float64)
        edges = ragged.offsets[first : last + 1] - ragged.offsets[first]
        digests.extend(_digest(raw[edges[i] : edges[i + 1]]) for i in range(last - first))
        rows, means = utterances.see(first, block, edges)
        learnt = train[rows]
        of_train = np.repeat(train[first:last], np.diff(edges))
        columns.see(block[of_train], block[~of_train])
        if learnt.any():
            columns.add(means[learnt], labels[rows[learnt]])
    steps = ragged.lengths
    silent, several = ~utterances.filled & (steps > 0), utterances.filled & (steps > 1)
    measured = {
        "width": ragged.width,
        "steps": {**_spread(steps), "one": int((steps == 1).sum()), "none": int((steps == 0).sum())},
        "step_histogram": _step_histogram(steps),
        "not_finite_in_source": store.report.get("non_finite", {}).get(modality),
        "not_finite_in_store": wrong,
        "filled": {fold: int(utterances.filled[store.folds == fold].sum()) for fold in FOLDS},
        "zero_utterances": {fold: int(silent[store.folds == fold].sum()) for fold in FOLDS},
        "zero_ids": [store.ids[i] for i in np.flatnonzero(silent)[:_SHOWN_IDS]],
        "mean_zero": {"utterances": int(several.sum()), "with_mean_zero": int((utterances.centred & several).sum())},
        **columns.found(),
    }
    return measured, Contents(digests, utterances.telling)


class _Utterances:
    """Of every utterance whether it holds anything, has the mean 0 over its steps, and differs from step to step."""

    def __init__(self, count: int) -> None:
        self.filled, self.centred, self.telling = (np.zeros(count, dtype=bool) for _ in range(3))

    def see(self, first: int, block: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows (m,) of those that have steps, and their means (m, D) over the steps.

        Utterance i of the block (steps, D) stands in row `first` + i, and in the block between its two edges.
        """
        counts = np.diff(edges)
        held = np.flatnonzero(counts)  # reduceat knows no empty stretch
        rows = first + held
        if not len(held):
            return rows, np.zeros((0, block.shape[1]))
        starts, counts = edges[held], counts[held, None]
        means = np.add.reduceat(block, starts) / counts  # (m, D)
        size = np.sqrt(np.add.reduceat(block**2, starts) / counts)
        changes = np.concatenate([[False], (np.diff(block, axis=0) != 0).any(axis=1)])
        changes[starts] = False
        used = size > 0
        self.filled[rows] = used.any(axis=1)
        # Almost all columns: a constant one may be left where it was.
        self.centred[rows] = ((np.abs(means) <= _TINY * size) & used).sum(axis=1) >= _ALMOST * used.sum(axis=1)
        self.telling[rows] = np.add.reduceat(changes, starts, dtype=np.int64) >= _LEAST_STEPS - 1
        return rows, means


class _Columns:
    """Range of every column on the train fold and elsewhere, and the correlation of its mean over a train utterance
    with the label."""

    def __init__(self, width: int, labels: np.ndarray) -> None:
        self._low, self._high = (np.full((2, width), bound) for bound in (np.inf, -np.inf))  # train, elsewhere
        known = labels[np.isfinite(labels)].astype(np.float64)
        self._centre = float(known.mean()) if len(known) else 0.0
        self._count = 0
        self._x, self._xx, self._xy, self._y, self._yy = (np.zeros(width) for _ in range(5))

    def see(self, train: np.ndarray, elsewhere: np.ndarray) -> None:
        """Steps (n, D) of the train fold, and of the others."""
        for side, steps in enumerate((train, elsewhere)):
            self._low[side] = np.minimum(self._low[side], steps.min(axis=0, initial=np.inf))
            self._high[side] = np.maximum(self._high[side], steps.max(axis=0, initial=-np.inf))

    def add(self, means: np.ndarray, labels: np.ndarray) -> None:
        """Means (n, D) of utterances of the train fold, and their labels (n,)."""
        known = np.isfinite(labels)
        x, y = means[known], (labels[known].astype(np.float64) - self._centre)[:, None]
        self._count += len(x)
        self._x, self._xx, self._xy = self._x + x.sum(0), self._xx + (x * x).sum(0), self._xy + (x * y).sum(0)
        self._y, self._yy = self._y + y.sum(0), self._yy + (y * y).sum(0)

    def found(self) -> dict[str, Any]:
        """Constant columns, those of them that are 0, those that are not elsewhere, and the column that goes with the
        label most."""
        constant = self._low[0] == self._high[0]
        zero = constant & (self._low[0] == 0)
        alone = constant & ((self._low[1] < self._low[0]) | (self._high[1] > self._high[0]))
        r = np.zeros(len(constant))
        if self._count > 2:
            n = self._count
            varies, labels_vary = self._xx - self._x**2 / n, self._yy - self._y**2 / n
            usable = (varies > _NOISE * self._xx) & (labels_vary > 0)
            covariance = self._xy - self._x * self._y / n
            r[usable] = covariance[usable] / np.sqrt(varies[usable] * labels_vary[usable])
        best = int(np.abs(r).argmax()) if len(r) else 0
        return {
            "constant_columns": np.flatnonzero(constant & ~zero).tolist(),
            "zero_columns": np.flatnonzero(zero).tolist(),
            "constant_in_train_only": np.flatnonzero(alone).tolist(),
            "most_correlated": {"column": best, "correlation": float(r[best]) if len(r) else 0.0},
        }


def duplicates(store: Store, contents: Mapping[str, Contents]) -> dict[str, Any]:
    """Utterances that hold the same features as another one: in all modalities, and in each.

    "telling" are groups across folds of one modality other than text that no coincidence explains; two utterances of
    the same words have the same text features by right.

    Args:
        store: the data set.
        contents: of every modality.
    """
    parts = list(zip(*(content.digests for content in contents.values()), strict=True))
    others = [content.digests for name, content in contents.items() if name != "text"]
    whole = [parts[i] if any(digests[i] for digests in others) else b"" for i in range(len(parts))]
    found = {"all": _groups(store, whole)}
    for modality, content in contents.items():
        found[modality] = _groups(store, content.digests)
        counts = content.telling & (modality != "text")
        telling = [digest if counts[i] else b"" for i, digest in enumerate(content.digests)]
        found[modality]["telling"] = _groups(store, telling)["across_folds"]
    return found


def _groups(store: Store, keys: Sequence[Any]) -> dict[str, Any]:
    """Groups of rows with an equal key that is not empty, those across folds apart."""
    rows: defaultdict[Any, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key:
            rows[key].append(i)
    sides: dict[str, list[list[int]]] = {"within_a_fold": [], "across_folds": []}
    for group in rows.values():
        if len(group) > 1:
            sides["across_folds" if len(set(store.folds[group])) > 1 else "within_a_fold"].append(group)
    return {
        name: {"groups": len(groups), "examples": [[store.ids[i] for i in group] for group in groups[:_SHOWN_IDS]]}
        for name, groups in sides.items()
    }


def measure_rows(store: Store, canonical: Mapping[str, int]) -> dict[str, Any]:
    """Utterances and videos per fold, videos in several folds, ids that occur more than once."""
    videos: defaultdict[str, set[str]] = defaultdict(set)
    for video, fold in zip(store.videos, store.folds.tolist(), strict=True):
        videos[video].add(fold)
    return {
        "folds": {
            fold: {
                "utterances": int((store.folds == fold).sum()),
                "videos": sum(fold in folds for folds in videos.values()),
                "published": canonical.get(fold),
            }
            for fold in FOLDS
        },
        "leaking_videos": sorted(video for video, folds in videos.items() if len(folds) > 1),
        "duplicate_ids": sorted(name for name, count in Counter(store.ids).items() if count > 1),
    }


def measure_target(store: Store, values: np.ndarray, low: float, high: float, kind: str) -> dict[str, Any]:
    """The distribution of one target per fold.

    Args:
        store: the data set.
        values: (N,) labels.
        low: lowest nominal label; may be infinite.
        high: highest nominal label; may be infinite.
        kind: what the numbers mean, a key of `mmsa.training.kinds.KINDS`.
    """
    known = np.isfinite(values)
    finite = values[known]
    least, most = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    edges = (min(least, low) if np.isfinite(low) else least, max(most, high) if np.isfinite(high) else most)
    beyond = known & ((values < low - 1e-6) | (values > high + 1e-6))
    folds = {}
    for fold in FOLDS:
        rows = store.folds == fold
        part = values[rows & known]
        signs = {"negative": part < 0, "zero": part == 0, "positive": part > 0}
        folds[fold] = {
            **_spread(part),
            "not_finite": int((rows & ~known).sum()),
            "beyond_nominal": int((rows & beyond).sum()),
            "signs": {sign: int(of_sign.sum()) for sign, of_sign in signs.items()},
            "histogram": _label_histogram(part, *edges),
        }
    furthest = float(np.abs(values[beyond]).max()) if beyond.any() else None
    nominal = [bound if np.isfinite(bound) else None for bound in (low, high)]
    ids = [store.ids[row] for row in np.flatnonzero(beyond)[:_SHOWN_IDS]]
    return {"kind": kind, "nominal_range": nominal, "furthest": furthest, "beyond_ids": ids, "folds": folds}


def _blocks(ragged: Ragged) -> Iterator[tuple[int, int, np.ndarray]]:
    """Whole utterances [first, last) and their steps, about 8 MiB at a time; one longer utterance comes alone."""
    room = max(1, _BLOCK // max(1, 4 * ragged.width))
    mapped: object = ragged.values.base
    first = 0
    while first < len(ragged):
        end = int(np.searchsorted(ragged.offsets, ragged.offsets[first] + room, side="right")) - 1
        last = min(len(ragged), max(first + 1, end))
        yield first, last, np.asarray(ragged.values[ragged.offsets[first] : ragged.offsets[last]])
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)
        first = last


def _digest(steps: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(steps).data, digest_size=16).digest() if steps.any() else b""


def _spread(values: np.ndarray) -> dict[str, float | None]:
    measures: dict[str, Callable[..., Any]] = {"min": np.min, "median": np.median, "mean": np.mean, "max": np.max}
    return {name: float(measure(values)) if len(values) else None for name, measure in measures.items()}


def _label_histogram(values: np.ndarray, low: float, high: float) -> dict[str, list[float]]:
    """Bars around the values from `low` to `high` in 30 equal paces, since labels are means of few annotators."""
    pace = (high - low) / (_BARS - 1) or 1.0
    return _histogram(values, low - pace / 2 + pace * np.arange(_BARS + 1))


def _step_histogram(steps: np.ndarray) -> dict[str, list[float]]:
    """Bars over equally many whole numbers of steps."""
    most = int(steps.max(initial=0)) + 1
    pace = -(-most // _BARS)
    return _histogram(steps, pace * np.arange(-(-most // pace) + 1) - 0.5)


def _histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, list[float]]:
    return {"counts": np.histogram(values, bins=edges)[0].tolist(), "edges": edges.tolist()}
