"""Features of one's own, from one file of named arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import nn

from mmsa.data.loading import MaxLength
from mmsa.data.normalise import CLIP, Normalize
from mmsa.data.prepare import add_integrity
from mmsa.data.store import Prepared, Store
from mmsa.data.word_vectors import WordVectors
from mmsa.dataset.dataset import Dataset, Reading
from mmsa.errors import ConfigError, DataError
from mmsa.ranges import Positive
from mmsa.readers.arrays import contents, read_arrays

Kind = Literal["sentiment", "sims", "binary", "emotions", "number"]
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


class Custom(Dataset):
    """Any modalities, targets and folds that a file of named arrays holds; docs/custom_data.md says how it is written.

    Args:
        source: .npz, HDF5, or a store made by `mmsa prepare`.
        modalities: those that a run loads; None takes all that the file has.
        kind: what the numbers of the main target mean, which is `target`, or the first `target/NAME` of the file.
        name: of the data set in tables and of its stores: letters, digits, - and _.
        normalize: as of `Dataset`.
        clip: as of `Dataset`.
        max_length: as of `Dataset`.
        resample: as of `Dataset`.
        word_vectors: as of `Dataset`.
        keep_pauses: as recipes set it; its files hold no pauses, so true is refused.

    Raises:
        ConfigError: an option is out of its range.
    """

    title = "the data set"
    nominal_range = (-float("inf"), float("inf"))
    stated_bound = (-float("inf"), float("inf"))
    canonical_sizes: ClassVar[dict[str, int]] = {}
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    origin = "docs/custom_data.md says how to write one."

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] | None = None,
        kind: Kind = "number",
        name: str = "custom",
        normalize: Normalize | Mapping[str, Normalize] = "train",
        clip: Positive | None = CLIP,
        max_length: MaxLength = None,
        resample: str | None = None,
        word_vectors: WordVectors = "fixed",
        keep_pauses: bool = False,
    ) -> None:
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"dataset.name={name}: letters, digits, - and _ only.\n  type dataset.name=my_data")
        self._all = modalities is None
        self._targets: tuple[str, ...] = ()
        super().__init__(source, modalities or (), keep_pauses, normalize, clip, max_length, resample, word_vectors)
        self._refuse_pauses()
        self.kind = kind
        self.name = name

    def settled(self, store: Store | None = None) -> Self:
        """The same with the modalities and targets of its file, or of this store of it.

        Raises:
            DataError: the file is missing, or not of this contract.
        """
        if store is None and self.source is None:
            return self
        other = copy(self)
        if store is not None:
            held, other._targets = tuple(store.features), tuple(store.targets)
        else:
            found = contents(Path(str(self.source)))
            held, other._targets = found.modalities, found.targets
        if self._all:
            if not held:
                raise ConfigError(
                    f"dataset.source={self.source} has words and no features.\n"
                    "  type dataset.modalities=[text] encoder/text=bert"
                )
            other._choose(held)
        return other

    @property
    def stated_kinds(self) -> Mapping[str, str]:
        """The kind of the main target; the others are of the usual kind of their name, or numbers."""
        return dict.fromkeys(self._targets[:1], self.kind)

    def fold_of(self, source: Path) -> Mapping[str, str]:
        """Of no video: the file states the fold of every utterance."""
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """None: a file has one reading."""
        return {}

    def _choose(self, asked: tuple[str, ...]) -> None:
        if self._all and not asked:  # not known yet
            self.modalities = self._needed = ()
            return
        taken = [m for m in asked if hasattr(nn.ModuleDict(), m)]
        if taken:
            raise ConfigError(f"a modality cannot be called {taken[0]}, a word of torch's own.\n  type another name")
        super()._choose(asked)

    def _reading_of(self, files: Mapping[str, Path]) -> dict[str, int]:
        return {}

    def _source_files(self, source: Path) -> dict[str, Path]:
        if not source.is_file():
            raise DataError(f"dataset.source={source}: no such file.\n{self._wanted()}")
        return {"arrays": source}

    def _read(self, reading: Reading) -> Prepared:
        held = contents(reading.source)
        reading.say(held.modalities or ("text",))
        prepared = read_arrays(reading.source, self._needed, reading.bar)
        labels = prepared.targets[held.targets[0]]
        prepared.report.update(family="named arrays", folds="those of the source", canonical={})
        prepared.report["files"] = {role: path.name for role, path in reading.files.items()}
        add_integrity(prepared, target=held.targets[0], nominal_range=(float(labels.min()), float(labels.max())))
        self._check(reading.source, prepared)
        return prepared

    def _kept_store(self, folder: Path, progress: bool) -> Store:
        raise DataError(f"dataset=custom is read from a file, and dataset.source names none.\n{self._wanted(folder)}")

    def _wanted(self, folder: Path | None = None) -> str:
        return f"A file of named arrays is required: {self.origin}\n  type dataset.source=FILE.npz, or FILE.h5"
