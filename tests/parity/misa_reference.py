"""MISA as a golden file states it, and the reference's parameter names in terms of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmsa.encoder.bert import TransformerEncoder
from mmsa.encoder.misa import MisaEncoder
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.misa import MisaFusion
from mmsa.layers.recurrence import Cell
from mmsa.model import MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from mmsa.training.regression import Regression
from mmsa.types import Batch
from tests.parity.reference import Golden, Names, load, recurrence_names
from tests.parity.test_mmlatch import batch_of

LETTERS = {"text": "t", "visual": "v", "audio": "a"}
"""The reference's letter of each modality, in its order."""

COLUMNS = {"text": "sentences", "visual": "visual", "audio": "acoustic"}
"""Its name of each modality's input; the text is ids of words, or beside them of word pieces for BERT."""

WEIGHT_AND_BIAS = ("weight", "bias")
DISCRIMINATOR = {"1": "0", "2": "3"}
"""The reference's number of each linear layer of the discriminator, and its place in ours."""


class WordEncoder(MisaEncoder):
    """The extractor behind a table of word vectors that learns: the reference means to freeze it, but does not."""

    def __init__(self, num_words: int, input_dim: int, cell: Cell) -> None:
        super().__init__(input_dim, cell=cell)
        self.embedding = nn.Embedding(num_words, input_dim)

    def embed(self, features: Tensor) -> Tensor:
        vectors: Tensor = self.embedding(features)
        return vectors


def bert_encoder(config: dict[str, Any], folder: Path) -> TransformerEncoder:
    """BERT of a file's sizes, still with random weights; `folder` takes what stands for a pretrained model."""
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**config["bert"])).save_pretrained(folder)
    return TransformerEncoder(str(folder), dropout=None if config["dropout"] else 0.0)


def is_unused(name: str, state: dict[str, Tensor]) -> bool:
    """The discriminator of shared and private codes, whose loss is never used; beside BERT two parts of the text."""
    unused = ("sp_discriminator.", "bertmodel.pooler.", "tlayer_norm.")
    return name.startswith(unused if any(other.startswith("bertmodel.") for other in state) else unused[:1])


def misa_names(state: dict[str, Tensor]) -> Names:
    names: Names = {}
    for modality, letter in LETTERS.items():
        encoder = f"encoders.{modality}"
        names |= recurrence_names(f"{letter}rnn1", f"{encoder}.first", state)
        names |= recurrence_names(f"{letter}rnn2", f"{encoder}.second", state)
        for p in WEIGHT_AND_BIAS:
            names[f"{letter}layer_norm.{p}"] = f"{encoder}.norm.{p}"
            names[f"project_{letter}.project_{letter}.{p}"] = f"fusion.project.{modality}.{p}"
            names[f"project_{letter}.project_{letter}_layer_norm.{p}"] = f"fusion.norm.{modality}.{p}"
            private = f"private_{letter}.private_{letter}_{3 if letter == 'a' else 1}"
            names[f"{private}.{p}"] = f"fusion.private.{modality}.{p}"
            names[f"recon_{letter}.recon_{letter}_1.{p}"] = f"fusion.reconstruct.{modality}.{p}"
    if "embed.weight" in state:
        names["embed.weight"] = "encoders.text.embedding.weight"
    else:
        names = {theirs: ours for theirs, ours in names.items() if not theirs.startswith("tlayer_norm.")}
        names |= {
            name: f"encoders.text.transformer.{name.removeprefix('bertmodel.')}"
            for name in state
            if name.startswith("bertmodel.")
        }
    for p in WEIGHT_AND_BIAS:
        names[f"shared.shared_1.{p}"] = f"fusion.shared.{p}"
        names[f"fusion.fusion_layer_1.{p}"] = f"fusion.fuse.{p}"
        names[f"fusion.fusion_layer_3.{p}"] = f"head.{p}"
    for name in state:
        transformer, _, rest = name.partition(".layers.0.")
        if transformer == "transformer_encoder":
            names[name] = f"fusion.transformer.{rest}"
        layer, _, p = name.removeprefix("discriminator.discriminator_layer_").partition(".")
        if layer in DISCRIMINATOR:
            names[name] = f"fusion.discriminator.{DISCRIMINATOR[layer]}.{p}"
        elif name.endswith("_activation.weight"):  # the slope of PReLU, of which there is one
            names[name] = f"fusion.{'discriminator.1' if layer == '1_activation' else 'activation'}.weight"
    return names


def misa_model(golden: Golden, folder: Path) -> tuple[MultimodalModel, Names]:
    """The model that a file's configuration states, with the file's parameters; `folder` for a BERT."""
    state = golden.group("state/")
    state = {name: value for name, value in state.items() if not is_unused(name, state)}
    config = golden.config | golden.config.get("model", {})
    cell: Cell = config["rnncell"]
    encoders: dict[str, nn.Module] = {
        "text": bert_encoder(config, folder)
        if config["use_bert"]
        else WordEncoder(config["vocab"], config["embedding_size"], cell),
        "visual": MisaEncoder(config["visual_size"], cell=cell),
        "audio": MisaEncoder(config["acoustic_size"], cell=cell),
    }
    fusion = MisaFusion(
        {m: encoder.utterance_dim for m, encoder in encoders.items()},
        config["hidden_size"],
        similarity="cmd" if config["use_cmd_sim"] else "adversarial",
        reversal=config["reverse_grad_weight"],
        activation=config["activation"].lower(),
        dropout=config["dropout"],
        transformer_dropout=0.1 if config["dropout"] else 0.0,
    )
    head = nn.Linear(fusion.output_dim, config["num_classes"])
    model = MultimodalModel(encoders, NoFeedback(), NoRegularizer(), fusion, head, "sentiment")
    names = misa_names(state)
    load(model, state, names)
    return model, names


def misa_task(golden: Golden) -> Regression:
    """The squared error and the weighted losses."""
    weights = {
        "similarity": golden.config["sim_weight"],
        "difference": golden.config["diff_weight"],
        "reconstruction": golden.config["recon_weight"],
    }
    return Regression(loss="mse", auxiliary=weights)


def misa_batch(golden: Golden) -> Batch:
    """The inputs of a file; the reference has time first, except in the word pieces for BERT."""
    features = {m: torch.transpose(golden[f"input/{column}"], 0, 1) for m, column in COLUMNS.items()}
    lengths = golden["lengths"].long()
    batch = batch_of(features, lengths)
    batch.targets = {"sentiment": golden["input/target"].squeeze(-1)}
    return with_word_pieces(batch, golden.group("input/bert_")) if golden.config["use_bert"] else batch


def with_word_pieces(batch: Batch, stored: Mapping[str, Tensor]) -> Batch:
    """The batch with BERT's text: `ids`, `types` and `mask`, each (B, T + 2), a piece for each word."""
    ids, attended = stored["ids"], stored["mask"] > 0
    assert not stored["types"].any(), "one utterance is one segment"
    assert torch.equal(attended, ids != 0), "padding is id 0"
    num_words = ids.shape[1] - 2
    pieces = torch.zeros(len(ids), num_words, ids.shape[1], dtype=torch.bool)
    for word in range(num_words):  # between [CLS] and [SEP]
        pieces[:, word, word + 1] = word < batch.lengths["text"]
    return replace(batch, features={**batch.features, "text": ids}, pieces={"text": pieces})
