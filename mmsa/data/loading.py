"""How a run loads the features of a store: the options that make no store of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmsa.data.normalise import CLIP, Normalize, per_modality
from mmsa.data.word_vectors import TEXT
from mmsa.errors import ConfigError
from mmsa.ranges import Count, NaturalNumber, Positive

_LEAST_FOLDS = 3
_MOST_TYPED = 10
"""Parts that are typed one by one; more are a range."""


@dataclass(frozen=True)
class Loading:
    """The options of a data set for loading its store.

    Args:
        normalize: "train" standardises by the steps of the train fold, "utterance" by those of each utterance, "none"
            does not; or one of them per modality, "train" where none is named.
        clip: standard deviations at which standardised features are clipped; None does not clip.
        max_length: steps (words, frames) of an utterance that are read, from its first; one number or one per modality,
            None reads all of them, as of those that a mapping does not name. Beside `resample`, whose axis all share,
            those of that modality.
        resample: the modality onto whose steps the others are averaged, so that all share its time axis; None leaves
            each its own.
        doctor: "stop" refuses data in which the doctor finds errors (mmsa.doctor), "warn" prints them and trains.
        word_vectors: "fixed" gives text as feature vectors, "trained" as words with a table of vectors to train.
        num_folds: the number of parts, >= 3, into which own folds put the videos (`mmsa.data.own_folds`); None takes
            the folds of the source.
        held_out: the part that is the test fold, 0 to num_folds - 1; the next one validates, the rest trains.
    """

    normalize: Normalize | Mapping[str, Normalize] = "train"
    clip: Positive | None = CLIP
    max_length: Count | Mapping[str, Count] | None = None
    resample: str | None = None
    doctor: Literal["stop", "warn"] = "stop"
    word_vectors: Literal["fixed", "trained"] = "fixed"
    num_folds: Count | None = None
    held_out: NaturalNumber | None = None

    def check(self, modalities: Sequence[str], known: Sequence[str]) -> None:
        """Refuse invalid options.

        Args:
            modalities: those that the run loads.
            known: all that there are, which a mapping may name.

        Raises:
            ConfigError: another word, a modality that is not known, or options that clash.
        """
        for option, value, example in (("normalize", self.normalize, "none"), ("max_length", self.max_length, 50)):
            if unknown := [m for m in _named(value) if m not in known]:
                raise ConfigError(
                    f"dataset.{option} names {', '.join(unknown)}; the modalities are {', '.join(known)}.\n"
                    f"  type for example 'dataset.{option}={{{known[0]}: {example}}}'"
                )
        kinds = get_args(Normalize)
        if not set(per_modality(self.normalize, known).values()) <= set(kinds):
            raise ConfigError(
                f"dataset.normalize={self.normalize} is refused: choose {', '.join(kinds[:-1])} or {kinds[-1]}."
            )
        self._check_folds()
        self._check_word_vectors(per_modality(self.normalize, modalities))
        if self.resample is not None and self.resample not in modalities:
            raise ConfigError(
                f"dataset.resample={self.resample}: the run loads {', '.join(modalities)}.\n"
                f"  type dataset.resample={modalities[0]}, or dataset.resample=null"
            )
        if self.resample is not None and (others := [m for m in _named(self.max_length) if m != self.resample]):
            raise ConfigError(
                f"dataset.max_length names {', '.join(others)}, whose steps dataset.resample={self.resample} averages "
                f"over those of {self.resample}.\n  type dataset.max_length=50, which counts those of {self.resample}"
            )
        if self.resample not in (None, TEXT) and self.word_vectors == "trained":
            raise words_are_not_averaged(self.resample)

    def _check_folds(self) -> None:
        """Refuse one of the options of own folds without the other, or out of its range."""
        num, held_out = self.num_folds, self.held_out
        if num is None:
            if held_out is not None:
                raise ConfigError(
                    f"dataset.held_out={held_out} is a part of own folds, whose number is dataset.num_folds.\n"
                    f"  type dataset.num_folds={max(5, held_out + 1)} beside it, or dataset.held_out=null"
                )
            return
        if num < _LEAST_FOLDS:
            raise ConfigError(
                f"dataset.num_folds={num}: {_LEAST_FOLDS} parts or more are needed, as one is the test fold, one "
                f"validates and the rest trains.\n  type dataset.num_folds={_LEAST_FOLDS}"
            )
        if held_out is None or not 0 <= held_out < num:
            came = "" if held_out is None else f", not {held_out}"
            every = ",".join(map(str, range(num))) if num <= _MOST_TYPED else f"'range(0,{num})'"
            raise ConfigError(
                f"dataset.num_folds={num} needs the part that is the test fold, 0 to {num - 1}{came}.\n"
                f"  type dataset.held_out=0, or -m dataset.held_out={every} for a run of each"
            )

    def _check_word_vectors(self, normalize: Mapping[str, Normalize]) -> None:
        """Refuse options that a table of word vectors does not support."""
        if self.word_vectors not in ("fixed", "trained"):
            raise ConfigError(f"dataset.word_vectors={self.word_vectors} is refused: choose fixed or trained.")
        if self.word_vectors == "fixed":
            return
        if TEXT not in normalize:
            raise ConfigError(
                f"dataset.word_vectors=trained trains the vectors of {TEXT}, and dataset.modalities has none.\n"
                "  type dataset.word_vectors=fixed"
            )
        if normalize[TEXT] == "utterance":
            raise ConfigError(
                "dataset.word_vectors=trained gives a word one vector; normalised per utterance, it has one in each.\n"
                "  type 'dataset.normalize={text: none}', or text: train, or dataset.word_vectors=fixed"
            )

    def most_steps(self, modality: str) -> int | None:
        """`max_length` of this modality."""
        return self.max_length.get(modality) if isinstance(self.max_length, Mapping) else self.max_length


def _named(option: object) -> Mapping[str, Any]:
    """What a mapping says of modalities; nothing of any where one value is for all."""
    return option if isinstance(option, Mapping) else {}


def words_are_not_averaged(resample: str | None) -> ConfigError:
    """The refusal to resample words."""
    return ConfigError(
        f"dataset.resample={resample} would average the steps of {TEXT}, which are words.\n"
        f"  type dataset.resample={TEXT}, which averages the other modalities over each word"
    )
