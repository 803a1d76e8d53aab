"""The built-in corpus: made on first use as computational sequences with a planted truth (docs/synthetic.md)."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmsa.corpus import planted, planted_features
from mmsa.corpus.planted import Truth, best_predictions
from mmsa.corpus.planted_features import Video, draw_corpus
from mmsa.data.loading import Loading
from mmsa.data.prepare import Progress, progress_bar
from mmsa.data.store import FOLDS, Prepared, Store
from mmsa.dataset.dataset import Dataset, Found
from mmsa.dataset.sequences import Sequences
from mmsa.errors import DataError
from mmsa.files import stale
from mmsa.program import program
from mmsa.readers.sequence_file import write_sequence

SEED = 0


class Synthetic(Dataset):
    """The built-in corpus, whose label law and best reachable error are known; results on it are planted data.

    It has no source to set: its files are drawn from a fixed seed into a folder beside the stores. Its targets are the
    sentiment and that of each modality alone, named as in CH-SIMS.

    Args:
        modalities: non-empty selection of text, audio, visual that a run loads; the store holds all.
        keep_pauses: keep the steps whose word is a pause (`sp`).
        loading: as of every data set.

    Raises:
        ConfigError: an option is out of its range.
    """

    name = "synthetic"
    title = "the built-in corpus"
    nominal_range = (-3.0, 3.0)
    stated_bound = (-3.0, 3.0)
    kinds: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sentiment", "sentiment_text", "sentiment_audio", "sentiment_visual"), "sentiment"
    )
    label_columns: ClassVar[tuple[str, ...]] = tuple(kinds)
    format = Sequences()
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "words": ("Synthetic_TimestampedWords",),
        "text": ("Synthetic_TimestampedWordVectors",),
        "audio": ("Synthetic_Voice",),
        "visual": ("Synthetic_Face",),
        "labels": ("Synthetic_Labels",),
    }
    origin = "It is made on first use; there is nothing to download."

    def __init__(
        self,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        keep_pauses: bool = False,
        loading: Loading = Loading(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(None, modalities, keep_pauses, loading=loading)

    def fold_of(self, source: Path) -> Mapping[str, str]:
        """The fold in which each video was drawn."""
        return {video.name: video.fold for video in _corpus()}

    def prepare(self, folder: Path, progress: bool = True) -> Store:
        """As of `Dataset`; the source files too are made if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"synthetic-source-{_recipe_hash()}"
        with progress_bar(progress) as bar:
            make_once(source, lambda target: self._write(target, bar))
        return super().prepare_source(source, folder, progress)

    def prepare_source(self, source: Path, folder: Path, progress: bool = True) -> Store:
        """Refused: this corpus is drawn, not read.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"The built-in corpus takes no source, got {source}. Type: {program('mmsa')} prepare {self.name}"
        )

    def _write(self, target: Path, bar: Progress) -> None:
        """Write the five sequences into an existing folder."""
        for role, (name,) in bar(self.sequences.items(), "writing the built-in corpus", len(self.sequences)):
            write_sequence(target / f"{name}.csd", name, {video.name: video.streams[role] for video in _corpus()})

    def find(self, source: Path) -> Found:
        """Recognise the drawn folder; its reader adds the planted truth."""
        found = super().find(source)
        return replace(found, read=lambda folder, bar: _with_truth(found.read(folder, bar)))


def _with_truth(prepared: Prepared) -> Prepared:
    truths = planted_truth()
    contradicts = np.array([truths[name].contradicts for name in prepared.ids])
    contradicting = _mean_per_fold(contradicts, np.array(prepared.folds))
    prepared.report.update(planted=True, best_mae=best_reachable_mae(), contradicting=contradicting)
    return prepared


def planted_truth() -> dict[str, Truth]:
    """The latent factors of every utterance, by its id "video[k]"; rows are ordered as in the store."""
    return {f"{video.name}[{k}]": truth for video in _corpus() for k, truth in enumerate(video.truths)}


def best_reachable_mae() -> dict[str, float]:
    """Per fold the MAE of the predictor that knows every latent factor: only the annotators' disagreement is left."""
    truths = [truth for video in _corpus() for truth in video.truths]
    folds = np.array([video.fold for video in _corpus() for _ in video.truths])
    predictions, _ = best_predictions([truth.sentiment for truth in truths])
    return _mean_per_fold(np.abs(predictions - np.array([truth.label for truth in truths])), folds)


def make_once(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder under a temporary name and rename it: a killed writer leaves no folder of that name.

    Args:
        target: the folder to make; nothing is done where it is there.
        write: fills the empty folder that it is given.
    """
    if target.is_dir():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        if leftover == temporary or stale(leftover):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        write(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same bits
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@cache
def _corpus() -> tuple[Video, ...]:
    return tuple(draw_corpus(SEED))


def _recipe_hash() -> str:
    """8 hex digits of the code that draws the corpus: changed code never meets files of the old one."""
    code = inspect.getsource(planted) + inspect.getsource(planted_features)
    return hashlib.sha256(f"{SEED} {code}".encode()).hexdigest()[:8]


def _mean_per_fold(values: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    return {fold: float(values[folds == fold].mean()) for fold in FOLDS}
