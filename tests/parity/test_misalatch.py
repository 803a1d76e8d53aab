"""MISA+MMLatch against the golden vectors, by parts: its text passes through BERT are taken from the file.

The originals add BERT's position and type embeddings twice in the second pass and lose or move [CLS] and [SEP]
(docs/originals/quirks.md); that is not rebuilt, so only what does not flow through the text encoder is compared.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmsa.encoder.misa import MisaEncoder
from mmsa.feedback.mmlatch import MaskFeedback
from mmsa.fusion.misa import MisaFusion
from mmsa.model import MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from mmsa.types import Embedded, Encoded
from tests.parity.misa_reference import LETTERS, misa_names, misa_task
from tests.parity.reference import Golden, Names, check, load, recurrence_names
from tests.parity.test_mmlatch import batch_of

GOLDEN = {"misalatch": {"use_cmd_sim", "branch"}}
BRANCHES: dict[str, dict[str, object]] = {
    "master": {"source": "sequence", "generator": "recurrent"},
    "mpl_seq": {"source": "sequence", "source_mlp": True, "generator": "recurrent"},
    "static_mask": {"source": "utterance", "generator": "linear"},
    "static_after_mlp": {"source": "projected", "generator": "linear"},
}
"""The feedback of each published branch; what a file's is, its parameters say."""

SOURCES = {"text": ("audio", "visual"), "audio": ("text", "visual"), "visual": ("text", "audio")}
"""Per target the modalities that the reference's mask_y and mask_z read."""

UNUSED = ("bertmodel.", "sp_discriminator.", "tlayer_norm.")
"""The text encoder, and what the reference builds and its total never reads."""


def feedback_options(golden: Golden) -> dict[str, object]:
    """The feedback that a file's parameters are of, whatever its branch is called."""
    state, config = golden.group("state/"), golden.config
    mlp = "mlp_t.0.weight" in state
    if "feedback.f_t.mask_y.weight" not in state:
        return {"source": "sequence", "source_mlp": mlp, "generator": "recurrent"}
    read = [state[f"feedback.{mask}.weight"].shape[1] for mask in ("f_a.mask_y", "f_t.mask_y", "f_t.mask_z")]
    pooled = [config["bert"]["hidden_size"], 2 * config["acoustic_size"], 2 * config["visual_size"]]
    return {"source": "utterance" if read == pooled else "projected", "source_mlp": mlp, "generator": "linear"}


class StoredText(nn.Module):
    """The two text passes that a file holds, one per call."""

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        self.mask = golden["input/bert_mask"].float()[:, :, None]  # (B, P, 1)
        self.passes = [golden["output/bertmodel#0"], golden["output/bertmodel#1"]]
        self.width = self.input_dim = self.sequence_dim = self.utterance_dim = self.pooled_dim = self.passes[0].shape[2]
        # Where projected vectors give the masks, [CLS] and [SEP] are left out in the first pass.
        self.projects_words = feedback_options(golden)["source"] == "projected"
        self.calls = 0

    def embed(self, features: Tensor) -> Tensor:
        return features

    def forward(self, embedded: Embedded) -> Encoded:
        states = self.passes[self.calls % 2]
        self.calls += 1
        inner, of_word = states[:, 1:-1], self.mask[:, 1:-1]  # the originals cut the first and the last column
        pooled = (inner * of_word).sum(dim=1) / of_word.sum(dim=1)
        utterance = (states * self.mask).sum(dim=1) / self.mask.sum(dim=1)
        if self.projects_words and states is self.passes[0]:
            utterance = pooled
        return Encoded(inner, utterance, embedded.lengths, pooled)


def misalatch_names(state: dict[str, Tensor]) -> Names:
    names = {name: ours for name, ours in misa_names(state).items() if name in state}
    for target, letter in LETTERS.items():
        for theirs, source in zip(("mask_y", "mask_z"), SOURCES[target], strict=True):
            place = f"feedback.generators.{target}.{source}"
            names |= recurrence_names(f"feedback.f_{letter}.{theirs}.rnn", f"{place}.rnn", state)
            for p in ("weight", "bias"):
                names[f"feedback.f_{letter}.{theirs}.{p}"] = f"{place}.linear.{p}"
                for layer, ours in (("0", "project"), ("2", "norm")):
                    names[f"project_{letter}.{layer}.{p}"] = f"fusion.{ours}.{target}.{p}"
                names[f"mlp_{letter}.0.{p}"] = f"feedback.transforms.{target}.0.{p}"
                names[f"mlp_{letter}.2.{p}"] = f"feedback.transforms.{target}.2.{p}"
    return {name: ours for name, ours in names.items() if name in state}


def layers_together(weight: Tensor, width: int) -> Tensor:
    """Columns in the order of the branches (both directions of a layer together) to that of MISA (both layers)."""
    first, second = weight[:, : 2 * width].split(width, dim=1), weight[:, 2 * width :].split(width, dim=1)
    return torch.cat([first[0], second[0], first[1], second[1]], dim=1)


def misalatch_model(golden: Golden) -> tuple[MultimodalModel, Names]:
    config = golden.config
    state = {name: value for name, value in golden.group("state/").items() if not name.startswith(UNUSED)}
    names = misalatch_names(state)
    for modality in ("visual", "audio"):
        name = next(name for name, ours in names.items() if ours == f"fusion.project.{modality}.weight")
        state[name] = layers_together(state[name], state[name].shape[1] // 4)
    encoders: dict[str, nn.Module] = {
        "text": StoredText(golden),
        "visual": MisaEncoder(config["visual_size"], cell=config["rnncell"]),
        "audio": MisaEncoder(config["acoustic_size"], cell=config["rnncell"]),
    }
    fusion = MisaFusion(
        {m: encoder.utterance_dim for m, encoder in encoders.items()},  # type: ignore[misc]
        config["hidden_size"],
        similarity="cmd" if config["use_cmd_sim"] else "adversarial",
        reversal=config["reverse_grad_weight"],
        activation=config["activation"].lower(),
    )
    feedback = MaskFeedback(
        {m: encoder.input_dim for m, encoder in encoders.items()},  # type: ignore[misc]
        {
            "sequence": {m: encoder.sequence_dim for m, encoder in encoders.items()},  # type: ignore[misc]
            "utterance": {m: encoder.pooled_dim for m, encoder in encoders.items()},  # type: ignore[misc]
            **{code: dict.fromkeys(encoders, width) for code, width in fusion.code_dims.items()},
        },
        **feedback_options(golden),  # type: ignore[arg-type]
    )
    head = nn.Linear(fusion.output_dim, config["num_classes"])
    model = MultimodalModel(encoders, feedback, NoRegularizer(), fusion, head, "sentiment")
    load(model, state, names)
    return model.eval(), names


@pytest.mark.golden("misalatch")
def test_masks_second_pass_fusion_and_losses(golden_file: Path) -> None:
    golden = Golden(golden_file)
    model, names = misalatch_model(golden)
    task, lengths = misa_task(golden), golden["lengths"].long()
    text = torch.zeros(len(lengths), golden["input/visual"].shape[1], model.encoders["text"].input_dim)  # type: ignore[arg-type]
    batch = batch_of({"text": text, "visual": golden["input/visual"], "audio": golden["input/acoustic"]}, lengths)
    batch.targets = {"sentiment": golden["input/target"].squeeze(-1)}

    output = model(batch)
    for number, modality in enumerate(("text", "audio", "visual")):
        check(output.feedback[modality], golden[f"output/mask.{modality}"], lengths)
        if modality != "text":
            masked = batch.features[modality] * output.feedback[modality]
            check(masked, golden[f"output/feedback.{number}#0"], lengths)
    second = model.encode(model.feedback(model.embed(batch), model.encode(model.embed(batch)), model.fusion)[0])
    codes = model.fusion.codes(second)
    for modality, letter in LETTERS.items():
        check(codes["projected"][modality], golden[f"output/utt_{letter}_orig"])
        check(codes["private"][modality], golden[f"output/utt_private_{letter}"])
        check(codes["shared"][modality], golden[f"output/utt_shared_{letter}"])
    prediction = output.predictions["sentiment"]
    check(prediction, golden["output/pred"])
    similarity = "cmd" if golden.config["use_cmd_sim"] else "domain"
    for ours, theirs in (("similarity", similarity), ("difference", "diff"), ("reconstruction", "recon")):
        check(output.losses[ours], golden[f"output/loss.{theirs}"])
    total = task.loss(output, batch)
    check(total, golden["output/loss.total"])

    loss = (prediction - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward(retain_graph=True)
    compared = ("shared.shared_1.", "recon_t.")
    check_parts(model, golden, names, "grad/", compared)
    model.zero_grad()
    total.backward()
    check_parts(model, golden, names, "grad_total/", compared)


def check_parts(model: MultimodalModel, golden: Golden, names: Names, prefix: str, compared: tuple[str, ...]) -> None:
    """The gradients of the parameters that no gradient reaches through the text encoder."""
    ours = dict(model.named_parameters())
    for name, expected in golden.group(prefix).items():
        if name.startswith(compared):
            gradient = ours[names[name]].grad
            assert gradient is not None
            check(gradient, expected)


@pytest.mark.parametrize(
    ("branch", "hidden_dim", "feedback_count", "total"),
    [
        ("master", 128, 5_832_216, 7_267_321),
        ("mpl_seq", 148, 5_832_216 + 619_586, 8_153_687),
        ("static_mask", 128, 263_250, 1_698_355),
        ("static_after_mlp", 128, 226_266, 1_661_371),
    ],
)
def test_parameter_counts_of_the_published_sizes(branch: str, hidden_dim: int, feedback_count: int, total: int) -> None:
    bert, audio, visual = 768, 74, 35
    encoders: dict[str, nn.Module] = {"visual": MisaEncoder(visual), "audio": MisaEncoder(audio)}
    utterance_dims = {"text": bert, "visual": 4 * visual, "audio": 4 * audio}
    fusion = MisaFusion(utterance_dims, hidden_dim)
    vectors = {"text": bert, "visual": 2 * visual, "audio": 2 * audio}
    sources = {"sequence": vectors, "utterance": vectors, "projected": dict.fromkeys(vectors, hidden_dim)}
    inputs = {"text": bert, "visual": visual, "audio": audio}
    feedback = MaskFeedback(inputs, sources, **BRANCHES[branch])  # type: ignore[arg-type]
    model = MultimodalModel(encoders, feedback, NoRegularizer(), fusion, nn.Linear(fusion.output_dim, 1), "sentiment")
    assert sum(p.numel() for p in feedback.parameters()) == feedback_count
    unused = (
        4 * hidden_dim + 4
    ) + 4 * bert  # the discriminator of shared and private codes; a normalisation of the text
    assert sum(p.numel() for p in model.parameters()) == total - unused
