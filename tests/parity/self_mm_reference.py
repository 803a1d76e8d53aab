"""Self-MM as a golden file states it, and the reference's parameter names in terms of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsa.encoder.bert import TransformerEncoder
from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.mlp import MlpFusion
from mmsa.model import Learner, MultimodalModel
from mmsa.objective.self_mm import SelfMM
from mmsa.regularizer.none import NoRegularizer
from mmsa.training.regression import Regression
from mmsa.types import Batch
from tests.parity.reference import Names, recurrence_names

MODULES = {"text": "text", "audio": "audio", "visual": "video"}
"""The reference's name of each modality in its modules, in its order."""
LETTERS = {"text": "t", "audio": "a", "visual": "v"}
"""And in its features; in predictions and losses it is the capital."""
LABELS = {"text": "text", "audio": "audio", "visual": "vision"}
"""And in its labels and centres."""
NUM_LAYERS = {"layer_1": "layers.{}.first", "layer_2": "layers.{}.second", "layer_3": "outputs.{}"}
"""Its three layers of a modality's head."""


class TypedBert(TransformerEncoder):
    """BERT that is told the type of each piece: the files draw types at random, ours reads one segment.

    Ids and types come as one number, id + types of the vocabulary's size.
    """

    def embed(self, features: Tensor) -> Tensor:
        embeddings = self.transformer.embeddings
        vocabulary, types = embeddings.word_embeddings.num_embeddings, embeddings.token_type_embeddings
        ids, which = features % vocabulary, features // vocabulary
        beyond = types(which) - types(torch.zeros_like(which))  # BERT itself adds the first type
        return super().embed(ids) + beyond * (ids != self.pad_id)[:, :, None]


def self_mm_learner(config: Mapping[str, Any], folder: Path) -> Learner:
    """The model and the objective of a file's sizes, still with random weights; `folder` is for a BERT."""
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**config["bert"])).save_pretrained(folder)
    sizes = {"text": 0, "audio": config["a_lstm_hidden_size"], "visual": config["v_lstm_hidden_size"]}
    encoders: dict[str, Any] = {"text": TypedBert(str(folder), dropout=0.0, pooling="first")}
    for (m, module), width in zip(list(MODULES.items())[1:], config["feature_dims"][1:], strict=True):
        encoders[m] = RecurrentEncoder(
            width,
            sizes[m],
            num_layers=config[f"{module[0]}_lstm_layers"],
            bidirectional=False,
            attention=False,
            pooling="last",
            dropout=config[f"{module[0]}_lstm_dropout"],
            utterance_dim=config[f"{module}_out"],
        )
    widths = {m: encoder.utterance_dim for m, encoder in encoders.items()}
    fusion = MlpFusion(widths, config["post_fusion_dim"], config["post_fusion_dropout"])
    task = Regression()
    model = MultimodalModel(encoders, NoFeedback(), NoRegularizer(), fusion, task.head(fusion.output_dim), task.target)
    objective = SelfMM(
        task,
        widths,
        fusion.published_dims,
        {m: config[f"post_{module}_dim"] for m, module in MODULES.items()},
        {m: config[f"post_{module}_dropout"] for m, module in MODULES.items()},
        bound=config.get("H", 3.0),
        exclude_zero=config.get("excludeZero", True),
    )
    return Learner(model, objective)


def self_mm_names(state: Mapping[str, Tensor]) -> Names:
    """Names of the parameters in a `Learner`; the pooler of BERT is none of ours."""
    names: Names = {}
    for name in state:
        module, _, rest = name.partition(".")
        if name.startswith("text_model.model."):
            names[name] = f"model.encoders.text.transformer.{name.removeprefix('text_model.model.')}"
        elif rest.startswith("linear_1."):
            names[name] = f"model.encoders.{_modality(module)}.map.{rest.removeprefix('linear_1.')}"
        elif module.startswith("post_fusion_layer_"):
            layer = {"1": "fusion.layers.first", "2": "fusion.layers.second", "3": "head"}[module[-1]]
            names[name] = f"model.{layer}.{rest}"
        elif module.startswith("post_"):
            _, theirs, layer = module.split("_", 2)
            names[name] = f"objective.{NUM_LAYERS[layer].format(_modality(theirs))}.{rest}"
    for m in ("audio", "visual"):
        recurrence = f"model.encoders.{m}.rnn.recurrence"
        names |= recurrence_names(f"{MODULES[m]}_model.rnn", recurrence, dict(state))
    return {name: ours for name, ours in names.items() if ".pooler." not in name}


def _modality(theirs: str) -> str:
    return next(m for m, module in MODULES.items() if theirs.startswith(module))


def load_self_mm(learner: Learner, state: Mapping[str, Tensor]) -> Names:
    """Load every one of the reference's parameters but BERT's pooler, whose output nobody reads."""
    names = self_mm_names(state)
    assert {name for name in state if ".pooler." not in name} == set(names)
    own = {f"model.{name}" for name in learner.model.state_dict()}
    own |= {f"objective.{name}" for name, _ in learner.objective.named_parameters()}
    assert set(names.values()) == own, set(names.values()) ^ own
    with torch.no_grad():
        for name, ours in names.items():
            learner.get_parameter(ours).copy_(state[name])
    return names


def self_mm_batch(stored: Mapping[str, Tensor], config: Mapping[str, Any], rows: Tensor | None = None) -> Batch:
    """Utterances of a file; its text is ids, mask and types of the pieces, each of which here is a word."""
    chosen = torch.arange(len(stored["text"])) if rows is None else rows
    arrays = {name: array[chosen] for name, array in stored.items() if not name.startswith("label")}
    video = "video" if "video" in arrays else "vision"
    ids, mask, types = arrays["text"].long().unbind(dim=1)
    valid = mask > 0
    assert torch.equal(valid, ids != 0), "padding is id 0"
    lengths = {"text": valid.sum(dim=1)}
    for m, theirs in (("audio", "audio"), ("visual", video)):
        lengths[m] = lengths["text"] if config["need_data_aligned"] else arrays[f"{theirs}_lengths"].long()
    words = torch.diag_embed(valid)  # (B, P, P)
    text = ids + config["bert"]["vocab_size"] * types * valid
    return Batch(
        {"text": text, "audio": arrays["audio"], "visual": arrays[video]},
        lengths,
        {"sentiment": arrays["target"].squeeze(-1)},
        chosen,
        tuple(map(str, chosen.tolist())),
        {"text": words},
    )
