"""M3's laws beyond the reference's statistics (tests/parity/test_m3_masking.py).

Here fails whatever has one of the original's faults: options for steps and for rescaling that do nothing; soft masks
per step that stop with an error; a rescaling that acts at evaluation, by a factor that ignores the probabilities; draws
from several generators, some of which no seed sets; a coin that can only be tossed once per batch.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsa.errors import ConfigError
from mmsa.regularizer.m3 import M3
from mmsa.types import Regularized, Stream
from tests.contracts.conftest import configuration, model_of
from tests.streams import streams_of, values_of

NAMES = ("text", "audio", "visual")


def layer(seed: int = 0, **options: object) -> M3:
    return M3(NAMES, torch.Generator().manual_seed(seed), **options).train()  # type: ignore[arg-type]


def ones(*shape: int) -> dict[str, Stream]:
    return streams_of({name: torch.ones(*shape) for name in NAMES})


def values(done: Regularized) -> list[Tensor]:
    return list(values_of(done.streams).values())


def lost(done: Regularized) -> Tensor:
    """(M, B, …) whether every feature of a place is gone."""
    return torch.stack([(x == 0).all(dim=-1) for x in values(done)])


def test_equal_seeds_give_equal_masks_whatever_the_global_generator() -> None:
    for mode in ("hard", "soft"):
        torch.manual_seed(1)
        first = layer(mode=mode, p=1.0)("encoded", ones(3, 5, 2))
        torch.manual_seed(2)
        second = layer(mode=mode, p=1.0)("encoded", ones(3, 5, 2))
        assert all(map(torch.equal, values(first), values(second)))


def test_hard_masks_take_exactly_one_stream() -> None:
    assert (lost(layer(p=1.0)("encoded", ones(4, 6, 3))).sum(dim=0) == 1).all()
    per_utterance = lost(layer(p=1.0, per_step=False)("encoded", ones(4, 6, 3)))
    assert (per_utterance.all(dim=-1).sum(dim=0) == 1).all()
    assert (per_utterance.any(dim=-1) == per_utterance.all(dim=-1)).all()
    vectors = lost(layer(p=1.0, per_step=False)("encoded", ones(50, 3)))
    assert (vectors.sum(dim=0) == 1).all() and vectors.any(dim=1).all()


def test_soft_masks_per_step_share_the_stream_across_the_batch() -> None:
    masked = layer(mode="soft", p=1.0)("encoded", ones(4, 30, 3))
    gone = lost(masked)
    assert (gone.sum(dim=0) == 1).all()
    assert (gone == gone[:, :1]).all()
    assert gone.any(dim=(1, 2)).all(), "every stream is drawn at some step"
    partly = layer(mode="soft", p=0.5)("encoded", ones(4, 200, 3))
    share = sum((x == 0).float().mean() for x in values(partly))
    assert share == pytest.approx(0.5, abs=0.05)


def test_zero_probability_and_evaluation_leave_everything() -> None:
    for options in ({"p": 0.0}, {"p": 0.0, "mode": "soft"}):
        assert all((x == 1).all() for x in values(layer(**options)("encoded", ones(2, 3, 4))))
    assert all((x == 1).all() for x in values(layer(p=1.0).eval()("encoded", ones(2, 3, 4))))


def test_other_sites_are_left_alone() -> None:
    streams = ones(2, 3, 4)
    assert layer(p=1.0, sites=["inputs"])("encoded", streams).streams is streams
    seven = streams_of({str(index): torch.ones(10, 20, 4) for index in range(7)})
    masked = layer(p=1.0, sites=["streams"], probabilities=[1.0, 0.0, 0.0])("streams", seven)
    assert (lost(masked).sum(dim=0) == 1).all() and lost(masked).any(dim=(1, 2)).all()


def test_masked_entries_get_no_gradient() -> None:
    inputs = {name: torch.ones(3, 4, 2, requires_grad=True) for name in NAMES}
    masked = values(layer(p=1.0)("encoded", streams_of(inputs)))
    torch.stack(masked).sum().backward()
    for before, after in zip(inputs.values(), masked, strict=True):
        assert torch.equal(before.grad == 0, after == 0)


@pytest.mark.parametrize(("rescale", "probabilities"), [("uniform", None), ("per_modality", [3.0, 1.0, 1.0])])
def test_rescaling_keeps_the_expectation_in_training_only(rescale: str, probabilities: list[float] | None) -> None:
    regularizer = layer(p=0.5, rescale=rescale, probabilities=probabilities)
    total = {name: torch.zeros(()) for name in NAMES}
    calls = 3000
    for _ in range(calls):
        for name, stream in regularizer("encoded", ones(2, 4, 1)).streams.items():
            total[name] += stream.values.mean()
    for mean in total.values():
        assert mean / calls == pytest.approx(1.0, abs=0.03)
    assert all((x == 1).all() for x in values(regularizer.eval()("encoded", ones(2, 4, 1))))


GATES = [("batch", True), ("batch", False), ("sample", True), ("sample", False), ("step", True)]


@pytest.mark.parametrize(("gate", "per_step"), GATES)
def test_the_share_of_a_stream_is_the_same_for_every_gate(gate: str, per_step: bool) -> None:
    regularizer = layer(p=0.4, gate=gate, per_step=per_step, probabilities=[3.0, 1.0, 1.0])
    shares = torch.zeros(3)
    calls = 4000
    for _ in range(calls):
        gone = lost(regularizer("encoded", ones(2, 3, 1)))
        assert gone.sum(dim=0).max() <= 1
        shares += gone.float().mean(dim=(1, 2))
    torch.testing.assert_close(shares / calls, torch.tensor([0.24, 0.08, 0.08]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("gate", "per_step"), GATES)
def test_a_gate_opens_and_shuts_for_what_it_says(gate: str, per_step: bool) -> None:
    gone = lost(layer(p=0.5, gate=gate, per_step=per_step)("encoded", ones(200, 40, 1))).any(dim=0)  # (B, T)
    by_sample = gone.float().mean(dim=1)
    if gate == "batch":
        assert gone.all() or not gone.any()
    elif gate == "sample":
        assert set(by_sample.tolist()) == {0.0, 1.0}
        assert by_sample.mean() == pytest.approx(0.5, abs=0.15)
    else:
        assert by_sample.min() > 0 and by_sample.max() < 1
    fired = [
        bool(lost(layer(seed, p=0.5, gate=gate, per_step=per_step)("encoded", ones(1, 1, 1))).any())
        for seed in range(200)
    ]
    assert sum(fired) / 200 == pytest.approx(0.5, abs=0.15)


def test_vectors_are_gated_by_sample() -> None:
    gone = lost(layer(p=0.5, gate="sample", per_step=False)("encoded", ones(300, 2)))
    assert gone.sum(dim=0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert gone.any(dim=1).all()


@pytest.mark.parametrize("gate", ["batch", "sample", "step"])
def test_vectors_are_masked_whole_whatever_is_said_of_steps(gate: str) -> None:
    """One stream of each utterance, under a gate of steps too: a vector is one step."""
    gone = lost(layer(p=1.0, gate=gate)("encoded", ones(60, 3)))
    assert (gone.sum(dim=0) == 1).all() and gone.any(dim=1).all()


def test_soft_masks_of_vectors_act_on_one_stream_of_the_batch() -> None:
    soft = layer(p=0.5, mode="soft")("encoded", ones(60, 40))
    elements = torch.stack([x == 0 for x in values(soft)]).float().mean(dim=(1, 2))
    assert sorted(elements.tolist()) == [0.0, 0.0, pytest.approx(0.5, abs=0.05)]


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_beside_a_vector_steps_are_masked_by_the_utterance(mode: str) -> None:
    shapes = {"text": (60, 7, 3), "audio": (60, 3), "visual": (60, 5, 2)}
    done = layer(p=1.0, mode=mode)("encoded", streams_of({name: torch.ones(shape) for name, shape in shapes.items()}))
    gone = torch.stack([(x == 0).flatten(1).all(dim=1) for x in values(done)])  # (M, B)
    assert torch.equal(gone, torch.stack([(x == 0).flatten(1).any(dim=1) for x in values(done)])), "all of it or none"
    assert (gone.sum(dim=0) == 1).all()
    assert gone.any(dim=1).sum() == (3 if mode == "hard" else 1), "hard draws for each utterance, soft for the batch"


def test_steps_that_differ_in_number_are_masked_by_the_utterance_or_refused() -> None:
    unequal = streams_of({"text": torch.ones(50, 7, 3), "audio": torch.ones(50, 4, 3), "visual": torch.ones(50, 4, 2)})
    for mode in ("hard", "soft"):
        with pytest.raises(ConfigError, match=r"text 7, audio 4, visual 4\.\n  type regularizer\.per_step=false"):
            layer(p=1.0, mode=mode)("encoded", unequal)
        whole = [x.flatten(1).any(dim=1) for x in values(layer(p=1.0, mode=mode, per_step=False)("encoded", unequal))]
        assert (torch.stack(whole).sum(dim=0) == 2).all()
    assert all(map(torch.equal, values(layer(p=1.0).eval()("encoded", unequal)), values_of(unequal).values()))


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("shape", [(6, 9, 4), (6, 4)], ids=["steps", "vectors"])
@pytest.mark.parametrize("rescale", ["none", "uniform"])
@pytest.mark.parametrize(
    "how",
    [{"mode": "hard"}, {"mode": "hard", "gate": "sample"}, {"mode": "soft"}],
    ids=lambda how: " ".join(map(str, how.values())),
)
def test_what_is_said_to_be_kept_is_what_was_kept(
    how: dict[str, str], rescale: str, shape: tuple[int, ...], per_step: bool
) -> None:
    once = how["mode"] == "hard" and not (per_step and len(shape) == 3)
    for seed in range(20):
        done = layer(seed, p=0.6, per_step=per_step, rescale=rescale, **how)("encoded", ones(*shape))
        assert (done.rate, done.mix) == (None, None)
        assert set(done.kept) in (set(), set(NAMES))
        for name, stream in done.streams.items():
            kept = done.kept.get(name, torch.ones(shape[0], dtype=torch.bool))
            assert kept.dtype == torch.bool
            if done.kept:
                assert kept.shape == (shape if how["mode"] == "soft" else shape[:1] if once else shape[:2])
            everywhere = kept.reshape(kept.shape + (1,) * (len(shape) - kept.dim())).expand(shape)
            assert torch.equal(everywhere, stream.values != 0)
            assert torch.equal(stream.lengths, ones(*shape)[name].lengths), "what is hidden is there nevertheless"


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({"gate": "sample", "mode": "soft"}, "regularizer.mode=hard"),
        ({"gate": "step", "per_step": False}, "regularizer.per_step=true"),
    ],
)
def test_a_gate_that_would_do_nothing_is_refused(options: dict[str, object], typed: str) -> None:
    with pytest.raises(ConfigError, match=typed):
        layer(**options)


def test_several_sites_are_all_masked() -> None:
    regularizer = layer(p=1.0, sites=["inputs", "encoded", "streams"])
    for site in ("inputs", "encoded", "streams"):
        assert (lost(regularizer(site, ones(2, 3, 4))).sum(dim=0) == 1).all()


def test_a_factor_of_zero_probability_is_one() -> None:
    for rescale in ("uniform", "per_modality", "legacy"):
        masked = layer(p=0.0, rescale=rescale)("encoded", ones(2, 3, 4))
        assert all((x == 1).all() for x in values(masked))


def test_the_variant_of_slp_hides_whole_utterances_and_scales_up() -> None:
    regularizer = model_of(configuration("regularizer=m3_slp")).regularizer.train()
    assert (regularizer.p, regularizer.mode, regularizer.gate, regularizer.sites) == (0.2, "hard", "batch", {"encoded"})
    calls = 2000
    masked = 0
    for _ in range(calls):
        done = regularizer("encoded", ones(5, 3, 2))
        gone = lost(done)
        assert (gone.all(dim=-1) == gone.any(dim=-1)).all(), "all steps of an utterance or none"
        kept = torch.stack(values(done))
        torch.testing.assert_close(kept[kept != 0], torch.full_like(kept[kept != 0], 1 / (1 - 0.2 / 3)))
        masked += bool(gone.any())
    assert masked / calls == pytest.approx(0.2, abs=0.04)
    assert all((x == 1).all() for x in values(regularizer.eval()("encoded", ones(2, 3, 4))))
