"""The variant of M3 over slp's layers, whatever sizes, layers and cells a file states.

It is our model with `pooling=mean` in the fusion and `rescale=legacy` in the regularizer: its attention maps are one
matrix of keys, queries and values, which is split here, and its rescaling also acts at evaluation.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.attention import AttentionFusion
from mmsa.model import MultimodalModel
from mmsa.regularizer.m3 import M3, Site
from mmsa.regularizer.none import NoRegularizer
from tests.parity.reference import (
    SOURCES,
    Golden,
    Names,
    attentive_names,
    check,
    check_gradients,
    fuser_names,
    load,
)
from tests.parity.test_mmlatch import batch_of, cell_of
from tests.streams import values_of

GOLDEN = {"slp": {"modality_feature_sizes", "num_classes", "attention", "bidirectional"}}

GOLDEN = {"slp": {"modality_feature_sizes", "num_classes", "attention", "bidirectional"}}


class FusedMaps(Golden):
    """An archive whose fused attention maps, and their gradients, appear as three."""

    def group(self, prefix: str) -> dict[str, Tensor]:
        split = {}
        for name, value in super().group(prefix).items():
            place, fused, parameter = name.partition("kqv.")
            if fused:
                split |= {f"{place}{k}.{parameter}": part for k, part in zip("kqv", value.chunk(3), strict=True)}
            else:
                split[name] = value
        return split


def masking(config: dict[str, object]) -> nn.Module:
    """The masking layer, of which only the rescaling is left at evaluation."""
    flags: dict[Site, str] = {"encoded": "mmdrop_before_fuse", "streams": "mmdrop_after_fuse"}
    sites = [site for site, flag in flags.items() if config[flag]]
    scheme = str(config["multi_modal_drop"])
    if not sites or not scheme.startswith("mmdrop_"):
        return NoRegularizer()
    return M3(
        list(SOURCES),
        torch.Generator(),
        p=config["p_mmdrop"],  # type: ignore[arg-type]
        mode=scheme.removeprefix("mmdrop_"),  # type: ignore[arg-type]
        rescale="legacy",
        sites=sites,
    )


def slp_model(golden: FusedMaps) -> tuple[MultimodalModel, Names]:
    """The model that a file's configuration states, with the file's parameters."""
    config, state = golden.config | golden.config.get("model", {}), golden.group("state/")
    encoders: dict[str, nn.Module] = {
        m: RecurrentEncoder(
            config["modality_feature_sizes"][m],
            config["hidden_size"],
            cell=config["rnn_type"],
            num_layers=config["num_layers"],
            bidirectional=config["bidirectional"],
            merge="concat" if config["merge_bi"] == "cat" else "sum",
            attention=config["attention"],
            dropout=config["dropout"],
        )
        for m in SOURCES
    }
    recurrent = state["rnn.rnn.rnn.weight_hh_l0"]
    fusion = AttentionFusion(
        {m: int(encoder.sequence_dim) for m, encoder in encoders.items()},  # type: ignore[arg-type]
        recurrent.shape[1],
        cell=cell_of(recurrent),  # type: ignore[arg-type]
        bidirectional="rnn.rnn.rnn.weight_hh_l0_reverse" in state,
        pooling="mean",
        attention_dropout=0.0,
        dropout=0.0,
    )
    head = nn.Linear(fusion.output_dim, config["num_classes"])
    model = MultimodalModel(encoders, NoFeedback(), masking(config), fusion, head, "sentiment")
    names = fuser_names("fuser.", "fusion.") | attentive_names("rnn.", "fusion.reader.rnn.", state)
    for modality in SOURCES:
        names |= attentive_names(f"modality_encoders.{modality}.", f"encoders.{modality}.rnn.", state)
    names |= {f"clf.0.{parameter}": f"head.{parameter}" for parameter in ("weight", "bias")}
    load(model, state, names)
    return model.eval(), names


@pytest.mark.golden("slp")
def test_symmetric_attention_classifier(golden_file: Path) -> None:
    golden = FusedMaps(golden_file)
    model, names = slp_model(golden)
    lengths, inputs = golden.lengths, golden.group("input/")
    batch = batch_of({m: inputs[m] for m in SOURCES}, lengths)
    prediction = model(batch).predictions["sentiment"]
    encoded = model.encode(model.embed(batch))
    for modality in SOURCES:
        check(encoded[modality].sequence, golden[f"output/modality_encoders.{modality}#0"], lengths)
    if golden.ragged:  # the reference attends to padding: `pred_alone` is each utterance run alone
        check(prediction, golden["output/pred_alone"])
        return
    masked = model.regularizer("encoded", {m: part.part("sequence") for m, part in encoded.items()}).streams
    streams = model.fusion.interact({m: p.replaced("sequence", masked[m]) for m, p in encoded.items()}).streams
    fused = torch.cat(list(values_of(model.regularizer("streams", streams).streams).values()), dim=-1)
    check(fused, golden["output/fuser#0"])
    check(model.fusion.reader.rnn(fused, lengths)[0], golden["output/rnn#0"])
    check(prediction, golden["output/pred"])
    loss = (prediction - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(model, golden, names)


def test_parameter_counts_of_the_published_sizes() -> None:
    sizes = {"text": 300, "audio": 74, "visual": 35}
    for all_joint, count in ((False, 1_633_801), (True, 1_853_801)):
        encoders: dict[str, nn.Module] = {m: RecurrentEncoder(size, 100) for m, size in sizes.items()}
        fusion = AttentionFusion(dict.fromkeys(sizes, 100), 100, all_joint=all_joint, pooling="mean")
        head = nn.Linear(fusion.output_dim, 1)
        model = MultimodalModel(encoders, NoFeedback(), NoRegularizer(), fusion, head, "sentiment")
        assert sum(parameter.numel() for parameter in model.parameters()) == count
