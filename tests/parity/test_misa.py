"""MISA against the golden vectors, whatever sizes, cells and losses a file states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmsa.encoder.bert import TransformerEncoder
from mmsa.encoder.misa import MisaEncoder
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.misa import MisaFusion
from mmsa.fusion.misa_losses import central_moment_discrepancy
from mmsa.model import MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from tests.parity.misa_reference import LETTERS, misa_batch, misa_model, misa_task
from tests.parity.reference import Golden, check, check_gradients
from tests.streams import values_of

GOLDEN = {"misa": {"use_cmd_sim"}}

GOLDEN = {"misa": {"use_cmd_sim"}}


@pytest.mark.golden("misa")
def test_outputs_losses_and_gradients(golden_file: Path, tmp_path: Path) -> None:
    golden = Golden(golden_file)
    model, names = misa_model(golden, tmp_path)
    task = misa_task(golden)
    model.eval()
    batch = misa_batch(golden)
    lengths = batch.lengths["text"]
    output = model(batch)

    fusion = model.fusion
    encoded = model.encode(model.embed(batch))
    streams = values_of(fusion.interact(encoded).streams)
    if "output/bertmodel#0" in golden:
        check(encoded["text"].sequence, golden["output/bertmodel#0"][:, 1:-1], lengths)
    for modality, letter in LETTERS.items():
        private, shared = streams[f"private {modality}"], streams[f"shared {modality}"]
        check(encoded[modality].utterance, golden[f"output/utterance_{letter}"])
        projected = fusion.activation(fusion.project[modality](encoded[modality].utterance))
        check(fusion.norm[modality](projected), golden[f"output/utt_{letter}_orig"])
        check(private, golden[f"output/utt_private_{letter}"])
        check(shared, golden[f"output/utt_shared_{letter}"])
        check(private + shared, golden[f"output/utt_{letter}"])
        check(fusion.reconstruct[modality](private + shared), golden[f"output/utt_{letter}_recon"])
        if fusion.discriminator is not None:
            check(fusion.discriminator(shared), golden[f"output/domain_label_{letter}"])
    codes = torch.stack(list(streams.values()), dim=1)  # (B, 6, H)
    check(fusion.transformer(codes).transpose(0, 1), golden["output/transformer_encoder#0"])

    prediction = output.predictions["sentiment"]
    check(prediction, golden["output/pred"])
    if "output/pred_alone" in golden:
        check(prediction, golden["output/pred_alone"])
    with torch.no_grad():  # another kernel of the transformer
        check(model(batch).predictions["sentiment"], golden["output/pred"])

    shared_codes = [streams[f"shared {m}"] for m in LETTERS]
    present = lengths > 0
    pairs = [
        central_moment_discrepancy(x, y, present, present)
        for i, x in enumerate(shared_codes)
        for y in shared_codes[i + 1 :]
    ]
    check(torch.stack(pairs).mean(), golden["output/loss.cmd"])
    similarity = "cmd" if golden.config["use_cmd_sim"] else "domain"
    for ours, theirs in (("similarity", similarity), ("difference", "diff"), ("reconstruction", "recon")):
        check(output.losses[ours], golden[f"output/loss.{theirs}"])
    check(task.primary_loss(prediction, batch.targets["sentiment"]), golden["output/loss.cls"])
    total = task.loss(output, batch)
    check(total, golden["output/loss.total"])

    loss = (prediction - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward(retain_graph=True)
    check_gradients(model, golden, names)
    model.zero_grad()
    total.backward()
    check_gradients(model, golden, names, "grad_total/")


@pytest.mark.golden("misa")
def test_padding_and_order_of_the_batch_do_not_matter(golden_file: Path, tmp_path: Path) -> None:
    golden = Golden(golden_file)
    model, _ = misa_model(golden, tmp_path)
    model.eval()
    batch = misa_batch(golden)
    order = torch.randperm(len(batch.ids), generator=torch.Generator().manual_seed(0))
    lengths = {m: n[order] for m, n in batch.lengths.items()}
    padding = torch.arange(batch.features["audio"].shape[1])[None, :] >= lengths["audio"][:, None]
    dirty = {
        m: x[order].masked_fill(padding.reshape(*padding.shape, *[1] * (x.dim() - 2)), 1)
        for m, x in batch.features.items()
        if m not in batch.pieces
    }
    pieces = {m: torch.nn.functional.pad(which[order], (0, 3)) for m, which in batch.pieces.items()}
    longer = {m: torch.nn.functional.pad(batch.features[m][order], (0, 3)) for m in pieces}
    features = {m: (dirty | longer)[m] for m in batch.features}
    prediction = model(replace(batch, features=features, lengths=lengths, pieces=pieces)).predictions["sentiment"]
    check(prediction, golden["output/pred"][order])


@pytest.mark.parametrize(
    ("visual", "audio", "num_classes", "count"),
    [(47, 74, 1, 5_144_065), (35, 74, 1, 5_098_129), (75, 81, 2, 5_343_670)],
    ids=["cmu_mosi", "cmu_mosei", "ur_funny"],
)
def test_parameter_counts_of_the_published_sizes(visual: int, audio: int, num_classes: int, count: int) -> None:
    unused = 516  # the original's discriminator of shared and private codes
    discriminator = 16_899
    for similarity, more in (("cmd", 0), ("adversarial", discriminator)):
        widths = {"text": 300, "visual": visual, "audio": audio}
        encoders = {m: MisaEncoder(width) for m, width in widths.items()}
        fusion = MisaFusion({m: e.utterance_dim for m, e in encoders.items()}, 128, similarity=similarity)
        modules: dict[str, nn.Module] = dict(encoders)
        head = nn.Linear(fusion.output_dim, num_classes)
        model = MultimodalModel(modules, NoFeedback(), NoRegularizer(), fusion, head, "sentiment")
        assert sum(p.numel() for p in model.parameters()) == count - unused + more


@pytest.mark.parametrize(
    ("visual", "audio", "num_classes", "count"),
    [(47, 74, 1, 1_479_169), (35, 74, 1, 1_433_233), (75, 81, 2, 1_678_774)],
    ids=["cmu_mosi", "cmu_mosei", "ur_funny"],
)
def test_parameter_counts_beside_bert(visual: int, audio: int, num_classes: int, count: int, tmp_path: Path) -> None:
    from transformers import BertConfig

    unused = 516 + 1200  # the discriminator of shared and private codes; a normalisation of the text
    BertConfig().save_pretrained(tmp_path)
    with torch.device("meta"):
        encoders: dict[str, nn.Module] = {"text": TransformerEncoder(str(tmp_path))}
        encoders |= {"visual": MisaEncoder(visual), "audio": MisaEncoder(audio)}
        fusion = MisaFusion({m: e.utterance_dim for m, e in encoders.items()}, 128)  # type: ignore[misc]
        head = nn.Linear(fusion.output_dim, num_classes)
    model = MultimodalModel(encoders, NoFeedback(), NoRegularizer(), fusion, head, "sentiment")
    ours = [p.numel() for name, p in model.named_parameters() if not name.startswith("encoders.text.")]
    assert sum(ours) == count - unused
