"""The words of a store as word pieces, for encoders that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mmsa.data.store import PAUSE, Store
from mmsa.errors import DataError
from mmsa.types import Pieces


class Tokenizer(Protocol):
    """Splits utterances, each a sequence of words, into pieces; `pad_id` fills up a batch.

    It may cut an utterance short: the words beyond have no pieces.
    """

    pad_id: int

    def __call__(self, utterances: Sequence[Sequence[str]]) -> list[Pieces]: ...


def words_of(store: Store, modality: str) -> list[list[str]]:
    """The words that an encoder of word pieces reads.

    Raises:
        DataError: the store has none.
    """
    if store.words is None:
        raise DataError(
            f"encoder/{modality} reads words, and {store.path} has none, since its source has none.\n"
            f"  type encoder/{modality}=bilstm, or dataset.source=SOURCE of one with words"
        )
    return store.words


def tokenize(utterances: Sequence[Sequence[str]], tokenizer: Tokenizer) -> list[Pieces]:
    """The pieces of every utterance; a pause is no word to a tokenizer, and so has none."""
    spoken = [[place for place, word in enumerate(words) if word != PAUSE] for words in utterances]
    said = [[words[k] for k in kept] for words, kept in zip(utterances, spoken, strict=True)]
    return [
        Pieces(np.asarray(ids, np.int64), np.array([*kept, -1])[words])  # -1 takes the appended -1
        for (ids, words), kept in zip(tokenizer(said), spoken, strict=True)
    ]
