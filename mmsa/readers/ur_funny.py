"""Reader of UR-FUNNY's folder, version 1 or 2: one pickle per modality, keyed by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions, describe
from mmsa.readers.ids import as_text, segment_ids
from mmsa.readers.restricted_pickle import load_pickle
from mmsa.readers.rows import MODALITIES, Utterance, as_steps, by_fold, check_required, gather, numbers, words_said
from mmsa.readers.spool import put_aside

FAMILY = "UR-FUNNY"
_NEEDED = {"folds": "data_folds.pkl", "labels": "humor_label_sdk.pkl"}
_OTHERS = {
    "audio": "covarep_features_sdk.pkl",
    "visual": "openface_features_sdk.pkl",
    "language": "language_sdk.pkl",  # version 2
    "indexes": "word_embedding_indexes_sdk.pkl",  # version 1
    "vectors": "word_embedding_list.pkl",
    "words": "word_list.pkl",
}


def find(folder: Path) -> dict[str, Path] | None:
    """The files by role; None without the folds and the labels."""
    found = {role: folder / name for role, name in (_NEEDED | _OTHERS).items() if (folder / name).is_file()}
    return found if found.keys() >= _NEEDED.keys() else None


def read(files: Mapping[str, Path], options: ReadOptions, progress: Progress) -> Prepared:
    """Read the punchlines and, with `options.context`, the steps of the sentences before them.

    The label, 0 or 1, is the target "humor". The layout does not name videos: a segment whose id names none is a video
    of its own. Version 1 has words only where word_list.pkl is there.
    """
    loaded = {role: load_pickle(files[role]) for role in progress(list(files), "reading UR-FUNNY", len(files))}
    fold_of, labels = _folds(loaded["folds"], files["folds"]), _by_segment(loaded["labels"], files["labels"])
    sources: dict[str, _Sentences] = {
        modality: _Sentences(_by_segment(loaded[modality], files[modality]), files[modality], options.context)
        for modality in ("audio", "visual")
        if modality in loaded
    }
    text = _text(loaded, files, options.context)
    if text is not None and text.vectors is not None:
        sources["text"] = text
    modalities = [modality for modality in MODALITIES if modality in sources]
    check_required(options.required, modalities, f"{files['folds'].parent}")
    names, odd = segment_ids(list(fold_of))
    labelled = [segment for segment in fold_of if segment in labels]
    spoken = put_aside(map(sources["text"].steps, labelled), options.folder) if "text" in sources else []
    text_of = dict(zip(labelled, spoken, strict=False))
    unlabelled, absent, rows = [], dict.fromkeys(modalities, 0), []
    for (segment, fold), (video, place) in zip(fold_of.items(), names, strict=True):
        if segment not in labels:
            unlabelled.append(f"{video}[{place}]")
            continue
        features = {m: text_of[segment] if m == "text" else sources[m].steps(segment) for m in modalities}
        for modality, steps in features.items():
            absent[modality] += not len(steps)
        words = text.words(segment) if text is not None else None
        rows.append(Utterance(fold, video, place, {"humor": _label(labels[segment], segment)}, features, words))
    report = {"ids": odd, "absent": absent, "context": options.context}
    report |= {"without_context": {modality: len(source.without_context) for modality, source in sources.items()}}
    return gather(rows, report | {"dropped": {"no label": unlabelled} if unlabelled else {}}, folder=options.folder)


@dataclass
class _Sentences:
    """The steps of the punchlines, and of the sentences before them: an entry by segment, with their keys by kind."""

    segments: Mapping[str, Any]
    path: Path
    context: bool
    without_context: set[str] = field(default_factory=set)
    """Segments of the file without a context."""

    def steps(self, segment: str) -> np.ndarray:
        """(T, D) float32, no steps where the file does not have the segment."""
        sentences = [as_steps(part, f"{self.path}, segment {segment}") for part in self._parts(segment, "features")]
        filled = [sentence for sentence in sentences if len(sentence)]
        if len({sentence.shape[1] for sentence in filled}) > 1:
            raise DataError(f"{self.path}, segment {segment}: its sentences differ in width.")
        if len(filled) == 1:
            return filled[0]
        return np.concatenate(filled) if filled else np.zeros((0, 1), np.float32)

    def _parts(self, segment: str, kind: str, context: str | None = None) -> list[Any]:
        """The sentences of the file that are read, the punchline last."""
        entry = self.segments.get(segment)
        if entry is None:
            return []
        punchline = f"punchline_{kind}"
        if not isinstance(entry, dict) or punchline not in entry:
            raise DataError(f"{self.path}, segment {segment}: {punchline} is required.")
        before = entry.get(context or f"context_{kind}") if self.context else []
        if before is None:
            self.without_context.add(segment)
            before = []
        if not isinstance(before, list | tuple | np.ndarray):
            raise DataError(f"{self.path}, segment {segment}: a list of sentences is required as its context.")
        return [*before, entry[punchline]]


@dataclass
class _Text(_Sentences):
    """The words of the punchlines as numbers, with their vectors (V, D), and as words where the source has them."""

    vectors: np.ndarray | None = None
    lexicon: Sequence[str] | None = None

    def steps(self, segment: str) -> np.ndarray:
        vectors = np.zeros((0, 1), np.float32) if self.vectors is None else self.vectors
        return vectors[self._ids(segment, len(vectors), "vectors")]

    def words(self, segment: str) -> list[str] | None:
        """The words of version 2's sentences, else those of word_list.pkl; None without either."""
        entry = self.segments.get(segment)
        if isinstance(entry, dict) and "punchline_sentence" in entry:
            return words_said(self._parts(segment, "sentence", context="context_sentences"))
        if self.lexicon is None:
            return None
        ids = self._ids(segment, len(self.lexicon), "words")
        return [self.lexicon[number] for number in ids.tolist()]

    def _ids(self, segment: str, count: int, of: str) -> np.ndarray:
        """The numbers of the words, places in a list of `count`."""
        parts = self._parts(segment, "embedding_indexes")
        where = f"{self.path}, segment {segment}, embedding_indexes"
        whole = [numbers([] if part is None else part, where).reshape(-1).astype(np.int64) for part in parts]
        ids = np.concatenate(whole) if whole else np.zeros(0, np.int64)
        outside = ids[(ids < 0) | (ids >= count)]
        if len(outside):
            raise DataError(f"{self.path}, segment {segment}: word {outside[0]} of a list of {count} {of}.")
        return ids


def _text(loaded: Mapping[str, Any], files: Mapping[str, Path], context: bool) -> _Text | None:
    """The text of version 2, else of version 1; None without either."""
    role = "language" if "language" in loaded else "indexes"
    if role not in loaded:
        return None
    return _Text(_by_segment(loaded[role], files[role]), files[role], context, set(), *_tables(loaded, files))


def _tables(loaded: Mapping[str, Any], files: Mapping[str, Path]) -> tuple[np.ndarray | None, list[str] | None]:
    """The vector and the word of every number; the two lists are easily confused, and distinguished by content."""
    vectors = words = None
    for role in ("vectors", "words"):
        if role not in loaded:
            continue
        table = _in_order(loaded[role], files[role])
        if table and all(isinstance(entry, str | bytes) for entry in table):
            words = [as_text(entry) for entry in table]
        else:
            vectors = as_steps(table, f"{files[role]}, the list of word vectors")
    if vectors is None and "vectors" in loaded:
        raise DataError(
            f"{files['vectors']} holds words, and vectors are required: it is word_list.pkl under another name. "
            "Get word_embedding_list.pkl again."
        )
    return vectors, words


def _in_order(table: Any, path: Path) -> list[Any]:
    """The entries of a list, or of a dictionary by number, from 0."""
    if isinstance(table, dict):
        named = {_key(number): entry for number, entry in table.items()}
        if named.keys() != {str(number) for number in range(len(table))}:
            raise DataError(f"{path}: an entry for every number from 0 is required.")
        return [named[str(number)] for number in range(len(table))]
    if not isinstance(table, list | tuple | np.ndarray):
        raise DataError(f"{path}: a list with an entry per word is required, got {type(table).__name__}.")
    return list(table)


def _folds(content: Any, path: Path) -> dict[str, str]:
    """Fold of every segment, in the order of the file."""
    fold_of: dict[str, str] = {}
    for fold, segments in (by_fold(content) or dict.fromkeys(FOLDS)).items():
        if not isinstance(segments, list | tuple | set | np.ndarray):
            raise DataError(f"{path}: the segments of train, dev and test are required; got {describe(content)}.")
        for segment in map(_key, segments):
            if segment in fold_of:
                twice = f"in {fold_of[segment]} and in {fold}" if fold_of[segment] != fold else f"in {fold} twice"
                raise DataError(f"{path}: segment {segment} is {twice}.")
            fold_of[segment] = fold
    return fold_of


def _by_segment(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: a dictionary by segment is required, got {type(content).__name__}.")
    return {_key(segment): _named(entry) for segment, entry in content.items()}


def _named(entry: Any) -> Any:
    return {as_text(key): value for key, value in entry.items()} if isinstance(entry, dict) else entry


def _key(segment: Any) -> str:
    return as_text(segment.item() if isinstance(segment, np.ndarray) and segment.size == 1 else segment)


def _label(label: Any, segment: str) -> float:
    value = numbers(label, f"humor_label_sdk.pkl, segment {segment}").reshape(-1)
    if len(value) != 1:
        raise DataError(f"humor_label_sdk.pkl, segment {segment}: one label is required, got {len(value)}.")
    return float(value[0])
