"""UR-FUNNY: about 16,500 punchlines of talks with the sentences before them, half of them followed by laughter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mmsa.data.loading import MaxLength
from mmsa.data.normalise import CLIP, Normalize
from mmsa.data.word_vectors import WordVectors
from mmsa.dataset.pickled import PickledDataset
from mmsa.errors import DataError
from mmsa.ranges import Positive
from mmsa.readers.family import ReadOptions


class UrFunny(PickledDataset):
    """UR-FUNNY with the folds of its data_folds.pkl; the target is "humor", 0 or 1.

    It has no computational sequences: its folder of pickles is read, or a pickle or folder that others made of it. The
    folder does not name videos, so each segment counts as one of its own.

    Args:
        source: folder of version 1 or 2, MultiBench's humor.pkl, or MISA's folder; None takes the prepared store.
        modalities: non-empty selection of text, audio, visual that a run loads; a store holds all that the source has.
        context: the steps of the sentences before the punchline stand before its own; else the punchline alone.
        normalize: as of `Dataset`.
        clip: as of `Dataset`.
        max_length: as of `Dataset`.
        resample: as of `Dataset`.
        word_vectors: as of `Dataset`.
        glove: as of `Dataset`.
        keep_pauses: as recipes set it; its files hold no pauses, so true is refused.

    Raises:
        ConfigError: an option is out of its range.

    Reference: Hasan et al., UR-FUNNY: a multimodal language dataset for understanding humor, EMNLP 2019.
    """

    name = "ur_funny"
    title = "UR-FUNNY"
    kinds: ClassVar[Mapping[str, str]] = {"humor": "binary"}
    nominal_range = (0.0, 1.0)
    stated_bound = (0.0, 1.0)
    canonical_sizes: ClassVar[dict[str, int]] = {"train": 10598, "valid": 2626, "test": 3290}  # of version 1
    files = (
        "a folder with data_folds.pkl, humor_label_sdk.pkl, language_sdk.pkl, word_embedding_list.pkl, "
        "covarep_features_sdk.pkl and openface_features_sdk.pkl"
    )
    place = "FOLDER_OR_FILE"
    origin = "Its pickles come from github.com/ROC-HCI/UR-FUNNY."

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        context: bool = False,
        normalize: Normalize | Mapping[str, Normalize] = "train",
        clip: Positive | None = CLIP,
        max_length: MaxLength = None,
        resample: str | None = None,
        word_vectors: WordVectors = "fixed",
        glove: str | None = None,
        keep_pauses: bool = False,
    ) -> None:
        super().__init__(source, modalities, normalize, clip, max_length, resample, keep_pauses, word_vectors, glove)
        self.context = context

    @property
    def options(self) -> dict[str, Any]:
        """The preparation options; of its own the context alone."""
        return {"context": self.context}

    def _read_options(self, required: tuple[str, ...]) -> ReadOptions:
        return replace(super()._read_options(required), context=self.context)

    def _source_files(self, source: Path) -> dict[str, Path]:
        files = super()._source_files(source)
        if self.context and "folds" not in files:
            raise DataError(
                f"dataset.context=true: only UR-FUNNY's own folder has the context, and dataset.source={source} is "
                "another layout, of the punchlines.\n  type dataset.context=false, or dataset.source=FOLDER"
            )
        return files

    def _prepare_line(self, folder: Path | None) -> str:
        return super()._prepare_line(folder) + (" dataset.context=true" if self.context else "")
