"""A data set: what its files are called, which video is in which fold, and which labels it may hold."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from mmsa.data.loading import Loading, MaxLength
from mmsa.data.normalise import CLIP, Normalize
from mmsa.data.prepare import (
    Progress,
    add_integrity,
    announce,
    build_once,
    drawn_vectors_line,
    hash_files,
    kept_stores,
    progress_bar,
    readable,
)
from mmsa.data.store import Prepared, Store, store_fingerprint
from mmsa.data.word_vectors import TEXT, WordVectors
from mmsa.dataset.checks import check_folds, check_labels, check_target, check_words
from mmsa.errors import ConfigError, DataError
from mmsa.ranges import Positive
from mmsa.readers.computational_sequences import find_sequences, read_sequences
from mmsa.readers.families import READING, read_file, read_folder, recognise_folder
from mmsa.readers.family import ReadOptions
from mmsa.readers.glove import embed_words, glove_file
from mmsa.readers.mistaken import HDF5_START, mistaken

_PICKLE_SIGNATURE = b"\x80"


@dataclass(frozen=True)
class Reading:
    """One reading of a source.

    Args:
        source: what was given: a file or a folder.
        files: those that are read, by role.
        folder: of the stores, where large parts may wait on the disk.
        bar: progress.
        say: told the modalities once they are known.
    """

    source: Path
    files: Mapping[str, Path]
    folder: Path
    bar: Progress
    say: Callable[[Sequence[str]], None]


class Dataset(ABC):
    """One data set, prepared once from its source files and kept by their content.

    A subclass states the class attributes below and `fold_of`; it needs no method more.

    Args:
        source: folder of computational sequences (.csd), or a file or folder of another family of
            mmsa.readers.families; None takes the prepared store.
        modalities: non-empty selection of text, audio, visual that a run loads; a store holds all that the source has.
        keep_pauses: keep the steps whose word is a pause (`sp`).
        normalize: "train" standardises by the statistics of the train fold when a run loads the data, "utterance" by
            those of each utterance, "none" does not; or one of them per modality, "train" where none is named.
        clip: standard deviations at which standardised features are clipped; None does not clip.
        max_length: steps of an utterance that a run reads, from its first; one number, or one per modality; beside
            `resample` those of its axis.
        resample: the modality onto whose steps those of the others are averaged, which gives all one time axis.
        word_vectors: "fixed" gives text as feature vectors, "trained" as words with a table of vectors to train.
        glove: GloVe text file; text becomes the vectors of the words. None takes the source's own text features.
        feature_sets: the computational sequence to take for a modality, where a folder holds several; others take the
            first that `sequences` names.

    Raises:
        ConfigError: an option is out of its range.
    """

    name: str
    title: str
    nominal_range: tuple[float, float]
    stated_bound: tuple[float, float]
    """Labels beyond this are refused; those between the nominal range and this bound are counted and reported."""
    kinds: ClassVar[Mapping[str, str]] = {"sentiment": "sentiment"}
    """What the numbers of each target mean (mmsa.training.kinds); a run predicts the first unless it names another."""
    canonical_sizes: ClassVar[dict[str, int]]
    """Published number of utterances per fold; empty where nothing is published."""
    sequences: ClassVar[Mapping[str, tuple[str, ...]]]
    """Per role (words, labels, and one per modality) the names of its computational sequence, the usual one first; none
    where the modalities may have any names."""
    label_columns: tuple[str, ...] = ()
    """Names of the columns of the sequence of labels; () is a sentiment, or one and six emotions."""
    origin: str
    """Where a user gets the source files."""

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        keep_pauses: bool = False,
        normalize: Normalize | Mapping[str, Normalize] = "train",
        clip: Positive | None = CLIP,
        max_length: MaxLength = None,
        resample: str | None = None,
        word_vectors: WordVectors = "fixed",
        glove: str | None = None,
        feature_sets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.source = source
        self.keep_pauses = keep_pauses
        self.loading = Loading(normalize, clip, max_length, resample, word_vectors)
        self.glove = glove
        self.feature_sets = dict(feature_sets)
        self._choose(tuple(modalities))

    def _choose(self, asked: tuple[str, ...]) -> None:
        """Take these modalities, where they are some that there are and suit the other options."""
        known = _modalities_in(self.sequences) or list(asked)
        if not asked or len(set(asked)) != len(asked) or not set(asked) <= set(known):
            there = ", ".join(known) or "those of the source"
            raise ConfigError(
                f"dataset.modalities={list(asked)} is refused: choose from {there}, "
                f"each at most once. Type for example dataset.modalities=[{','.join(known[:2]) or 'text,audio'}]"
            )
        self.loading.check(asked, known)
        self.modalities = asked
        self._needed = asked  # those whose features have to be there

    def settled(self, store: Store | None = None) -> Self:
        """The same once its modalities and targets are known, where they are the source's to say.

        Args:
            store: what was prepared of the source; None asks the source itself.
        """
        return self

    @property
    def stated_kinds(self) -> Mapping[str, str]:
        """What is known of the targets before any data are read."""
        return self.kinds

    @abstractmethod
    def fold_of(self, source: Path) -> Mapping[str, str]:
        """Fold (train, valid, test) of every video; a video that is not named is skipped and reported.

        Args:
            source: the folder of computational sequences.
        """

    def reading_words(self, modalities: Container[str]) -> Self:
        """The same for a run that reads these modalities from the words: their features need not be there."""
        other = copy(self)
        other._needed = tuple(m for m in self._needed if m not in modalities)
        return other

    @property
    def options(self) -> dict[str, Any]:
        """The preparation options, which define a store together with the hashes of its sources.

        Not the modalities: runs that differ in them alone read the same store, so the same utterances. A GloVe file is
        one of the sources.
        """
        chosen = {"feature_sets": self.feature_sets} if self.feature_sets else {}
        return {"keep_pauses": self.keep_pauses, **chosen}

    def prepare(self, folder: Path, progress: bool = True) -> Store:
        """The store of these options under `folder`: found by the content of the source, or made from it.

        Args:
            folder: where stores are kept; made if absent.
            progress: show a bar on a terminal and say in a line what is made.

        Raises:
            DataError: there is neither source nor store, or the source is not what the data set states.
        """
        if self.source is None:
            store = self._kept_store(folder, progress)
        else:
            store = self.prepare_source(Path(self.source), folder, progress)
        if progress and TEXT in self._needed and store.report.get("drawn_vectors"):
            announce(drawn_vectors_line(store.report["drawn_vectors"]))
        return store

    def prepare_source(self, source: Path, folder: Path, progress: bool = True) -> Store:
        """As `prepare`, from the source that is given here.

        Raises:
            DataError: the source is missing, damaged, not what the data set states, or lacks a modality asked for.
        """
        files = self._source_files(source) | glove_file(self.glove)
        folder.mkdir(parents=True, exist_ok=True)

        def say(modalities: Sequence[str]) -> None:
            if progress:
                announce(f"Preparing {self.name} ({', '.join(modalities)}) in {folder}")

        with progress_bar(progress) as bar:
            sources = hash_files(files, folder, bar)
            options = self.options | self._reading_of(files)
            path = folder / f"{self.name}-{store_fingerprint(self.name, sources, options)}.h5"

            def build() -> Prepared:
                return self._read(Reading(source, files, folder, bar, say))

            store = build_once(path, build, dataset=self.name, sources=sources, options=options)
        absent = [modality for modality in self._needed if modality not in store.features]
        if absent:  # of a pickle that was prepared before; every other source has been refused above
            raise DataError(
                f"dataset.source={source} lacks {', '.join(absent)}. {self._go_without(list(store.features))}"
            )
        return store

    def _reading_of(self, files: Mapping[str, Path]) -> dict[str, int]:
        """The option that tells the stores of a family's files from those of an earlier reading."""
        return {} if any(path.suffix == ".csd" for path in files.values()) else {"reading": READING}

    def _source_files(self, source: Path) -> dict[str, Path]:
        """The files that are read: one per role, or the one pickle."""
        if source.is_dir():
            whole = None if any(source.glob("*.csd")) else recognise_folder(source)
            if whole is None:
                return self._sequence_files(source)
            self._refuse_pauses()
            return whole[1]
        if not source.is_file():
            raise DataError(f"dataset.source={source}: no such file or folder.\n{self._wanted()}")
        with readable(source), open(source, "rb") as file:
            start = file.read(len(HDF5_START))
        if start == HDF5_START:
            raise DataError(
                f"dataset.source={source} is one HDF5 file. Give the folder that holds all sequences: "
                f"dataset.source={source.parent}"
            )
        if not start.startswith(_PICKLE_SIGNATURE) and source.suffix not in (".pkl", ".pickle"):
            other = f"dataset.source={source} is neither a folder nor a pickle.\n{self._wanted()}"
            raise DataError(mistaken(source) or other)
        self._refuse_pauses()
        return {"pickle": source}

    def _refuse_pauses(self) -> None:
        if self.keep_pauses:
            raise DataError(
                "dataset.keep_pauses=true does nothing here: no pauses are held.\n  type dataset.keep_pauses=false"
            )

    def _sequence_files(self, source: Path) -> dict[str, Path]:
        found = find_sequences(source, self.sequences, self.feature_sets)
        if not found:
            pickles = sorted(filter(Path.is_file, source.glob("*.pkl")))
            instead = f" Did you mean dataset.source={pickles[0]}?" if pickles else ""
            raise DataError(f"dataset.source={source} holds no {self.title} sequence.{instead}\n{self._wanted()}")
        missing = [role for role in self._roles if role not in found]
        if missing:
            names = {role: " or ".join(f"{name}.csd" for name in self.sequences[role]) for role in missing}
            wanted = "; ".join(f"{role}: {accepted}" for role, accepted in names.items())
            present = self._present(found)
            vectors = ", or give word vectors: dataset.glove=FILE" if TEXT in missing else ""
            without = f" Put it there{vectors}, or go without: dataset.modalities=[{','.join(present)}]"
            if not present or not {"words", "labels"} <= found.keys():
                without = ""
            raise DataError(f"dataset.source={source} lacks {wanted}.{without}")
        return {role: path for role, path in found.items() if role != TEXT or self.glove is None}

    @property
    def _roles(self) -> list[str]:
        """The sequences that have to be there."""
        return ["words", *(m for m in self._needed if m != TEXT or self.glove is None), "labels"]

    def _present(self, held: Container[str]) -> list[str]:
        """Those of the modalities asked for that are held, or need not be."""
        return [modality for modality in self.modalities if modality in held or modality not in self._needed]

    def _read(self, reading: Reading) -> Prepared:
        source, files, bar, say = reading.source, reading.files, reading.bar, reading.say
        if not any(path.suffix == ".csd" for path in files.values()):
            read = read_folder if source.is_dir() else read_file
            required = tuple(m for m in self._needed if m != TEXT or "glove" not in files)
            prepared = read(source, self._read_options(required), bar)
            check_target(prepared, self._primary, source, self.title)
            if self.glove is not None:
                check_words(prepared, source)
            say(list(prepared.features))  # only now, since a pickle does not say what it holds before it is read
        else:
            modalities = [m for m in _modalities_in(self.sequences) if m in files]
            say([m for m in _modalities_in(self.sequences) if m in files or (m == TEXT and "glove" in files)])
            prepared = read_sequences(
                files,
                fold_of=self.fold_of(source),
                keep_pauses=self.keep_pauses,
                modalities=modalities,
                label_columns=self.label_columns,
                folder=reading.folder,
                progress=bar,
            )
        if "glove" in files and prepared.words:
            vectors, prepared.report["glove"] = embed_words(prepared.words, files["glove"], bar)
            prepared.features = {TEXT: vectors, **{m: r for m, r in prepared.features.items() if m != TEXT}}
            prepared.report.pop("drawn_vectors", None)
        prepared.report["files"] = {role: path.name for role, path in files.items()}
        prepared.report["canonical"] = dict(self.canonical_sizes)
        add_integrity(prepared, target=self._primary, nominal_range=self.nominal_range)
        self._check(source, prepared)
        return prepared

    def _read_options(self, required: tuple[str, ...]) -> ReadOptions:
        """What a reader is asked for."""
        return ReadOptions(required, canonical=self.canonical_sizes)

    @property
    def _primary(self) -> str:
        return next(iter(self.stated_kinds))

    def _check(self, source: Path, prepared: Prepared) -> None:
        check_folds(prepared.report["utterances"], source, self.title, self._wanted())
        check_labels(prepared, self._primary, self.stated_bound, source, self.title)

    def _kept_store(self, folder: Path, progress: bool) -> Store:
        """The newest store of this data set, these options and this GloVe file that holds every modality asked for."""
        glove = hash_files(glove_file(self.glove), folder) if folder.is_dir() else {}
        kept = kept_stores(folder, self.name, self.options, glove.get("glove"), READING)
        if not kept:
            raise DataError(
                f"No prepared {self.title} with keep_pauses={str(self.keep_pauses).lower()} "
                f"and dataset.glove={self.glove or 'null'} in {folder}, and no dataset.source.\n{self._wanted(folder)}"
            )
        whole = [store for store in kept if store.features.keys() >= set(self._needed)]
        if not whole:
            held = "".join(f"  {store.path.name} has {', '.join(store.features)}\n" for store in kept[:3])
            most = max(kept, key=lambda store: len(store.features.keys() & set(self._needed)))
            raise DataError(
                f"No prepared {self.title} in {folder} has all of {', '.join(self._needed)}:\n{held}"
                f"{self._go_without(list(most.features))}\n"
                f"Or prepare a source that has them: {self._prepare_line(folder)}"
            )
        if len(whole) > 1 and progress:
            announce(f"{len(whole)} stores of {self.title} in {folder}: the newest is used, {whole[0].path.name}")
        return whole[0]

    def _go_without(self, held: Sequence[str]) -> str:
        """What to type where only these modalities are held: those of them that were asked for, else all of them."""
        return f"Go without: dataset.modalities=[{','.join(self._present(held) or held)}]"

    def _wanted(self, folder: Path | None = None) -> str:
        files = ", ".join(f"{self.sequences[role][0]}.csd" for role in self._roles)
        pickled = "" if self._place == "FOLDER" else ", or from MMSA's aligned_50.pkl"
        return (
            f"{self.title} is read from a folder with {files}{pickled}.\n{self.origin}\n"
            f"Type: {self._prepare_line(folder)} (or add dataset.source={self._place} to a run)"
        )

    @property
    def _place(self) -> str:
        """A pickle holds no pauses, and not the word of every step."""
        return "FOLDER" if self.keep_pauses or self.glove is not None else "FOLDER_OR_FILE"

    def _prepare_line(self, folder: Path | None) -> str:
        """The command that makes the store which these options ask for, in `folder`."""
        line = ["mmsa", "prepare", self.name, "--source", self._place]
        line += ["--glove", self.glove] if self.glove is not None else []
        line += ["--data", str(folder)] if folder else []
        line += ["dataset.keep_pauses=true"] if self.keep_pauses else []
        if set(self.modalities) != set(_modalities_in(self.sequences)):
            line.append(f"dataset.modalities=[{','.join(self.modalities)}]")
        return shlex.join(line)


def _modalities_in(roles: Iterable[str]) -> list[str]:
    return [role for role in roles if role not in ("words", "labels")]
