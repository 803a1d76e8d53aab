"""How a run loads the features of a store: the options that make no store of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmsa.data.normalise import CLIP, Normalize, check_normalize, per_modality
from mmsa.data.word_vectors import TEXT, WordVectors, check_word_vectors
from mmsa.errors import ConfigError
from mmsa.ranges import Count, Positive

MaxLength = Count | Mapping[str, Count] | None


@dataclass(frozen=True)
class Loading:
    """The options of a data set that say how its store is loaded.

    Args:
        normalize: "train" standardises by the steps of the train fold, "utterance" by those of each utterance, "none"
            does not; or one of them per modality, "train" where none is named.
        clip: standard deviations at which standardised features are clipped; None does not clip.
        max_length: steps (words, frames) of an utterance that are read, from its first; one number or one per modality,
            None reads all of them, as of those that a mapping does not name. Beside `resample`, whose axis all share,
            those of that modality.
        resample: the modality onto whose steps the others are averaged, so that all share its time axis; None leaves
            each its own.
        word_vectors: "fixed" gives text as feature vectors, "trained" as words with a table of vectors to train.
    """

    normalize: Normalize | Mapping[str, Normalize] = "train"
    clip: Positive | None = CLIP
    max_length: MaxLength = None
    resample: str | None = None
    word_vectors: WordVectors = "fixed"

    def check(self, modalities: Sequence[str], known: Sequence[str]) -> None:
        """Refuse what the options cannot be.

        Args:
            modalities: those that the run loads.
            known: all that there are, which a mapping may name.

        Raises:
            ConfigError: another word, a modality that is not known, or options that clash.
        """
        check_normalize(self.normalize, known)
        check_word_vectors(self.word_vectors, per_modality(self.normalize, modalities))
        named = self.max_length if isinstance(self.max_length, Mapping) else {}
        if unknown := [m for m in named if m not in known]:
            raise ConfigError(
                f"dataset.max_length names {', '.join(unknown)}; the modalities are {', '.join(known)}.\n"
                f"  type for example 'dataset.max_length={{{known[0]}: 50}}'"
            )
        if self.resample is not None and self.resample not in modalities:
            raise ConfigError(
                f"dataset.resample={self.resample}: the run loads {', '.join(modalities)}.\n"
                f"  type dataset.resample={modalities[0]}, or dataset.resample=null"
            )
        if self.resample is not None and (others := [m for m in named if m != self.resample]):
            raise ConfigError(
                f"dataset.max_length names {', '.join(others)}, whose steps dataset.resample={self.resample} averages "
                f"over those of {self.resample}.\n  type dataset.max_length=50, which counts those of {self.resample}"
            )
        if self.resample not in (None, TEXT) and self.word_vectors == "trained":
            raise words_are_not_averaged(self.resample)

    def most_steps(self, modality: str) -> int | None:
        """What `max_length` says of this modality."""
        return self.max_length.get(modality) if isinstance(self.max_length, Mapping) else self.max_length


def words_are_not_averaged(resample: str | None) -> ConfigError:
    """What is raised where words would have to be resampled."""
    return ConfigError(
        f"dataset.resample={resample} would average the steps of {TEXT}, which are words.\n"
        f"  type dataset.resample={TEXT}, which averages the other modalities over each word"
    )
