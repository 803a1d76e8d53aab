"""A data set: its statements, the options of a run, and its store, which is found or made."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from mmsa.data.loading import Loading
from mmsa.data.prepare import (
    Progress,
    add_integrity,
    announce,
    build_once,
    check_labels,
    drawn_vectors_line,
    hash_files,
    kept_stores,
    progress_bar,
    silent,
)
from mmsa.data.store import Prepared, Store, store_fingerprint
from mmsa.data.word_vectors import TEXT
from mmsa.dataset.choice import is_current, of_one_source, only_one, prepared_otherwise, way_to
from mmsa.dataset.folds import standard_folds
from mmsa.errors import ConfigError, DataError, printable
from mmsa.program import program
from mmsa.readers import families
from mmsa.readers.glove import embed_words, glove_file


@dataclass(frozen=True)
class Found:
    """A source that has been recognised.

    Args:
        files: those that are read, by role; a store is found by their content.
        read: reads them, given the folder of the stores, where large parts may wait on the disk, and the progress.
        modalities: those that are read, where it is known by now.
        options: of the store; None: those of the data set.
    """

    files: Mapping[str, Path]
    read: Callable[[Path, Progress], Prepared]
    modalities: Sequence[str] = ()
    options: dict[str, Any] | None = None


class Format(Protocol):
    """How a source is read; several data sets may have the same."""

    def find(self, dataset: Dataset, source: Path) -> Found:
        """Recognise a source of this data set, or refuse it with a DataError."""

    def wanted(self, dataset: Dataset) -> tuple[str, str]:
        """A sentence on the source that is read, and its placeholder in commands."""


class Dataset:
    """One data set, prepared once from its source files and kept by their content.

    A subclass states the attributes below and, where its format does not know the folds, `fold_of`.

    Args:
        source: file or folder of its `format`, or a prepared store; None takes the only one that fits.
        modalities: non-empty selection of those there are that a run loads; a store holds all that the source has.
        keep_pauses: keep the steps whose word is a pause (`sp`); no effect on a source without any.
        glove: GloVe text file; text becomes the vectors of the words. None takes the source's own text features.
        feature_sets: the computational sequence to take for a modality, where a folder holds several; others take the
            first that `sequences` names.
        loading: how a run loads the store; its options stand beside the others in a configuration.

    Raises:
        ConfigError: an option is out of its range.
    """

    name: str
    title: str
    nominal_range: tuple[float, float]
    """Infinite where the labels' own range is as good as any."""
    stated_bound: tuple[float, float]
    """Labels beyond this are refused; those between the nominal range and this bound are counted and reported."""
    kinds: ClassVar[Mapping[str, str]] = {"sentiment": "sentiment"}
    """Kind of each target (mmsa.training.kinds); a run predicts the first unless it names another."""
    canonical_sizes: ClassVar[Mapping[str, int]] = {}
    """Published number of utterances per fold; empty where nothing is published."""
    origin: str
    """Where a user gets the source files."""
    format: Format
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per role (words, labels, and one per modality) the names of its computational sequence, the usual one first; none
    where there are no such files."""
    sdk_name: str = ""
    """CMU's SDK's name of it, where that lists the addresses and folds of its sequences."""
    sdk_folds: ClassVar[Mapping[str, int]] = {}
    """How many videos are in each of the SDK's folds."""
    label_columns: ClassVar[tuple[str, ...]] = ()
    """Names of the columns of the sequence of labels; () is a sentiment, or one and six emotions."""
    _chosen: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        keep_pauses: bool = False,
        glove: str | None = None,
        feature_sets: Mapping[str, str] = MappingProxyType({}),
        loading: Loading = Loading(),  # noqa: B008  (frozen)
    ) -> None:
        self.source = source
        self.keep_pauses = keep_pauses
        self.glove = glove
        self.feature_sets = dict(feature_sets)
        self.loading = loading
        if feature_sets and not self.sequences:
            raise ConfigError(
                f"dataset.feature_sets chooses sequences, and {self.title} has none.\n  type dataset.feature_sets={{}}"
            )
        self.choose(tuple(modalities))

    def choose(self, asked: tuple[str, ...]) -> None:
        """Take these modalities, or refuse them with a ConfigError."""
        known = self.known or list(asked)
        if not asked or len(set(asked)) != len(asked) or not set(asked) <= set(known):
            there = ", ".join(known) or "those of the source"
            raise ConfigError(
                f"dataset.modalities={list(asked)} is refused: choose from {there}, "
                f"each at most once. Type for example dataset.modalities=[{','.join(known[:2]) or 'text,audio'}]"
            )
        self.loading.check(asked, known)
        self.modalities = asked
        self.needed = asked  # those whose features have to be there

    @property
    def known(self) -> list[str]:
        """The modalities that there may be; none where the source may have any."""
        return [role for role in self.sequences if role not in ("words", "labels")] or [TEXT, "audio", "visual"]

    def settled(self, store: Store | None = None) -> Self:
        """The same with its modalities and targets, where the source decides them.

        Args:
            store: the source's store; None asks the source itself.
        """
        return self

    @property
    def stated_kinds(self) -> Mapping[str, str]:
        """The kinds of the targets that are known before any data are read."""
        return self.kinds

    def may_have(self, target: str) -> bool:
        """Whether a source of this data set can have a target, as far as is known before any data are read."""
        return any(target == name or target.startswith(f"{name}_") for name in self.stated_kinds)

    def fold_of(self, source: Path) -> Mapping[str, str]:
        """Fold (train, valid, test) of every video; a video that is not named is skipped and reported.

        Args:
            source: the folder of computational sequences, which alone do not state the fold.
        """
        return standard_folds(self.sdk_name, self.sdk_folds) if self.sdk_name else {}

    def reading_words(self, modalities: Container[str]) -> Self:
        """The same for a run that reads these modalities from the words: their features need not be there."""
        other = copy(self)
        other.needed = tuple(m for m in self.needed if m not in modalities)
        return other

    def keeping_to(self, hashes: Mapping[str, str]) -> Self:
        """The same for a run among others, which of several prepared stores takes that of the source that they read.

        Args:
            hashes: SHA-256 of the source files by role; without any nothing is chosen yet.
        """
        other = copy(self)
        other._chosen = hashes
        return other

    @property
    def options(self) -> dict[str, Any]:
        """The preparation options, which define a store together with the hashes of its sources.

        Not the modalities: runs that differ in them alone read the same store, so the same utterances. A GloVe file is
        one of the sources.
        """
        if not self.sequences:
            return {}
        chosen = {"feature_sets": self.feature_sets} if self.feature_sets else {}
        return {"keep_pauses": self.keep_pauses, **chosen}

    @property
    def options_of_family(self) -> dict[str, Any]:
        """The same of a store that is made from the files of a family (mmsa.readers.families), which hold no pauses."""
        return {
            **self.options,
            **dict.fromkeys(self.options.keys() & {"keep_pauses"}, False),
            "reading": families.READING,
        }

    def find(self, source: Path) -> Found:
        """Recognise a source, or refuse it with a DataError."""
        return self.format.find(self, source)

    def prepare(self, folder: Path, progress: bool = True) -> Store:
        """The store of these options under `folder`: found by the content of the source, or made from it.

        Args:
            folder: where stores are kept; made if absent.
            progress: show a bar on a terminal and a line about the store.

        Raises:
            DataError: there is neither source nor store, several stores fit, or the source is not what the data set
                states.
        """
        if self.source is None or self._names_a_store(folder):
            store = self._kept_store(folder, progress)
        else:
            store = self.prepare_source(Path(self.source), folder, progress)
        if progress and self.keep_pauses and not store.options.get("keep_pauses"):
            announce("dataset.keep_pauses=true: this source holds no pauses")
        if progress and TEXT in self.needed and store.report.get("drawn_vectors"):
            announce(drawn_vectors_line(store.report["drawn_vectors"]))
        return store

    def prepare_source(self, source: Path, folder: Path, progress: bool = True) -> Store:
        """As `prepare`, from the source that is given here.

        Raises:
            DataError: the source is missing, damaged, not what the data set states, or lacks a modality asked for.
        """
        found = self.find(source)
        files = {**found.files, **glove_file(self.glove)}
        folder.mkdir(parents=True, exist_ok=True)
        made_from = os.path.abspath(source)

        with progress_bar(progress) as bar:
            path, sources, options = self._place(found, files, folder, bar)

            def build() -> Prepared:
                if progress:
                    of = f" from {printable(Path(made_from).name)}" if self.source is not None else ""
                    named = f" ({', '.join(found.modalities)})" if found.modalities else ""
                    announce(f"Preparing {self.name}{of}{named} in {folder}")
                return self._completed(found.read(folder, bar), source, files, bar)

            store = build_once(path, build, dataset=self.name, sources=sources, options=options)
        if (
            self.source is not None and store.report.get("source") != made_from
        ):  # another copy made it: this run is of the one that it names
            store = replace(store, report={**store.report, "source": made_from})
        absent = [modality for modality in self.needed if modality not in store.features]
        if absent:  # of a pickle that was prepared before; every other source has been refused above
            uneven = store.report.get("uneven", {})
            reasons = "".join(f" {modality} {uneven[modality]}." for modality in absent if modality in uneven)
            raise DataError(
                f"dataset.source={source} lacks {', '.join(absent)}.{reasons} {self._go_without(list(store.features))}"
            )
        return store

    def _place(
        self, found: Found, files: Mapping[str, Path], folder: Path, bar: Progress
    ) -> tuple[Path, dict[str, str], dict[str, Any]]:
        """Where the store of a source lies, with the hashes of its files and the options."""
        sources = hash_files(files, folder, bar)
        options = self.options if found.options is None else found.options
        return folder / f"{self.name}-{store_fingerprint(self.name, sources, options)}.h5", sources, options

    def _completed(self, prepared: Prepared, source: Path, files: Mapping[str, Path], bar: Progress) -> Prepared:
        """The data read, with GloVe's vectors and the report, checked against the statements of the data set."""
        if not prepared.ids:
            raise DataError(f"dataset.source={source} holds no utterance of {self.title}.\n{self.wanted()}")
        if "glove" in files and prepared.words:
            vectors, prepared.report["glove"] = embed_words(prepared.words, files["glove"], bar)
            prepared.features = {TEXT: vectors, **{m: r for m, r in prepared.features.items() if m != TEXT}}
            prepared.report.pop("drawn_vectors", None)
        named = {role: path.name for role, path in files.items()}
        prepared.report.update(files=named, canonical=dict(self.canonical_sizes))
        prepared.report |= {"source": os.path.abspath(source)} if self.source is not None else {}
        target = [*self.stated_kinds, *prepared.targets][0]
        labels = prepared.targets[target]
        stated = np.isfinite(self.nominal_range).all()
        nominal_range = self.nominal_range if stated else (float(labels.min()), float(labels.max()))
        add_integrity(prepared, target=target, nominal_range=nominal_range)
        check_labels(prepared, target, self.stated_bound, source, self.title)
        return prepared

    def _kept_store(self, folder: Path, progress: bool) -> Store:
        """The store of this data set, these options and this GloVe file that holds every modality asked for."""
        glove = hash_files(glove_file(self.glove), folder) if folder.is_dir() else {}
        kept = kept_stores(folder, self.name, self.options, self.options_of_family, glove.get("glove"))
        if self.source is not None:
            kept = [store for store in kept if store.path.name == Path(self.source).name]
            if not kept:
                raise prepared_otherwise(Store.open(Path(self.source)), self.options, self.options_of_family)
        if not kept:
            raise DataError(
                f"No prepared {self.title} with keep_pauses={str(self.keep_pauses).lower()} "
                f"and dataset.glove={self.glove or 'null'} in {folder}, and no dataset.source.\n{self.wanted(folder)}"
            )
        whole = [store for store in kept if store.features.keys() >= set(self.needed)]
        if not whole:
            held = "".join(f"  {store.path.name} has {', '.join(store.features)}\n" for store in kept[:3])
            most = max(kept, key=lambda store: len(store.features.keys() & set(self.needed)))
            raise DataError(
                f"No prepared {self.title} in {folder} has all of {', '.join(self.needed)}:\n{held}"
                f"{self._go_without(list(most.features))}\n"
                f"Or prepare a source that has them: {self._prepare_line(folder)}"
            )
        if self.source is not None:
            return whole[0]
        if self._chosen:
            whole = [store for store in whole if of_one_source(store.sources, self._chosen)]
            if not whole:
                raise DataError(
                    f"no prepared {self.title} in {folder} is of these options and of the source that the runs before "
                    "this one read.\n  type dataset.source=PATH of that source, from which it is prepared"
                )
            return whole[0]
        with progress_bar(progress) as bar:
            return only_one(whole, {store.path: self._is_current(store, bar) for store in whole}, self.title, folder)

    def way_to(self, store: Store) -> str:
        """The dataset.source that leads to a store of these options, whatever other stores there are."""
        return way_to(store, self._is_current(store, silent))

    def _is_current(self, store: Store, bar: Progress) -> bool | None:
        def leads_to(source: Path) -> tuple[Path, Mapping[str, str]]:
            found = self.find(source)
            return self._place(found, {**found.files, **glove_file(self.glove)}, store.path.parent, bar)[:2]

        return is_current(store, leads_to)

    def _names_a_store(self, folder: Path) -> bool:
        """Whether dataset.source is the path of a prepared store in `folder`."""
        path = Path(str(self.source))
        own = re.fullmatch(rf"{re.escape(self.name)}-[0-9a-f]{{12}}\.h5", path.name)
        return own is not None and path.is_file() and path.resolve().parent == folder.resolve()

    def present(self, held: Container[str]) -> list[str]:
        """Those of the modalities asked for that are held, or need not be."""
        return [modality for modality in self.modalities if modality in held or modality not in self.needed]

    def _go_without(self, held: Sequence[str]) -> str:
        """The option to type where only these modalities are held: the requested ones among them, else all."""
        return f"Go without: dataset.modalities=[{','.join(self.present(held) or held)}]"

    def wanted(self, folder: Path | None = None) -> str:
        """The needed source, where to get it, and the command that makes a store in `folder`, or the usual one."""
        sentence, place = self.format.wanted(self)
        return f"{sentence}\n{self.origin}\nType: {self._prepare_line(folder)} (or add dataset.source={place} to a run)"

    def _prepare_line(self, folder: Path | None) -> str:
        """The command that makes the store which these options ask for, in `folder`."""
        line = ["prepare", type(self).name, "--source", self.format.wanted(self)[1]]
        line += ["--glove", self.glove] if self.glove is not None else []
        line += ["--data", str(folder)] if folder else []
        line += [f"dataset.{name}=true" for name, value in self.options.items() if value is True]
        if set(self.modalities) != set(self.known):
            line.append(f"dataset.modalities=[{','.join(self.modalities)}]")
        return f"{program('mmsa')} {shlex.join(line)}"
