"""The prepared data set on disk: one HDF5 file, mapped read-only and so shared by every process that trains on it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shlex
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsa.data.hdf5 import DAMAGE, opened
from mmsa.data.hdf5_raw import root_texts
from mmsa.data.naming import data_name
from mmsa.data.ragged import Ragged, offsets_of
from mmsa.data.store_content import Content, contradictions, parsed, read_content
from mmsa.errors import DataError, printable
from mmsa.program import program

FOLDS = ("train", "valid", "test")
PAUSE = "sp"
"""The word of a step without one, as the field writes it."""
SCHEMA_VERSION = 1

FORMAT = "mmsa store"
_LONGEST = 300


@dataclass
class Prepared:
    """The result of every reader; rows are ordered by fold (train, valid, test), video, segment.

    Args:
        ids: "video[k]", k counted as in the source.
        videos: video of every row.
        folds: fold of every row.
        targets: float32 arrays whose first axis is N; "sentiment" is (N,).
        features: per modality the steps of every row.
        words: the words of every row where the source has them; one per step only where the source aligns them.
        report: JSON-able counts of repaired and dropped values and utterances.
    """

    ids: list[str]
    videos: list[str]
    folds: list[str]
    targets: dict[str, np.ndarray]
    features: dict[str, Ragged]
    words: list[list[str]] | None = None
    report: dict[str, Any] = field(default_factory=dict)


def store_fingerprint(dataset: str, sources: dict[str, str], options: dict[str, Any]) -> str:
    """12 hex digits that change with whatever defines a store's content: source hashes, options, schema version.

    Args:
        dataset: name of the data set.
        sources: SHA-256 of every source file, by its role.
        options: preparation options, JSON-able.
    """
    defining = {"dataset": dataset, "sources": sources, "options": options, "schema": SCHEMA_VERSION}
    return hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()[:12]


def temporary_name(path: Path) -> Path:
    """The name of `path` until it is whole: no two processes, on any machine, take the same name."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def write_store(
    path: Path, prepared: Prepared, *, dataset: str, sources: dict[str, str], options: dict[str, Any]
) -> None:
    """Write `prepared` to `path` under a temporary name and rename it: a killed writer leaves the old store or none.

    Args:
        path: the store, replaced if it exists; its folder exists.
        prepared: rows of every fold.
        dataset, sources, options: as of `store_fingerprint`.

    Raises:
        DataError: the disk is full, or the folder cannot be written to.
    """
    temporary = temporary_name(path)
    try:
        # Aligned arrays, since a mapped float that straddles its own size is slow or refused.
        with h5py.File(temporary, "w", alignment_threshold=1, alignment_interval=64) as file:
            file.attrs.update(format=FORMAT, schema_version=SCHEMA_VERSION, dataset=dataset)
            file.attrs.update(sources=json.dumps(sources), options=json.dumps(options))
            _write_rows(file, prepared)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"The store {path} cannot be written: {_first_line(error)}.\n"
            "  type paths.data=FOLDER on a disk with room that you may write to"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_rows(file: h5py.File, prepared: Prepared) -> None:
    text = h5py.string_dtype()
    # A data set, not an attribute: a long list of dropped utterances exceeds an attribute's 64 KiB.
    file.create_dataset("report", data=json.dumps(prepared.report), dtype=text)
    for name, column in (("ids", prepared.ids), ("videos", prepared.videos), ("folds", prepared.folds)):
        file.create_dataset(name, data=column, dtype=text)
    for group in ("targets", "features"):
        file.create_group(group, track_order=True)  # so that they are read in the order of writing
    for name, target in prepared.targets.items():
        file.create_dataset(f"targets/{name}", data=np.asarray(target, dtype=np.float32))
    for name, ragged in prepared.features.items():
        values = file.create_dataset(f"features/{name}/values", shape=ragged.values.shape, dtype=np.float32)
        start = 0
        for block in ragged.blocks():
            values[start : start + len(block)] = block
            start += len(block)
        file.create_dataset(f"features/{name}/offsets", data=ragged.offsets)
    if prepared.words is not None:
        file.create_dataset("words/values", data=[word for words in prepared.words for word in words], dtype=text)
        file.create_dataset("words/offsets", data=offsets_of(list(map(len, prepared.words))))


@dataclass(frozen=True)
class Parts:
    """What own folds are made of (`mmsa.data.own_folds`).

    Args:
        num_folds: the number of parts.
        held_out: the part that is the test fold.
        hash: 12 hex digits over the part of each video, the same for every held-out part.
    """

    num_folds: int
    held_out: int
    hash: str


@dataclass(frozen=True)
class Store:
    """A prepared data set, opened read-only; `features` are mapped from the file, not read.

    Args:
        path: the file.
        dataset: name of the data set.
        ids, videos, folds, targets, features, words, report: as of `Prepared`; folds are (N,).
        options: preparation options.
        sources: SHA-256 of every source file, by its role.
        fingerprint: 12 hex digits over sources, options and schema version.
        parts: of own folds; None: `folds` are those of the source.
    """

    path: Path
    dataset: str
    ids: list[str]
    videos: list[str]
    folds: np.ndarray
    targets: dict[str, np.ndarray]
    features: dict[str, Ragged]
    words: list[list[str]] | None
    report: dict[str, Any]
    options: dict[str, Any]
    sources: dict[str, str]
    fingerprint: str
    parts: Parts | None = None

    @property
    def source_name(self) -> str | None:
        """Name of the file or folder that it was made from, and of its GloVe file; None of the built-in corpus."""
        files = dict(self.report.get("files", {}))
        glove = files.pop("glove", None)
        if self.report.get("planted") or not files:
            return None
        first, *more = files.values()
        made_from = Path(self.report["source"]).name if "source" in self.report else first  # of an older version
        if more and "source" not in self.report:
            made_from += f" and {len(more)} more"
        return printable(f"{made_from} with {glove}" if glove else made_from)

    @property
    def title(self) -> str:
        """The name of its data where people read of them."""
        return data_name(self.dataset, self.source_name)

    @classmethod
    def open(cls, path: Path, remedy: str | None = None) -> Store:
        """Open a store, whoever made it.

        Args:
            path: the file.
            remedy: what the user types where it cannot be opened; None is to make it again.

        Raises:
            DataError: it is missing, may not be read, is damaged, not a store, or of another schema version.
        """
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"No store at {path}.\n  type {program('mmsa')} prepare NAME --source PATH to make one")
        quoted = shlex.quote(str(path))
        again = f"type rm {quoted} and prepare the data again, as dataset.source or its first run did"
        try:
            with opened(path) as file:
                stated = root_texts(file)
                if stated.get("format") != FORMAT:
                    aside = f"type mv {quoted} {quoted}.other"
                    raise DataError(f"{path} is HDF5 but not a store made by `mmsa prepare`.\n  {remedy or aside}")
                version = _schema_version(file)
                if version > SCHEMA_VERSION:
                    newer = f"schema version {version}, this one reads {SCHEMA_VERSION}"
                    raise DataError(f"{path}: a newer mmsa wrote it ({newer}).\n  update mmsa")
                if version < SCHEMA_VERSION:
                    older = f"schema version {version}, {SCHEMA_VERSION} is required"
                    raise DataError(f"{path} is a store of an older mmsa ({older}).\n  {remedy or again}")
                return cls._of(path, stated, read_content(file, path))
        except PermissionError as error:
            raise DataError(f"{path} may not be read.\n  type chmod u+r {quoted}") from error
        except BlockingIOError as error:
            raise DataError(f"{path} is open in a program that writes to it.\n  close it there first") from error
        except DAMAGE as error:
            wrong = printable(" ".join(str(error).split())[:_LONGEST]).rstrip(".") or type(error).__name__
            raise DataError(f"{path} is a damaged store: {wrong}.\n  {remedy or again}") from error

    @classmethod
    def _of(cls, path: Path, stated: dict[str, str], content: Content) -> Store:
        """The store that a file holds.

        Raises:
            ValueError: its parts do not fit together.
        """
        if wrong := next(contradictions(content, FOLDS), None):
            raise ValueError(wrong)
        if absent := {"dataset", "sources", "options"} - stated.keys():
            raise ValueError(f"it states no {min(absent)}")
        dataset, sources, options = stated["dataset"], parsed(stated["sources"]), parsed(stated["options"])
        if not dataset.isprintable() or not all(isinstance(sha256, str) for sha256 in sources.values()):
            raise ValueError("its dataset or its sources are not named as ours")
        words = None
        if content.words is not None:
            flat, offsets = content.words
            words = [flat[start:stop] for start, stop in pairwise(offsets.tolist())]
        return cls(
            path=path,
            dataset=dataset,
            ids=content.ids,
            videos=content.videos,
            folds=np.array(content.folds, dtype=str),
            targets=content.targets,
            features={name: Ragged(values, content.offsets[name]) for name, values in content.values.items()},
            words=words,
            report=content.report,
            options=options,
            sources=sources,
            fingerprint=store_fingerprint(dataset, sources, options),
        )


def is_store(path: Path) -> bool:
    """Whether a file states that it is a store."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with opened(path) as file:
            return root_texts(file).get("format") == FORMAT
    except DAMAGE:  # no HDF5, or damaged: its reader names it
        return False


def _schema_version(file: h5py.File) -> int:
    stated = h5py.h5a.open(file.id, b"schema_version")
    if stated.shape != () or stated.get_type().get_class() != h5py.h5t.INTEGER:
        raise ValueError("its schema version is no number")
    return int(file.attrs["schema_version"])


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
