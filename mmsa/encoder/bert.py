"""Transformer encoders of text, such as BERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmsa.encoder.pretrained import WordPieceTokenizer, load_transformer, padding_id
from mmsa.errors import ConfigError
from mmsa.ranges import Count, DropRate, Positive
from mmsa.types import Embedded, Encoded


class KnownStates(dict[bytes, Tensor]):
    """Hidden states of utterances by the ids of their pieces; a copy, also that of another process, starts empty."""

    def __reduce__(self) -> tuple[type[KnownStates], tuple[()]]:
        return KnownStates, ()


def means(states: Tensor, chosen: Tensor) -> Tensor:
    """Means of the chosen states, zeros where none is chosen.

    Shapes: states (B, P, S), chosen (B, N, P) bool -> (B, N, S)
    """
    weights = chosen.to(states.dtype)
    return weights @ states / weights.sum(dim=2, keepdim=True).clamp(min=1)


class TransformerEncoder(nn.Module):
    """A pretrained transformer over the word pieces of an utterance, read out per word and per utterance.

    What a feedback or a regularizer masks are the word embeddings; the transformer adds positions and types to them,
    and normalises, once. A frozen model (freeze="all") is always in evaluation mode, and its states of unmasked
    utterances are computed once and kept in main memory: 4 * P * S bytes for each different utterance of P pieces, so
    80 KB for BERT-base and 25 pieces, 2 GB for all of CMU-MOSEI. Masked inputs are always computed anew, and gradients
    pass through the frozen model to the mask's generator.

    Reference: BERT (Devlin et al., NAACL 2019, arXiv 1810.04805) as MISA (ACM MM 2020) reads it: the mean of the last
    layer, [CLS] and [SEP] included; or as Self-MM (AAAI 2021) does: [CLS] alone, without BERT's pooler. Where we
    differ: an utterance is read up to the length of the model (MISA reads as many pieces as the batch has words at
    most); masks act per word, on the word embeddings (stavrakas13/MISA gives BERT the output of its own embedding block
    again, and masks the n-th piece by the n-th word).

    Args:
        name: folder of a model and its tokenizer, or their name on the Hugging Face hub.
        hidden_dim: width >= 1 of a linear map of the last layer, for fusions that need one width; None: no map.
        freeze: "none", "all", or the number >= 1 of first layers that do not learn.
        freeze_embeddings: the embeddings do not learn either.
        dropout: rate in [0, 1) of every dropout in the model, in training only; None leaves each as the model has it.
        lr: learning rate > 0 of the transformer; None takes the optimizer's, as the map does.
        pooling: utterance vector: "mean" over all pieces but padding, or the "first" piece, which of BERT is [CLS].
        pretrained: read the model's weights; without, it is initialised.

    Shapes: ids (B, P) -> embedded (B, P, D) -> Encoded with sequence (B, T, S), the mean over each word's pieces,
    utterance (B, S), as `pooling` says, and pooled (B, S), the mean over the pieces of words.

    Raises:
        ConfigError: the model cannot be loaded or is no encoder of embedded pieces; options of training for a model
            that does not train; more frozen layers than there are.
    """

    without_gradient: ClassVar[Mapping[str, str]] = {"transformer.*embedding*": "pieces and places that do not come"}

    def __init__(
        self,
        name: str,
        hidden_dim: Count | None = None,
        freeze: Literal["none", "all"] | Count = "none",
        freeze_embeddings: bool = False,
        dropout: DropRate | None = None,
        lr: Positive | None = None,
        pooling: Literal["mean", "first"] = "mean",
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if freeze == "all" and (dropout is not None or lr is not None or freeze_embeddings):
            raise ConfigError(
                "encoder.text.freeze=all: the model does not train; dropout, lr and freeze_embeddings have no effect.\n"
                "  type encoder.text.dropout=null encoder.text.lr=null encoder.text.freeze_embeddings=false, "
                "or encoder.text.freeze=none"
            )
        self.transformer: Any = load_transformer(name, dropout, pretrained)
        self.pad_id = padding_id(self.transformer.config, name)
        self.transformer.lr = lr  # where the parameter groups look for it: the map learns at the optimizer's
        self.is_frozen = freeze == "all"
        self.pooling = pooling
        self._freeze(freeze, freeze_embeddings)
        self.input_dim = int(self.transformer.get_input_embeddings().embedding_dim)
        self.width = int(self.transformer.config.hidden_size)
        self.map: nn.Module = nn.Linear(self.width, hidden_dim) if hidden_dim else nn.Identity()
        self.sequence_dim = self.utterance_dim = self.pooled_dim = hidden_dim or self.width
        self._known = KnownStates()
        self.register_load_state_dict_post_hook(_forget)
        self.train()

    @staticmethod
    def tokenizer(name: str) -> WordPieceTokenizer:
        """The tokenizer that belongs to a model."""
        return WordPieceTokenizer(name)

    def train(self, mode: bool = True) -> TransformerEncoder:
        """Training mode, except for a frozen model."""
        super().train(mode)
        if self.is_frozen:
            self.transformer.eval()
        return self

    def embed(self, features: Tensor) -> Tensor:
        """(B, P) ids -> (B, P, D) word embeddings, zeros at padding; the transformer adds positions and types."""
        values: Tensor = self.transformer.get_input_embeddings()(features)
        return values * (features != self.pad_id)[:, :, None]

    def forward(self, embedded: Embedded) -> Encoded:
        pieces, present = embedded.pieces, embedded.lengths > 0
        if pieces is None:
            raise ValueError("a transformer encoder needs Embedded.pieces")
        of_words = pieces & present[:, None, None]  # (B, T, P)
        of_any_word = of_words.any(dim=1)  # (B, P)
        special = (embedded.values != 0).any(dim=2) & present[:, None]  # masks leave [CLS] and such, padding is zeros
        valid = of_any_word | special
        if self.is_frozen and embedded.ids is not None:
            states = self._known_states(embedded.values, valid, embedded.ids)  # (B, P, S)
        else:
            states = self._states(embedded.values, valid)
        of_utterance = valid.clone()
        if self.pooling == "first":
            of_utterance[:, 1:] = False
        utterance = self._read(states, of_utterance[:, None])[:, 0]
        pooled = self._read(states, of_any_word[:, None])[:, 0]
        return Encoded(self._read(states, of_words), utterance, embedded.lengths, pooled)

    def forget(self) -> None:
        """Free the memory of the states that are known."""
        self._known.clear()

    def _read(self, states: Tensor, chosen: Tensor) -> Tensor:
        """The mapped means of the chosen pieces' states (B, N, S), zeros where none is chosen."""
        return self.map(means(states, chosen)) * chosen.any(dim=2)[:, :, None]

    def _states(self, values: Tensor, valid: Tensor) -> Tensor:
        """(B, P, D) embedded pieces, (B, P) which of them are not padding -> the last layer's states (B, P, S)."""
        if not values.shape[1]:  # no utterance has a piece
            return values.new_zeros(*valid.shape, self.width)
        attended = valid.clone()
        attended[:, :1] |= ~valid.any(dim=1, keepdim=True)  # attention needs a key; what it gives here is not read
        states: Tensor = self.transformer(inputs_embeds=values, attention_mask=attended.long()).last_hidden_state
        return states

    def _known_states(self, values: Tensor, valid: Tensor, ids: Tensor) -> Tensor:
        """The same of unmasked utterances, computed only for those that never came before."""
        rows = [row[kept] for row, kept in zip(ids.cpu(), valid.cpu(), strict=True)]
        keys = [row.numpy().tobytes() for row in rows]
        for row, key in enumerate(keys):
            if key not in self._known:  # alone: the bits must not depend on the batch in which it came first
                alone = values[row, valid[row]][None]  # (1, P, D)
                self._known[key] = self._states(alone, valid[row, valid[row]][None])[0].cpu()
        found = torch.cat([self._known[key] for key in keys]).to(values)  # the valid pieces of all utterances
        return values.new_zeros(*valid.shape, self.width).masked_scatter(valid[:, :, None], found)

    def _freeze(self, freeze: str | int, embeddings: bool) -> None:
        frozen: list[nn.Module] = []
        if self.is_frozen:
            frozen = [self.transformer]
        elif isinstance(freeze, int):
            frozen = list(self._layers(freeze))
        if embeddings:
            table = self.transformer.get_input_embeddings()
            frozen += [child for child in self.transformer.children() if table in child.modules()]
        for part in frozen:
            part.requires_grad_(False)
        if not self.is_frozen and not any(p.requires_grad for p in self.transformer.parameters()):
            raise ConfigError(
                f"encoder.text.freeze={freeze} with encoder.text.freeze_embeddings=true leaves nothing to train.\n"
                "  type encoder.text.freeze=all"
            )

    def _layers(self, number: int) -> nn.ModuleList:
        """The first layers.

        Raises:
            ConfigError: there are fewer, or they cannot be separated (ALBERT's layers share their weights).
        """
        count = self.transformer.config.num_hidden_layers
        stacks = (part for part in self.transformer.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
        layers = next(stacks, None)
        if layers is None:
            raise ConfigError(
                f"encoder.text.freeze={number}: this model has no layers that could be frozen one by one.\n"
                "  type encoder.text.freeze=all, or encoder.text.freeze=none"
            )
        if number > count:
            raise ConfigError(
                f"encoder.text.freeze={number}: the model has {count} layers.\n"
                f"  type encoder.text.freeze={count} or less, or encoder.text.freeze=all"
            )
        return layers[:number]


def _forget(encoder: TransformerEncoder, _: object) -> None:
    """States of former weights are not those of the ones just loaded."""
    encoder.forget()
