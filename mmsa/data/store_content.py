"""What a store's file holds, checked before anything of it is mapped: it may come from anyone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsa.data.allowance import Allowance
from mmsa.data.hdf5 import arrays, in_one_piece, num_elements, read_texts

_DEEPEST = 3  # features/NAME/values
_COLUMNS, _WORDS = ("ids", "videos", "folds"), ("words/values", "words/offsets")
_TEXT, _FLOAT, _WHOLE = None, h5py.h5t.IEEE_F32LE, h5py.h5t.STD_I64LE
_PARTS: dict[re.Pattern[str], tuple[h5py.h5t.TypeID | None, tuple[int, ...]]] = {
    re.compile("ids|videos|folds|words/values"): (_TEXT, (1,)),
    re.compile("report"): (_TEXT, (0,)),
    re.compile("targets/[^/]+"): (_FLOAT, (1, 2)),
    re.compile("features/[^/]+/values"): (_FLOAT, (2,)),
    re.compile("(features/[^/]+|words)/offsets"): (_WHOLE, (1,)),
}
"""The arrays of a store: type and number of axes."""
_COUNTS, _LISTS, _NAMES = {str: int}, {str: [str]}, {str: str}
_REPORT: dict[str, Any] = {
    **dict.fromkeys(("canonical", "non_finite", "all_zero", "ids", "beyond_length", "without_context"), _COUNTS),
    **dict.fromkeys(("dropped", "skipped_videos", "non_finite_utterances", "beyond_length_utterances"), _LISTS),
    **dict.fromkeys(("files", "uneven"), _NAMES),
    **dict.fromkeys(("source", "family"), str),
    **dict.fromkeys(("drawn_vectors", "pauses_removed"), int),
    "fold_videos_absent": [str],
    "without_steps": [str],
    "padding": {str: _NAMES},
    "beyond_nominal": {"count": int, "nominal_range": (float | int, float | int), "largest": float | None},
    "glove": {
        **dict.fromkeys(("tokens", "tokens_found", "types", "types_found"), int),
        "most_frequent_absent": [(str, int)],
    },
}
"""The parts of a report that the program reads: a type, a table or list of such, or as many as there are."""


@dataclass(frozen=True)
class Content:
    """A store's arrays by their names in the file, in the order of writing.

    Args:
        ids, videos, folds: one per utterance.
        targets: float32 by name.
        values: (total steps, D) float32 per modality, mapped.
        offsets: (N+1,) int64 per modality.
        words: of all utterances, and (N+1,) int64 offsets, where there are any.
        report: as it was written.
    """

    ids: list[str]
    videos: list[str]
    folds: list[str]
    targets: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    words: tuple[list[str], np.ndarray] | None
    report: dict[str, Any]


def read_content(file: h5py.File, path: Path) -> Content:
    """Everything that a store holds, its features mapped.

    Raises:
        DataError: it would need far more memory than the file.
        KeyError, OSError, ValueError: it is damaged, or not as our writer leaves it.
    """
    found = dict(arrays(file, _DEEPEST))
    places = {name: _place(name, dataset) for name, dataset in found.items()}
    taken = sorted(filter(len, places.values()), key=lambda place: place.start)
    if any(former.stop > later.start for former, later in pairwise(taken)):
        raise ValueError("two of its arrays are the same bytes of the file")
    modalities = list(dict.fromkeys(name.split("/")[1] for name in found if name.startswith("features/")))
    parts = [f"features/{name}/{part}" for name in modalities for part in ("values", "offsets")]
    words = _WORDS if "words" in file else ()
    if absent := next((name for name in (*_COLUMNS, "report", *parts, *words) if name not in found), None):
        raise ValueError(f"it has no {absent}")

    def mapped(name: str) -> np.ndarray:
        dtype, shape = found[name].dtype, found[name].shape
        return np.memmap(path, dtype, "r", places[name].start, shape) if places[name] else np.zeros(shape, dtype)

    texts = [found[name] for name in (*_COLUMNS, "report", *words[:1])]
    held = [text.decode() for text in read_texts(texts, Allowance(path, path.stat().st_size))]
    edges = accumulate(map(num_elements, texts), initial=0)
    ids, videos, folds, (report,), *of_words = [held[start:stop] for start, stop in pairwise(edges)]
    return Content(
        ids,
        videos,
        folds,
        {name.partition("/")[2]: np.array(mapped(name)) for name in found if name.startswith("targets/")},
        {name: mapped(f"features/{name}/values") for name in modalities},
        {name: np.array(mapped(f"features/{name}/offsets")) for name in modalities},
        (of_words[0], np.array(mapped("words/offsets"))) if words else None,
        parsed(report),
    )


def _place(name: str, dataset: h5py.Dataset) -> range:
    """The bytes of an array in the file, if it is a part of a store, as our writer leaves it."""
    part = next((part for pattern, part in _PARTS.items() if pattern.fullmatch(name)), None)
    if part is None or not name.isprintable():
        raise ValueError(f"{name} is no part of a store")
    kind, num_axes = part
    own = dataset.id.get_type()
    right = own.equal(kind) if kind else own.get_class() == h5py.h5t.STRING and own.is_variable_str()
    if not right or dataset.shape is None or len(dataset.shape) not in num_axes:
        raise ValueError(f"{name} is {dataset.dtype} of shape {dataset.shape}")
    return in_one_piece(dataset)


def parsed(text: str) -> dict[str, Any]:
    """A table of JSON, which can be printed.

    Raises:
        ValueError, RecursionError: it is none.
    """
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("a table is required")
    json.dumps(table, ensure_ascii=False).encode()  # UnicodeError: half a character
    return table


def contradictions(content: Content, folds: tuple[str, ...]) -> Iterator[str]:
    """What in a store does not fit together, part by part.

    Args:
        content: the store's.
        folds: the names of folds, in the order of the rows.
    """
    count = len(content.ids)
    places = [folds.index(fold) if fold in folds else -1 for fold in content.folds]
    if len(content.videos) != count or len(places) != count or places != sorted(places) or -1 in places:
        yield "its ids, videos and folds do not fit together"
    if any("\0" in "".join(column) for column in (content.ids, content.videos)):
        yield "an id of it holds a zero character"
    for name, target in content.targets.items():
        if len(target) != count:
            yield f"the target {name} has the shape {target.shape}, for {count} utterances"
    if not content.targets:
        yield "it has no target"
    for modality, values in content.values.items():
        if not values.shape[1] or not _divide(content.offsets[modality], count, len(values)):
            yield f"the features of {modality} and their offsets do not fit together"
    if content.words is not None and not _divide(content.words[1], count, len(content.words[0])):
        yield "its words are not those of its utterances"
    odd = (key for key, part in content.report.items() if key in _REPORT and not _is(part, _REPORT[key]))
    for key in odd:
        yield f"its report is not one of ours: {key}"


def _divide(offsets: np.ndarray, count: int, total: int) -> bool:
    """Whether offsets divide `total` elements among `count` utterances."""
    whole = len(offsets) == count + 1 and offsets[0] == 0 and offsets[-1] == total
    return bool(whole and (offsets[1:] >= offsets[:-1]).all())


def _is(value: Any, wanted: Any) -> bool:
    """Whether a part of a report is as `_REPORT` describes it."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and (
            all(_is(part, wanted[str]) for part in value.values())
            if str in wanted
            else all(_is(value.get(key), part) for key, part in wanted.items())
        )
    if isinstance(wanted, list | tuple):
        parts = wanted * len(value) if isinstance(wanted, list) and isinstance(value, list) else wanted
        return isinstance(value, list) and len(value) == len(parts) and all(map(_is, value, parts))
    return isinstance(value, wanted)
