"""MMLatch and M3 against the golden vectors, whatever sizes, layers, cells and options a file states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.feedback.mmlatch import MaskFeedback
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.attention import AttentionFusion
from mmsa.layers.recurrence import last_states
from mmsa.model import MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from mmsa.types import Batch, Embedded, Encoded
from tests.parity.reference import (
    SOURCES,
    Golden,
    attentive_names,
    check,
    check_gradients,
    classifier_names,
    feedback_names,
    fuser_names,
    load,
    unit_names,
)

GOLDEN = {
    "classifier": {"num_classes", "attention", "bidirectional"},
    "recurrent encoder": {"input_size", "return_hidden"},
    "attention fusion": {"proj_sz"},
    "feedback": {"mask_type", "mod1_sz", "mod2_sz"},
    "feedback unit": {"mask_type", "mod1_sz"},
}
MASK_GENERATORS = {"learnable_sequence_mask": "recurrent", "learnable_static_mask": "linear"}


def cell_of(weight_hh: Tensor) -> str:
    return "lstm" if weight_hh.shape[0] == 4 * weight_hh.shape[1] else "gru"


def classifier(golden: Golden, prefix: str = "state/") -> tuple[MultimodalModel, dict[str, str]]:
    """The model that a file's configuration states, with the file's parameters."""
    state = golden.group(prefix)
    config = golden.config | golden.config.get("model", {})
    hidden = config.get("hidden_size", config.get("projection_size"))
    cell = "lstm" if config.get("rnn_type", config.get("encoder_type")) == "lstm" else "gru"
    sizes = config.get("feature_sizes") or {m: config[f"{m}_input_size"] for m in SOURCES}
    encoders: dict[str, nn.Module] = {
        m: RecurrentEncoder(
            sizes[m],
            hidden,
            cell=cell,
            num_layers=config.get(f"{m}_layers", config.get("num_layers", 1)),
            bidirectional=config["bidirectional"],
            attention=config["attention"],
            dropout=config["dropout"],
        )
        for m in SOURCES
    }
    feedback: nn.Module = NoFeedback()
    if config.get("feedback"):
        generator = MASK_GENERATORS[config["feedback_type"]]
        feedback = MaskFeedback(
            {m: sizes[m] for m in SOURCES}, {"sequence": dict.fromkeys(SOURCES, hidden)}, generator=generator
        )
        if config["dropout"] == 0:
            feedback = MaskFeedback(
                {m: sizes[m] for m in SOURCES},
                {"sequence": dict.fromkeys(SOURCES, hidden)},
                generator=generator,
                mask_dropout=0.0,
                generator_dropout=0.0,
            )
    fused = "encoder.fuser.rnn.rnn.rnn."
    fusion = AttentionFusion(
        dict.fromkeys(SOURCES, hidden),
        hidden,
        cell=cell_of(state[f"{fused}weight_hh_l0"]),
        bidirectional=f"{fused}weight_hh_l0_reverse" in state,
        attention_dropout=0.0,
        dropout=0.0,
    )
    head = nn.Linear(fusion.output_dim, config["num_classes"])
    model = MultimodalModel(encoders, feedback, NoRegularizer(), fusion, head, "sentiment")
    names = classifier_names(state)
    names = {theirs: ours for theirs, ours in names.items() if theirs in state}
    load(model, state, names)
    return model, names


def batch_of(features: dict[str, Tensor], lengths: Tensor) -> Batch:
    rows = torch.arange(len(lengths))
    return Batch(features, dict.fromkeys(features, lengths), {}, rows, tuple(str(i) for i in rows.tolist()))


@pytest.mark.golden("classifier")
def test_classifier(golden_file: Path) -> None:
    golden = Golden(golden_file)
    model, names = classifier(golden)
    model.eval()
    lengths = golden.lengths
    inputs = golden.group("input/")
    batch = batch_of({m: inputs[m] for m in SOURCES}, lengths)
    output = model(batch)

    first = model.encode(model.embed(batch))
    for modality in SOURCES:
        check(first[modality].sequence, golden[f"output/encoder.{modality}#0"], lengths)
    encoded = first
    if model.feedback.num_passes:
        masked, masks = model.feedback(model.embed(batch), first, model.fusion)
        encoded = model.encode(masked)
        for unit, modality in enumerate(SOURCES):
            check(masks[modality], golden[f"output/mask.{modality}"], lengths)
            check(masked[modality].values, golden[f"output/encoder.fm.{unit}#0"], lengths)
            check(encoded[modality].sequence, golden[f"output/encoder.{modality}#1"], lengths)

    prediction = output.predictions["sentiment"]
    if golden.ragged:  # the reference attends to padding: `pred_alone` is each utterance run alone
        check(prediction, golden["output/pred_alone"])
        return
    streams = model.fusion.interact(encoded).streams
    check(torch.cat(list(streams.values()), dim=-1), golden["output/encoder.fuser.att_fuser#0"])
    check(model.fusion.combine(streams, lengths).vector, golden["output/encoder.fuser#0"])
    check(prediction, golden["output/pred"])
    loss = (prediction - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(model, golden, names)


@pytest.mark.golden("recurrent encoder")
def test_attentive_recurrent_encoder(golden_file: Path) -> None:
    golden = Golden(golden_file)
    config, state, lengths = golden.config, golden.group("state/"), golden.lengths
    returns_sequence = config["return_hidden"] and config["attention"]
    depth = len([name for name in state if name.startswith("rnn.rnn.weight_hh_l") and "reverse" not in name])
    encoder = RecurrentEncoder(
        config["input_size"],
        config["hidden_size"],
        cell=config["rnn_type"],
        num_layers=depth,
        bidirectional=config["bidirectional"],
        merge="concat" if config.get("merge_bi") == "cat" else "sum",
        attention=config["attention"],
        pooling="sum" if config["attention"] else "last",
        dropout=config["dropout"],
    ).eval()
    names = attentive_names("", "rnn.", state)
    load(encoder, state, names)

    x = golden["input/x"]
    directions = encoder.rnn.recurrence(x, lengths)
    check(encoder.rnn._merged(directions), golden["output/rnn_seq"], lengths)
    if not golden.ragged:  # with unequal lengths the reference picks the wrong step
        check(encoder.rnn._merged(last_states(directions, lengths)), golden["output/rnn_last"])
    encoded = encoder(Embedded(x, lengths))
    out = encoded.sequence if returns_sequence else encoded.utterance
    steps = lengths if returns_sequence else None
    if golden.ragged:
        check(out, golden["output/alone"], steps)
        if returns_sequence:
            check(out, golden["output/out"], steps)
        return
    check(out, golden["output/out"])
    loss = (out - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(encoder, golden, names)


@pytest.mark.golden("attention fusion")
def test_attention_fusion(golden_file: Path) -> None:
    golden = Golden(golden_file)
    width, state, lengths = golden.config["proj_sz"], golden.group("state/"), golden.lengths
    fusion = AttentionFusion(dict.fromkeys(SOURCES, width), width).eval()
    names = fuser_names("", "")
    fusion.load_state_dict({names[name]: value for name, value in state.items()}, strict=False)
    assert set(names) == set(state)

    inputs = {"text": golden["input/txt"], "audio": golden["input/au"], "visual": golden["input/vi"]}
    encoded = {m: Encoded(x, x.sum(dim=1), lengths) for m, x in inputs.items()}
    streams = fusion.interact(encoded).streams
    if golden.ragged and "output/alone" not in golden:
        pytest.skip("the reference attends to padding in this file and stores no padding-safe output")
    fused = torch.cat(list(streams.values()), dim=-1)
    out = fused if golden.config["return_hidden"] else fused.sum(dim=1)
    if golden.ragged:
        check(out, golden["output/alone"], lengths if golden.config["return_hidden"] else None)
        return
    for stream, parts in {
        "text+audio": ("ta", "at"),
        "visual+audio": ("va", "av"),
        "text+visual": ("tv", "vt"),
    }.items():
        check(streams[stream], golden[f"output/{parts[0]}"] + golden[f"output/{parts[1]}"])
    check(out, golden["output/fused"])
    loss = (out - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(fusion, golden, names)


def encoded_of(high: dict[str, Tensor], lengths: Tensor) -> dict[str, Encoded]:
    return {m: Encoded(sequence, sequence.sum(dim=1), lengths) for m, sequence in high.items()}


@pytest.mark.golden("feedback")
def test_feedback(golden_file: Path) -> None:
    golden = Golden(golden_file)
    config, state, lengths = golden.config, golden.group("state/"), golden.lengths
    letters = dict(zip(SOURCES, "xyz", strict=True))
    low = {m: golden[f"input/low_{letter}"] for m, letter in letters.items()}
    high = {m: golden[f"input/hi_{letter}"] for m, letter in letters.items()}
    feedback = MaskFeedback(
        {m: x.shape[-1] for m, x in low.items()},
        {"sequence": {m: x.shape[-1] for m, x in high.items()}},
        generator=MASK_GENERATORS[config["mask_type"]],
    ).eval()
    names = feedback_names("", "", state)
    load(feedback, state, names)

    embedded = {m: Embedded(x, lengths) for m, x in low.items()}
    masked, _ = feedback(embedded, encoded_of(high, lengths), None)
    for modality, letter in letters.items():
        check(masked[modality].values, golden[f"output/{letter}"], lengths)
    loss = (masked["text"].values - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(feedback, golden, names)


@pytest.mark.golden("feedback unit")
def test_feedback_unit(golden_file: Path) -> None:
    golden = Golden(golden_file)
    config, state, lengths = golden.config, golden.group("state/"), golden.lengths
    x, y, z = (golden[f"input/{letter}"] for letter in "xyz")
    feedback = MaskFeedback(
        {"text": x.shape[-1], "audio": 1, "visual": 1},
        {"sequence": {"text": 1, "audio": y.shape[-1], "visual": z.shape[-1]}},
        generator=MASK_GENERATORS[config["mask_type"]],
    ).eval()
    names = unit_names("", "text", "", state)
    assert set(names) == set(state)
    feedback.load_state_dict({names[name]: value for name, value in state.items()}, strict=False)

    mask = feedback.mask("text", {"audio": y, "visual": z}, dict.fromkeys(SOURCES, lengths))
    check(mask, golden["output/mask"], lengths)
    check(x * mask, golden["output/x_new"], lengths)
    loss = (x * mask - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(feedback, golden, names)


@pytest.mark.parametrize(
    ("feedback", "generator", "count"),
    [(False, "recurrent", 1_633_801), (True, "linear", 1_716_419), (True, "recurrent", 2_741_153)],
)
def test_parameter_counts_of_the_published_sizes(feedback: bool, generator: str, count: int) -> None:
    sizes = {"text": 300, "audio": 74, "visual": 35}
    widths = dict.fromkeys(sizes, 100)
    encoders: dict[str, nn.Module] = {m: RecurrentEncoder(size, 100) for m, size in sizes.items()}
    stage: nn.Module = MaskFeedback(sizes, {"sequence": widths}, generator=generator) if feedback else NoFeedback()
    fusion = AttentionFusion(widths, 100)
    model = MultimodalModel(encoders, stage, NoRegularizer(), fusion, nn.Linear(fusion.output_dim, 1), "sentiment")
    assert sum(parameter.numel() for parameter in model.parameters()) == count
