"""Data sets that others' files hold whole, aligned and in folds: no computational sequence makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmsa.data.loading import MaxLength
from mmsa.data.normalise import CLIP, Normalize
from mmsa.data.word_vectors import WordVectors
from mmsa.dataset.dataset import Dataset
from mmsa.errors import DataError
from mmsa.ranges import Positive


class PickledDataset(Dataset):
    """A data set in the folds of one file, or of a folder of files; a subclass states `files` and what `Dataset` asks.

    Args:
        source: that file or folder; None takes the prepared store.
        modalities: non-empty selection of text, audio, visual that a run loads; a store holds all that the source has.
        normalize: as of `Dataset`.
        clip: as of `Dataset`.
        max_length: as of `Dataset`.
        resample: as of `Dataset`.
        keep_pauses: as recipes set it; its files hold no pauses, so true is refused.
        word_vectors: as of `Dataset`, where a file has the words.
        glove: as of `Dataset`, where a file has the words.

    Raises:
        ConfigError: an option is out of its range.
        DataError: pauses are asked for.
    """

    files: ClassVar[str]
    """What it is read from, as said to people."""
    place: ClassVar[str] = "FILE"
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {"text": (), "audio": (), "visual": ()}

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        normalize: Normalize | Mapping[str, Normalize] = "train",
        clip: Positive | None = CLIP,
        max_length: MaxLength = None,
        resample: str | None = None,
        keep_pauses: bool = False,
        word_vectors: WordVectors = "fixed",
        glove: str | None = None,
    ) -> None:
        super().__init__(source, modalities, keep_pauses, normalize, clip, max_length, resample, word_vectors, glove)
        self._refuse_pauses()

    def fold_of(self, source: Path) -> Mapping[str, str]:
        """Of no video: the files state the fold of every utterance."""
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """None: the files have one reading."""
        return {}

    def _sequence_files(self, source: Path) -> dict[str, Path]:
        pickles = sorted(filter(Path.is_file, source.glob("*.pkl")))
        instead = f" Did you mean dataset.source={pickles[0]}?" if pickles and self.place == "FILE" else ""
        raise DataError(
            f"dataset.source={source} is a folder of which no file is recognised.{instead}\n{self._wanted()}"
        )

    def _wanted(self, folder: Path | None = None) -> str:
        return (
            f"{self.title} is read from {self.files}.\n{self.origin}\n"
            f"Type: {self._prepare_line(folder)} (or add dataset.source={self._place} to a run)"
        )

    @property
    def _place(self) -> str:
        return self.place
