"""Your own features, from one file of named arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Literal, Self

from torch import nn

from mmsa.data.loading import Loading
from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared, Store
from mmsa.dataset.dataset import Dataset, Format, Found
from mmsa.errors import ConfigError, DataError
from mmsa.readers.arrays import contents, read_arrays
from mmsa.training.kinds import KINDS, kind_of

Kind = Literal["auto", "sentiment", "sims", "binary", "emotions", "number"]
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


class NamedArrays(Format):
    """One file of named arrays, which states the modalities, targets and folds."""

    def find(self, dataset: Dataset, source: Path) -> Found:
        def read(folder: Path, progress: Progress) -> Prepared:
            prepared = read_arrays(source, dataset.needed, progress, folder)
            prepared.report.update(family="named arrays", folds="those of the source")
            return prepared

        return Found({"arrays": source}, read)

    def wanted(self, dataset: Dataset) -> tuple[str, str]:
        return "A file of named arrays is required, .npz or HDF5.", "FILE.npz"


class Custom(Dataset):
    """Any modalities, targets and folds that a file of named arrays holds; docs/custom_data.md says how it is written.

    Args:
        source: .npz, HDF5, or a store made by `mmsa prepare`.
        modalities: those that a run loads; None takes all that the file has.
        kind: kind of the main target, which is `target`, or the first `target/NAME` of the file; "auto" infers it from
            the name, as for the other targets (`mmsa.training.kinds.kind_of`).
        name: of the data set in tables and of its stores: letters, digits, - and _.
        keep_pauses: as recipes set it; its files hold no pauses.
        loading: as of `Dataset`.

    Raises:
        ConfigError: an option is out of its range.
    """

    name = "custom"
    title = "the data set"
    nominal_range = (-math.inf, math.inf)
    stated_bound = (-math.inf, math.inf)
    format = NamedArrays()
    origin = "docs/custom_data.md says how to write one."

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] | None = None,
        kind: Kind = "auto",
        name: str = "custom",
        keep_pauses: bool = False,
        loading: Loading = Loading(),  # noqa: B008  (frozen)
    ) -> None:
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"dataset.name={name}: letters, digits, - and _ only.\n  type dataset.name=my_data")
        self._all = modalities is None
        self._targets: tuple[str, ...] = ()
        super().__init__(source, modalities or (), keep_pauses, loading=loading)
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
        found = contents(Path(str(self.source))) if store is None else (tuple(store.features), tuple(store.targets))
        held, other._targets = found
        main = other._targets[0]
        other.nominal_range = KINDS[kind_of(main, other.stated_kinds)].nominal_range
        if self._all:
            if not held:
                raise ConfigError(
                    f"dataset.source={self.source} has words and no features.\n"
                    "  type dataset.modalities=[text] encoder/text=bert"
                )
            other.choose(held)
        return other

    @property
    def stated_kinds(self) -> Mapping[str, str]:
        """The kind of the main target."""
        return dict.fromkeys(self._targets[:1], self.kind)

    def may_have(self, target: str) -> bool:
        """Whether its file, or the store of it, has a target."""
        return target in self._targets or not self._targets

    @property
    def known(self) -> list[str]:
        """None: a file may have any."""
        return []

    def choose(self, asked: tuple[str, ...]) -> None:
        """Take these modalities; none yet where they are those of a file that has not been read."""
        if self._all and not asked:
            self.modalities = self.needed = ()
            return
        taken = [m for m in asked if hasattr(nn.ModuleDict(), m)]
        if taken:
            raise ConfigError(
                f"a modality cannot be called {taken[0]}, a name that torch uses.\n  rename it in the file"
            )
        super().choose(asked)

    def prepare(self, folder: Path, progress: bool = True) -> Store:
        """As of `Dataset`, from the source, which alone says the modalities and targets."""
        if self.source is None:
            raise DataError(
                f"dataset=custom is read from a file, and dataset.source names none.\n{self.wanted(folder)}"
            )
        return super().prepare(folder, progress)

    def _names_a_store(self, folder: Path) -> bool:
        """False: a store is read as any other file of this contract."""
        return False
