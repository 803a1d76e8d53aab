"""A tiny random BERT and its WordPiece tokenizer, made on the spot, and batches of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsa.types import Batch, Embedded, Pieces

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = [*SPECIAL, "the", "film", "is", "good", "bad", "un", "##watch", "##able", "play", "##ing", "a", "b"]
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
UTTERANCES = [
    ["the", "film", "is", "unwatchable"],
    ["good"],
    ["playing", "the", "film"],
    ["a", "bad", "unwatchable", "b", "film"],
]


def save_tokenizer(folder: Path, vocabulary: Sequence[str] = VOCABULARY) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    split = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    split.normalizer = normalizers.BertNormalizer()
    split.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    split.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(piece, numbers[piece]) for piece in ("[CLS]", "[SEP]")]
    )
    pad, unknown, first, last = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token=pad, unk_token=unknown, cls_token=first, sep_token=last
    ).save_pretrained(folder)


def save_model(folder: Path, kind: str = "Bert", **changes: Any) -> str:
    """Save a random model of a class of transformers, far from its initial values; without changes a tiny BERT."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**(SIZES | changes))
    model = getattr(transformers, f"{kind}Model")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model.save_pretrained(folder)
    return str(folder)


def save_bert(folder: Path) -> str:
    """A folder of a tiny BERT and its tokenizer."""
    save_tokenizer(folder)
    return save_model(folder)


def padded(utterances: Sequence[Pieces], num_words: int, pad_id: int = 0, more: int = 0) -> tuple[Tensor, Tensor]:
    """ids (B, P) and pieces (B, T, P) of some utterances, with `more` columns of padding."""
    longest = max(len(ids) for ids, _ in utterances) + more
    ids = np.full((len(utterances), longest), pad_id, dtype=np.int64)
    pieces = np.zeros((len(utterances), num_words, longest), dtype=bool)
    for row, (numbers, words) in enumerate(utterances):
        ids[row, : len(numbers)] = numbers
        pieces[row, words[words >= 0], np.flatnonzero(words >= 0)] = True
    return torch.from_numpy(ids), torch.from_numpy(pieces)


def embedded(encoder: Any, tokenizer: Any, utterances: Sequence[Sequence[str]], more: int = 0) -> Embedded:
    """What `MultimodalModel` gives an encoder of the text."""
    lengths = torch.tensor([len(words) for words in utterances])
    ids, pieces = padded(tokenizer(utterances), int(lengths.max()), tokenizer.pad_id, more)
    return Embedded(encoder.embed(ids), lengths, pieces, ids)


def word_batch(
    tokenizer: Any,
    utterances: Sequence[Sequence[str]],
    widths: dict[str, int],
    num_steps: int | None = None,
    more: int = 0,
    absent: Sequence[int] = (),
) -> Batch:
    """Utterances with words, and with vectors of each word in the other modalities, the same in every company.

    Args:
        tokenizer: of the text.
        utterances: their words; every utterance is known by them.
        widths: of the other modalities.
        num_steps: of the common axis; None is the longest utterance.
        more: further columns of padding.
        absent: rows that lack the text.
    """
    lengths = torch.tensor([len(words) for words in utterances])
    num_steps = num_steps or int(lengths.max())
    features, of_text = {}, lengths.clone()
    features["text"], pieces = padded(tokenizer(utterances), num_steps, tokenizer.pad_id, more)
    for row in absent:
        of_text[row] = 0
        features["text"][row] = tokenizer.pad_id
        pieces[row] = False
    for modality, width in widths.items():
        features[modality] = torch.zeros(len(utterances), num_steps, width)
        for row, words in enumerate(utterances):
            seed = sum(VOCABULARY.index(letter) if letter in VOCABULARY else len(letter) for letter in words)
            drawn = torch.randn(len(words), width, generator=torch.Generator().manual_seed(seed + width))
            features[modality][row, : len(words)] = drawn
    targets = {"sentiment": torch.linspace(-1, 1, len(utterances))}
    rows = torch.arange(len(utterances))
    steps = {"text": of_text} | dict.fromkeys(widths, lengths)
    return Batch(features, steps, targets, rows, tuple(map(str, rows.tolist())), {"text": pieces})
