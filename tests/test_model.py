"""The model: what its stages do to each other, and to a batch."""

from __future__ import annotations

import pytest
import torch

from mmsa.build import build_model, build_task
from mmsa.testing.batches import WIDTHS, make_batch
from mmsa.types import Embedded
from tests.contracts.conftest import configuration, model_of

MODALITIES = ("text", "audio", "visual")
STILL = [
    *(f"encoder.{m}.dropout=0" for m in MODALITIES),
    "fusion.dropout=0",
    "fusion.attention_dropout=0",
]
"""No dropout anywhere but in what is tested."""
REGULARIZERS = [
    ["regularizer=m3", "regularizer.p=1"],
    ["regularizer=m3", "regularizer.p=1", "regularizer.mode=soft"],
    ["regularizer=m3", "regularizer.p=1", "regularizer.mode=soft", "regularizer.per_step=false"],
    ["regularizer=m3_slp", "regularizer.p=1"],
    ["regularizer=dropout", "regularizer.p=0.5"],
]


@pytest.mark.parametrize("site", ["inputs", "encoded", "streams"])
@pytest.mark.parametrize("overrides", REGULARIZERS, ids=" ".join)
def test_every_regularizer_acts_in_the_model(overrides: list[str], site: str) -> None:
    """The original assigns the dropped streams to a loop variable and goes on with those that are whole."""
    batch = make_batch()
    plain = model_of(configuration(*STILL)).train()
    model = model_of(configuration(*STILL, *overrides, f"regularizer.sites=[{site}]")).train()
    model.load_state_dict(plain.state_dict())
    difference = model(batch).predictions["sentiment"] - plain(batch).predictions["sentiment"]
    assert (difference.abs() > 1e-6).any()


def test_no_stage_changes_a_batch_in_place() -> None:
    """Corruption in place reaches the data set itself when samples are handed out without a copy."""
    everywhere = "regularizer.sites=[inputs,encoded,streams]"
    for overrides in REGULARIZERS:
        batch, untouched = make_batch(), make_batch()
        model = model_of(configuration("feedback=mmlatch", *overrides, everywhere)).train()
        model(batch).predictions["sentiment"].sum().backward()
        assert all(torch.equal(batch.features[m], untouched.features[m]) for m in MODALITIES)
        assert all(torch.equal(batch.lengths[m], untouched.lengths[m]) for m in MODALITIES)


@pytest.mark.parametrize("encoder", ["bilstm", "misa"])
def test_encoders_start_apart(encoder: str) -> None:
    """Seeding anew before every part would give equal weights to parts of equal sizes."""
    cfg = configuration(f"encoder={encoder}", f"fusion={'misa' if encoder == 'misa' else 'attention'}")
    torch.manual_seed(0)
    model = build_model(cfg, dict.fromkeys(MODALITIES, 5), build_task(cfg), torch.Generator())
    drawn = {
        m: {name: p for name, p in model.encoders[m].named_parameters() if p.numel() > 1 and p.std() > 0}
        for m in MODALITIES
    }
    assert drawn["text"].keys() == drawn["audio"].keys() == drawn["visual"].keys() != set()
    for name, weight in drawn["text"].items():
        assert not torch.equal(weight, drawn["audio"][name]) and not torch.equal(weight, drawn["visual"][name])
    directions = [p for name, p in drawn["text"].items() if name.endswith("weight_hh_l0")]
    assert len(directions) >= 2 and not torch.equal(directions[0], directions[1])


def test_a_word_mask_reaches_the_pieces_of_its_word_and_nothing_else() -> None:
    """Rows of different lengths: [CLS] and each row's own [SEP] stay, and a mask of words is not one of pieces."""
    words = torch.tensor([[-1, 0, 0, 1, 2, -1], [-1, 0, 1, -1, -1, -1]])  # the second [SEP] is not in the last column
    pieces = words[:, None, :] == torch.arange(3)[None, :, None]  # (B, T, P)
    values = torch.randn(2, 6, 4)
    low = Embedded(values, torch.tensor([3, 2]), pieces, ids=torch.zeros(2, 6, dtype=torch.int64))
    mask = torch.rand(2, 3, 4)
    masked = low.masked(mask)
    for row in range(2):
        for piece, word in enumerate(words[row].tolist()):
            factor = mask[row, word] if word >= 0 else torch.ones(4)
            torch.testing.assert_close(masked.values[row, piece], values[row, piece] * factor)
    assert masked.ids is None, "the ids of pieces that were masked must not be looked up again"


def test_mask_generators_keep_their_own_initialisation() -> None:
    """MISA starts its recurrent matrices orthogonal; in MISA+MMLatch this reaches the mask LSTMs as well."""
    model = model_of(configuration("encoder=misa", "fusion=misa", "feedback=mmlatch"))
    orthogonal: dict[str, list[bool]] = {}
    for name, weight in model.named_parameters():
        if "weight_hh" in name:
            off = weight.T @ weight - torch.eye(weight.shape[1])
            orthogonal.setdefault(name.partition(".")[0], []).append(bool(off.abs().max() < 1e-4))
    assert all(orthogonal["encoders"]) and not any(orthogonal["feedback"])


def test_one_to_three_modalities_train() -> None:
    """The originals' models of one and two modalities stop with an error, as does a fusion of projected inputs."""
    for number, fusion in ((1, "concat"), (1, "sequence"), (2, "attention"), (2, "bilinear"), (3, "bilinear")):
        model = model_of(configuration(f"fusion={fusion}"), number).train()
        assert list(model.encoders) == list(WIDTHS)[:number]
        model(make_batch(number)).predictions["sentiment"].sum().backward()
