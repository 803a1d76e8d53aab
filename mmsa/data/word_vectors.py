"""The vectors of the words, fixed as features of the text or in a table to train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmsa.data.normalise import Standardisation
from mmsa.data.store import Store
from mmsa.errors import DataError

TEXT = "text"
"""The modality whose vectors are those of the words."""


@dataclass(frozen=True)
class Vocabulary:
    """Words by number, and their vectors.

    Args:
        words: V - 1 different ones; the first is number 1.
        table: (V, D) float32 vector by number; row 0, of padding, is zeros.
    """

    words: tuple[str, ...]
    table: np.ndarray

    def ids(self, store: Store) -> np.ndarray:
        """(total steps,) int64 number of the word of every step of a store; 0 for a word that has none.

        Raises:
            DataError: the words are not one per step.
        """
        numbers = {word: number for number, word in enumerate(self.words, start=1)}
        return np.array([numbers.get(word, 0) for word in said_per_step(store)], dtype=np.int64)


def number_words(store: Store, scale: Standardisation | None) -> Vocabulary:
    """Number the words of a store, of every fold, and take the vector of each from its first occurrence with one.

    Args:
        store: with words, one per step of its text.
        scale: standardises the vectors; None takes them as they are.

    Raises:
        DataError: the words are not one per step.
    """
    said, ragged = said_per_step(store), store.features[TEXT]
    first: dict[str, int] = {}
    for place in [*np.flatnonzero(ragged.values.any(axis=1)), *range(len(said))]:  # those without a vector come last
        first.setdefault(said[place], place)
    words = tuple(sorted(first))
    vectors = np.asarray(ragged.values[[first[word] for word in words]], dtype=np.float32)
    table = np.concatenate([np.zeros((1, ragged.width), np.float32), scale(vectors) if scale else vectors])
    return Vocabulary(words, table)


def said_per_step(store: Store) -> list[str]:
    """The word of every step of the text, of all utterances.

    Raises:
        DataError: the words are not one per step.
    """
    ragged = store.features[TEXT]
    if store.words is None or list(map(len, store.words)) != ragged.lengths.tolist():
        held = "no words" if store.words is None else "words, but not one per step"
        raise DataError(
            f"dataset.word_vectors=trained needs the word of every step, and {store.title} has {held}.\n"
            "  type dataset.word_vectors=fixed, or dataset.source=FOLDER of computational sequences (.csd)"
        )
    return [word for words in store.words for word in words]
