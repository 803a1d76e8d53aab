from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmsa.analysis.corruption import RATES, WAYS, Condition, DrawnWay, conditions, corrupt, dropped_steps
from mmsa.testing.batches import make_batch
from mmsa.types import Batch, padding_mask
from tests.contracts.conftest import configuration, model_of

LENGTHS = {"a[0]": (7, 7), "a[1]": (12, 0), "b[0]": (1, 1), "b[1]": (30, 30)}
MODALITIES = ("text", "audio")


def steps_of(name: str, modality: int) -> torch.Tensor:
    """(n, 3) features without a zero, different in every step of every utterance."""
    start = 1000 * list(LENGTHS).index(name) + 100 * modality
    return torch.arange(1, LENGTHS[name][modality] + 1)[:, None] + start + torch.tensor([0.0, 0.25, 0.5])


def batch_of(names: Sequence[str]) -> Batch:
    features, lengths = {}, {}
    for number, modality in enumerate(MODALITIES):
        steps = [steps_of(name, number) for name in names]
        features[modality] = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True)
        lengths[modality] = torch.tensor([len(one) for one in steps])
    targets = {"sentiment": torch.arange(float(len(names)))}
    return Batch(features, lengths, targets, torch.arange(len(names)), tuple(names))


def dropped_of(names: Sequence[str], modality: str, way: DrawnWay, rate: float) -> dict[str, list[bool]]:
    """The drops of each utterance, without padding."""
    batch = batch_of(names)
    dropped = dropped_steps(batch, modality, way, rate)
    assert not dropped[padding_mask(batch.lengths[modality], dropped.shape[1])].any()
    return {
        name: row[:n].tolist() for name, row, n in zip(names, dropped, batch.lengths[modality].tolist(), strict=True)
    }


@pytest.mark.parametrize("way", WAYS)
def test_drops_depend_on_utterance_modality_and_step_alone(way: DrawnWay) -> None:
    together = dropped_of(list(LENGTHS), "text", way, 0.4)
    assert dropped_of(list(LENGTHS)[::-1], "text", way, 0.4) == together
    for name in LENGTHS:
        assert dropped_of([name], "text", way, 0.4) == {name: together[name]}
    assert dropped_of(list(LENGTHS), "audio", way, 0.4)["b[1]"] != together["b[1]"]
    other = {name: n for name, n in together.items() if n == together["a[1]"]}
    assert list(other) == ["a[1]"], "every utterance has drops of its own"


@pytest.mark.parametrize("way", WAYS)
def test_what_a_smaller_rate_drops_a_larger_one_drops_too(way: DrawnWay) -> None:
    drawn = [dropped_of(list(LENGTHS), "text", way, rate) for rate in (0.0, *RATES, 1.0)]
    for smaller, larger in pairwise(drawn):
        for name in LENGTHS:
            assert np.all(np.array(larger[name]) >= np.array(smaller[name]))
    assert not any(map(any, drawn[0].values())) and all(map(all, drawn[-1].values()))


def test_scattered_steps_are_dropped_at_their_rate() -> None:
    names = tuple(f"video[{k}]" for k in range(200))
    batch = Batch({"text": torch.ones(200, 50, 1)}, {"text": torch.full((200,), 50)}, {}, torch.arange(200), names)
    for rate in RATES:
        assert dropped_steps(batch, "text", "zero", rate).float().mean().item() == pytest.approx(rate, abs=0.02)
    starts = dropped_steps(batch, "text", "stretch", 0.2).float().argmax(dim=1)
    assert starts.min() < 3 and starts.max() > 37 and starts.float().mean().item() == pytest.approx(20, abs=3)


@pytest.mark.parametrize("rate", RATES)
def test_a_stretch_is_one_piece_of_the_right_size(rate: float) -> None:
    for name, drops in dropped_of(list(LENGTHS), "text", "stretch", rate).items():
        places = np.flatnonzero(drops)
        assert len(places) == round(rate * LENGTHS[name][0])
        assert np.all(np.diff(places) == 1)


@pytest.mark.parametrize("way", WAYS)
def test_only_the_dropped_steps_of_the_named_modalities_change(way: DrawnWay) -> None:
    batch = batch_of(list(LENGTHS))
    before = {m: x.clone() for m, x in batch.features.items()}
    spoiled = corrupt(batch, Condition(way, ("text",), 0.6))
    dropped = dropped_steps(batch, "text", way, 0.6)
    assert torch.equal(spoiled.features["audio"], before["audio"])
    assert torch.equal(spoiled.features["text"][~dropped], before["text"][~dropped])
    assert all(torch.equal(batch.features[m], before[m]) for m in MODALITIES), "the batch itself stays as it is"
    assert all(torch.equal(spoiled.lengths[m], batch.lengths[m]) for m in MODALITIES)
    if way != "repeat":
        assert not spoiled.features["text"][dropped].any()


def test_a_repeated_step_is_the_last_kept_one_and_zero_before_the_first() -> None:
    names = [f"video[{k}]" for k in range(40)]
    features = torch.arange(1.0, 13.0)[None, :, None].expand(40, 12, 2).clone()
    batch = Batch({"text": features}, {"text": torch.full((40,), 12)}, {}, torch.arange(40), tuple(names))
    dropped = dropped_steps(batch, "text", "repeat", 0.6)
    repeated = corrupt(batch, Condition("repeat", ("text",), 0.6)).features["text"]
    assert dropped[:, 0].any() and (dropped[:, 1:] & dropped[:, :-1]).any()
    for row in range(40):
        before = torch.zeros(2)
        for step in range(12):
            before = before if dropped[row, step] else features[row, step]
            assert torch.equal(repeated[row, step], before)


@pytest.mark.parametrize("way", WAYS)
def test_words_by_number_are_dropped_as_the_padding(way: DrawnWay) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9], [3, 4, 0, 0, 0]])
    batch = Batch({"text": ids}, {"text": torch.tensor([5, 2])}, {}, torch.arange(2), ("a[0]", "a[1]"))
    dropped = dropped_steps(batch, "text", way, 0.5)
    spoiled = corrupt(batch, Condition(way, ("text",), 0.5)).features["text"]
    assert spoiled.dtype == torch.int64 and torch.equal(spoiled[~dropped], ids[~dropped])
    if way != "repeat":
        assert not spoiled[dropped].any()


@pytest.mark.parametrize("way", WAYS)
def test_rate_zero_and_the_full_subset_change_no_bit(way: DrawnWay) -> None:
    batch = batch_of(list(LENGTHS))
    for condition in (Condition(way, MODALITIES, 0.0), Condition("present", MODALITIES)):
        spoiled = corrupt(batch, condition)
        assert all(torch.equal(spoiled.features[m], batch.features[m]) for m in MODALITIES)
        assert all(torch.equal(spoiled.lengths[m], batch.lengths[m]) for m in MODALITIES)


def test_an_absent_modality_has_no_steps_no_values_and_no_pieces() -> None:
    batch = batch_of(list(LENGTHS))
    batch.pieces = {"audio": torch.ones(4, 30, 8, dtype=torch.bool)}
    spoiled = corrupt(batch, Condition("present", ("text",)))
    assert not spoiled.lengths["audio"].any() and not spoiled.features["audio"].any()
    assert not spoiled.pieces["audio"].any() and batch.pieces["audio"].all()
    assert torch.equal(spoiled.features["text"], batch.features["text"])


def test_every_subset_and_every_way_and_rate_is_probed_and_the_first_is_clean() -> None:
    probed = conditions(("text", "audio", "visual"), ("audio", "text", "visual"))
    assert probed[0] == Condition("present", ("text", "audio", "visual"))
    assert len({c.modalities for c in probed if c.way == "present"}) == 7
    assert len(probed) == len(set(probed)) == 7 + len(WAYS) * len(RATES) * 4
    assert Condition("stretch", ("text", "audio", "visual"), 0.8) in probed


def test_word_pieces_are_only_taken_away_whole() -> None:
    probed = conditions(("text", "audio", "visual"), ("audio", "visual"))
    assert not [c for c in probed if c.way != "present" and "text" in c.modalities]
    assert Condition("zero", ("audio", "visual"), 0.2) in probed and Condition("present", ("text",)) in probed
    assert len(conditions(("text",), ())) == 1


def test_every_condition_of_the_probe_acts_and_leaves_the_batch_alone() -> None:
    """The original's test of missing modalities is never switched on, its noise is added to the data set itself."""
    modalities = ("text", "audio", "visual")
    clean, *others = conditions(modalities, modalities)
    batch, untouched = make_batch(lengths=(12, 20, 1, 16)), make_batch(lengths=(12, 20, 1, 16))
    model = model_of(configuration()).eval()
    expected = model(batch).predictions["sentiment"]
    assert torch.equal(model(corrupt(batch, clean)).predictions["sentiment"], expected)
    for condition in others:
        assert not torch.allclose(model(corrupt(batch, condition)).predictions["sentiment"], expected), condition
        for m in modalities:
            assert torch.equal(batch.features[m], untouched.features[m])
            assert torch.equal(batch.lengths[m], untouched.lengths[m])
