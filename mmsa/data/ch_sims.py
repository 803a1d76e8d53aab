"""CH-SIMS: 2,281 clips of Chinese films and shows with a sentiment in [-1, 1], one more per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmsa.data.dataset import Dataset
from mmsa.data.normalise import Normalize
from mmsa.errors import DataError


class ChSims(Dataset):
    """CH-SIMS, version 1 or 2, with the folds of MMSA's pickle; the modalities have steps of their own.

    Args:
        source: MMSA's unaligned_39.pkl, or sims_unaligned.pkl of version 2; None takes the prepared store.
        modalities: non-empty selection of text, audio, visual that a run loads; a store holds all that the source has.
        normalize: as of `Dataset`.
        keep_pauses: as recipes set it; its files hold no pauses, so true is refused.

    Raises:
        ConfigError: an option is out of its range.

    Reference: Yu et al., CH-SIMS: a Chinese multimodal sentiment analysis dataset with fine-grained annotation of
    modality, ACL 2020.
    """

    name = "ch_sims"
    title = "CH-SIMS"
    nominal_range = (-1.0, 1.0)
    stated_bound = (-1.0, 1.0)
    kinds: ClassVar[Mapping[str, str]] = {
        "sentiment": "sims",
        "sentiment_text": "sims",
        "sentiment_audio": "sims",
        "sentiment_visual": "sims",
    }
    canonical_sizes: ClassVar[dict[str, int]] = {"train": 1368}  # of version 1; of the other folds we have no source
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {"text": (), "audio": (), "visual": ()}
    origin = "The pickle comes with MMSA (github.com/thuiar/MMSA)."

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        normalize: Normalize | Mapping[str, Normalize] = "train",
        keep_pauses: bool = False,
    ) -> None:
        super().__init__(source, modalities, keep_pauses, normalize)
        self._refuse_pauses()

    def fold_of(self, source: Path) -> Mapping[str, str]:
        """Of no video: the pickle states the fold of every utterance."""
        return {}

    @property
    def options(self) -> dict[str, Any]:
        """None: the pickle has one reading."""
        return {}

    def _sequence_files(self, source: Path) -> dict[str, Path]:
        pickles = sorted(source.glob("*.pkl"))
        instead = f" Did you mean dataset.source={pickles[0]}?" if pickles else ""
        raise DataError(f"dataset.source={source} is a folder.{instead}\n{self._wanted()}")

    def _wanted(self, folder: Path | None = None) -> str:
        return (
            f"{self.title} is read from MMSA's unaligned_39.pkl.\n{self.origin}\n"
            f"Type: {self._prepare_line(folder)} (or add dataset.source={self._place} to a run)"
        )

    @property
    def _place(self) -> str:
        return "FILE"
