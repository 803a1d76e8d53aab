"""The utterances that a packed model predicts, from a file or from records in memory, as a store of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import h5py
import numpy as np

from mmsa import build
from mmsa.compose import compose
from mmsa.data.ragged import Ragged, offsets_of
from mmsa.data.store import FOLDS, PAUSE, Prepared, Store, is_store
from mmsa.data.word_vectors import TEXT
from mmsa.errors import DataError, printable
from mmsa.overrides import text_override
from mmsa.parts import check_node
from mmsa.program import program
from mmsa.readers.arrays import read_unlabelled
from mmsa.readers.rows import as_steps, words_said
from mmsa.serving.card import Card, Reads

Say = Callable[[str], None]
Record = Mapping[str, Any]
_ARRAYS = (".npz", ".h5", ".hdf5")
_NUM_NAMED = 3


@contextmanager
def opened(card: Card, path: Path, options: Sequence[str], say: Say) -> Iterator[Store]:
    """The utterances of a file: a prepared store, named arrays, or another source that `mmsa prepare` reads.

    A store is mapped, and read as it is predicted. Named arrays are joined into a file without a name, which is mapped.
    Another source is prepared into a folder that goes afterwards, from which it is mapped.

    Args:
        card: of the model.
        path: of the file or folder.
        options: of the data set, as for training.
        say: takes lines: which modalities are missing, and the utterances that are left out.

    Raises:
        DataError: the file is damaged, or not one that the model can read.
    """
    if is_store(path):
        store = Store.open(path, "name another file")
        _check_glove(card, store)
        yield fitting(card, store, str(path), say)
    elif path.is_file() and (path.suffix in _ARRAYS or h5py.is_hdf5(path)):
        store = in_memory(path, read_unlabelled(path, Path(gettempdir())))
        _check_finite(path, store)
        yield fitting(card, store, str(path), say)
    else:
        with TemporaryDirectory(prefix="mmsa-predict-") as folder:
            store = _prepared(card, path, options, Path(folder))
            _check_finite(path, store)
            _check_glove(card, store)
            yield fitting(card, store, str(path), say)


def in_memory(path: Path, prepared: Prepared) -> Store:
    """Utterances that were read, as a store that is on no disk."""
    return Store(
        path=path,
        dataset="input",
        ids=prepared.ids,
        videos=prepared.videos,
        folds=np.array(prepared.folds, dtype=str),
        targets=prepared.targets,
        features=prepared.features,
        words=prepared.words,
        report=prepared.report,
        options={},
        sources={},
        fingerprint="",
    )


def of_records(card: Card, records: Sequence[Record]) -> Store:
    """Records as a store.

    Args:
        card: of the model.
        records: per utterance the modalities that it has: arrays (T, D), or of text that the model reads as words, a
            text or a list of words; and its "id", if it has one.

    Raises:
        DataError: there is none, or one has an unknown modality, none at all, another width, or values that are not
            finite.
    """
    if not records:
        raise DataError(
            "there is no record to predict.\n  give one or more: {" + f"'{next(iter(card.inputs))}': …" + "}"
        )
    steps: dict[str, list[np.ndarray]] = {m: [] for m, reads in card.inputs.items() if reads.kind == "vectors"}
    said: list[list[str]] = []
    for number, record in enumerate(records):
        where = f"record {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is a {type(record).__name__}, and a mapping of modalities is required.")
        unknown = [name for name in record if name not in card.inputs and name not in ("id", *card.data.unread)]
        if unknown:
            raise DataError(
                f"{where}: {printable(str(unknown[0]))[:80]!r} is no modality of the model.\n"
                f"  give {', '.join(card.inputs)}, and id"
            )
        for m, reads in card.inputs.items():
            if reads.kind == "vectors":
                steps[m].append(_steps(record.get(m), reads, f"{where}: {m}"))
            else:
                said.append(_words(record.get(m), f"{where}: {m}"))
        given = [found[-1] for found in steps.values()] + said[number:]
        if not any(map(len, given)):
            raise DataError(f"{where} has no modality of the model.\n  give one or more of {', '.join(card.inputs)}")
    ids = [str(record.get("id", number)) for number, record in enumerate(records)]
    features = {m: Ragged.join(found) for m, found in steps.items()}
    prepared = Prepared(ids, ids, [FOLDS[-1]] * len(ids), {}, features, said or None)
    return fitting(card, in_memory(Path("records"), prepared), "the records", lambda line: None)


def example(card: Card) -> Record:
    """A record of one step in each modality."""
    return {m: [[0.0] * reads.width] if reads.kind == "vectors" else "fine" for m, reads in card.inputs.items()}


def _steps(value: Any, reads: Reads, where: str) -> np.ndarray:
    """The vectors (T, D) of one modality of a record."""
    if isinstance(value, str) or (isinstance(value, list | tuple) and any(isinstance(part, str) for part in value)):
        source = f" of {reads.source}" if reads.source else ""
        raise DataError(
            f"{where} is words, and the model reads vectors{source}, {reads.width} numbers per step.\n"
            f"  give an array of shape (steps, {reads.width})"
        )
    steps = as_steps(value, where)
    if not len(steps):
        return np.zeros((0, reads.width), np.float32)
    _check_width(where, steps.shape[1], reads)
    if not np.isfinite(steps).all():
        count = int((~np.isfinite(steps)).sum())
        raise DataError(f"{where}: {count:,} values are not finite.\n  replace them: 0 is what training puts there")
    return steps


def _words(value: Any, where: str) -> list[str]:
    """The words of a record."""
    if value is None:
        return []
    words = words_said(value) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(map(_is_word, words)):
        raise DataError(f"{where} is no text and no list of words, which the model reads.\n  give 'a text'")
    return list(words)


def _is_word(word: Any) -> bool:
    """Whether it is a text that can be written; halves of characters cannot be."""
    return isinstance(word, str) and "\0" not in word and word.encode("utf-8", "ignore").decode() == word


def _check_width(where: str, width: int, reads: Reads) -> None:
    if width != reads.width:
        source = f" (in training, of {reads.source})" if reads.source else ""
        raise DataError(
            f"{where} has {width} numbers per step, and the model reads {reads.width}{source}.\n"
            "  give the features that it was trained on"
        )


def fitting(card: Card, store: Store, where: str, say: Say) -> Store:
    """The store with exactly the modalities of a model, without steps where it lacks one.

    Args:
        card: of the model.
        store: of the utterances.
        where: stands before the messages.
        say: takes a line per modality that is missing.

    Raises:
        DataError: it has an unknown modality, none of the model's, or one of another width.
    """
    unknown = [m for m in store.features if m not in card.inputs and m not in card.data.unread]
    if unknown:
        raise DataError(
            f"{where}: {printable(unknown[0])[:80]} is no modality of the model; it reads {', '.join(card.inputs)}.\n"
            "  leave it out, or give it the name that it had in training"
        )
    said = store.words or [[] for _ in store.ids]
    spoken = np.array([len(words) for words in said], dtype=np.int64)
    features, lengths = {}, {}
    for m, reads in card.inputs.items():
        held = store.features.get(m)
        if reads.kind == "words":
            held = Ragged(np.broadcast_to(np.float32(0), (int(spoken.sum()), reads.width)), offsets_of(spoken))
        elif reads.kind == "vectors" and held is not None and len(held.values):
            _check_width(f"{where}: {m}", held.width, reads)
        elif reads.kind == "vectors":
            held = Ragged(np.zeros((0, reads.width), np.float32), np.zeros(len(said) + 1, np.int64))
        lengths[m] = spoken if reads.kind == "pieces" or held is None else held.lengths
        if held is not None and reads.kind != "pieces":
            features[m] = held
    _say_missing(card, lengths, where, say)
    _say_dropped(store, say)
    _say_new(card, said, say)
    by_words = any(reads.kind != "vectors" for reads in card.inputs.values())
    return replace(store, features=features, words=said if by_words else store.words)


def _say_missing(card: Card, lengths: Mapping[str, np.ndarray], where: str, say: Say) -> None:
    """Name the modalities that utterances lack; an input without any is refused."""
    if not any(steps.any() for steps in lengths.values()):
        wanted = ", ".join(f"{m} ({'words' if r.kind != 'vectors' else r.width})" for m, r in card.inputs.items())
        raise DataError(f"{where} has no modality of the model, which reads {wanted}.\n  name another file")
    for m, steps in lengths.items():
        if absent := int((steps == 0).sum()):
            what = f"{m} (words)" if card.inputs[m].kind != "vectors" else m
            of = "all" if absent == len(steps) else f"{absent:,} of"
            say(f"{what} is missing in {of} {len(steps):,} utterances")


def _say_dropped(store: Store, say: Say) -> None:
    """Name the utterances that their reader left out."""
    for reason, ids in store.report.get("dropped", {}).items():
        if ids:
            more = f" and {len(ids) - _NUM_NAMED:,} more" if len(ids) > _NUM_NAMED else ""
            say(f"left out ({reason}): {', '.join(ids[:_NUM_NAMED])}{more}")


def _say_new(card: Card, said: Sequence[Sequence[str]], say: Say) -> None:
    """Name words that the model's vocabulary lacks."""
    known = {*card.vocabulary, PAUSE} if card.vocabulary is not None else None
    new = [] if known is None else [word for words in said for word in words if word not in known]
    if new:
        named = ", ".join(printable(word)[:40] for word in list(dict.fromkeys(new))[:_NUM_NAMED])
        say(f"{len(new):,} words are not in the model's vocabulary and are read as zeros, such as {named}")


def _check_finite(path: Path, store: Store) -> None:
    """Refuse a source that has values which are not finite: nobody has looked at what they mean."""
    found = {m: count for m, count in store.report.get("non_finite", {}).items() if count}
    for m, count in found.items():
        raise DataError(
            f"{path}: {m} has {count:,} values that are not finite.\n"
            f"  replace them: 0 is what training puts there; or type {program('mmsa')} prepare, and name its store"
        )


def _check_glove(card: Card, store: Store) -> None:
    """Refuse word vectors of another file than those that the model knows."""
    reads = card.inputs.get(TEXT)
    ours, theirs = card.data.hashes.get("glove"), store.sources.get("glove")
    if reads is None or reads.kind != "vectors" or ours == theirs or TEXT not in store.features:
        return
    name = reads.source or "a GloVe file"
    came = "its source's own" if theirs is None else store.report.get("files", {}).get("glove", "another file's")
    needed = f"those of {name} (SHA-256 {ours[:12]}…)" if ours else "those of its source"
    raise DataError(
        f"{store.path}: its text is word vectors, {printable(str(came))}, and the model reads {needed}.\n"
        f"  type dataset.glove={'FILE' if ours else 'null'} behind a source, or name another store"
    )


def _prepared(card: Card, path: Path, options: Sequence[str], folder: Path) -> Store:
    """The store of another source, of the model's data set unless an option names another."""
    named = [] if any(option.startswith("dataset=") for option in options) else [f"dataset={card.data.dataset}"]
    cfg = compose(
        [*named, *options, text_override("dataset.source", str(path)), text_override("paths.data", str(folder))]
    )
    check_node(cfg, "dataset")
    dataset = build.build_dataset(cfg)
    return dataset.reading_words(dataset.modalities).prepare(folder, progress=False)


def as_list(records: Record | Iterable[Record]) -> list[Record]:
    """One record, or several."""
    return [records] if isinstance(records, Mapping) else list(records)
