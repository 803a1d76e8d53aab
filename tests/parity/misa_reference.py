"""MISA as a golden file states it, and the reference's parameter names in terms of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsa.encoder.misa import MisaEncoder
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.misa import MisaFusion
from mmsa.layers.recurrence import Cell
from mmsa.model import MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from mmsa.training.regression import Regression
from tests.parity.reference import Golden, Names, load, recurrence_names

LETTERS = {"text": "t", "visual": "v", "audio": "a"}
"""The reference's letter of each modality, in its order."""

COLUMNS = {"text": "sentences", "visual": "visual", "audio": "acoustic"}
"""Its name of each modality's input; the text is ids of words."""

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


def is_unused(name: str) -> bool:
    """The discriminator of shared and private codes, whose loss is never used."""
    return name.startswith("sp_discriminator.")


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
    names["embed.weight"] = "encoders.text.embedding.weight"
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


def misa_model(golden: Golden) -> tuple[MultimodalModel, Names]:
    """The model that a file's configuration states, with the file's parameters."""
    state = {name: value for name, value in golden.group("state/").items() if not is_unused(name)}
    config = golden.config | golden.config.get("model", {})
    cell: Cell = config["rnncell"]
    encoders: dict[str, nn.Module] = {
        "text": WordEncoder(config["vocab"], config["embedding_size"], cell),
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


def batch_first(golden: Golden) -> dict[str, Tensor]:
    """The inputs of each modality, (B, T, D) or (B, T) ids; the reference has time first."""
    return {m: torch.transpose(golden[f"input/{column}"], 0, 1) for m, column in COLUMNS.items()}
