"""What methods to come need of an objective and of a regularizer; see tests/objective/traits.py."""

from __future__ import annotations

import copy
import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmsa import build, learning
from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.run_folder import OF_THE_RUN, write_history
from mmsa.stages import Phase
from mmsa.testing.batches import make_batch
from mmsa.testing.laws import MOMENT, Subject, every_element_learns, targets_are_not_seen
from mmsa.testing.training import a_stopped_training_goes_on_to_the_same_bits, fitted
from mmsa.training.device import one_device
from mmsa.training.trainer import Trainer
from mmsa.types import Moment
from tests.contracts.conftest import configuration

TRAITS: dict[str, tuple[list[str], dict[str, str]]] = {
    "two phases": (["trainer.clip_norm=0.05"], {"objective": "TwoPhases"}),
    "complete": (["regularizer=m3", "regularizer.p=1", "regularizer.sites=[inputs]"], {"objective": "OnTheComplete"}),
    "mixing": (["fusion=concat"], {"regularizer": "Mixing"}),
    "mixed classes": (["fusion=concat", "task=classification"], {"regularizer": "Mixing"}),
    "memory by row": (["trainer.accumulate=2"], {"objective": "RowMemory"}),
}


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.config.PACKAGES", ("tests",))


def subject_of(overrides: list[str], parts: Mapping[str, str]) -> Subject:
    cfg = copy.deepcopy(configuration(*overrides))  # which all tests share
    for group, name in parts.items():
        OmegaConf.update(cfg, group, {"_target_": f"tests.objective.traits.{name}"}, merge=False)
    return Subject(cfg)


@pytest.mark.parametrize("trait", TRAITS)
def test_stopped_in_mid_epoch_and_resumed_it_comes_to_equal_bits(trait: str) -> None:
    subject = subject_of(*TRAITS[trait])
    a_stopped_training_goes_on_to_the_same_bits(subject)
    targets_are_not_seen(subject, subject.model())


@pytest.mark.parametrize("trait", ["two phases", "complete", "mixing"])
def test_every_parameter_of_it_learns(trait: str) -> None:
    subject = subject_of(*TRAITS[trait])
    every_element_learns(subject, subject.model())


# --- phases -----------------------------------------------------------------------------------------------------------


def trainer_of(cfg: DictConfig, folder: Path) -> Trainer:
    options = {key: value for key, value in cfg.trainer.items() if key not in OF_THE_RUN}
    return Trainer(one_device(), build.build_task(cfg), folder, {}, **options)


def stepped_by(learner: Learner, phase: Phase, trainer: Trainer, optimizers: Mapping[str, Any]) -> set[str]:
    before = {name: p.detach().clone() for name, p in learner.named().items()}
    trainer.step(learner, optimizers, [make_batch(lengths=(4, 9, 1, 6, 3))], [MOMENT], phase)
    return {name for name, p in learner.named().items() if not torch.equal(p, before[name])}


def test_a_phase_steps_its_parameters_by_its_optimiser_and_no_others(tmp_path: Path) -> None:
    subject = subject_of(*TRAITS["two phases"])
    learner = subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, learner)
    estimators = {name for name in learner.named() if name.startswith("objective.estimator.")}
    held = {n: {id(p) for g in o.param_groups for p in g["params"]} for n, o in optimizers.items()}
    assert held["estimate"] == {id(learner.named()[name]) for name in estimators}
    assert not held["main"] & held["estimate"]
    first, second = learner.objective.phases
    trainer = trainer_of(subject.cfg, tmp_path)
    assert stepped_by(learner, first, trainer, optimizers) == estimators
    assert stepped_by(learner, second, trainer, optimizers) == learner.named().keys() - estimators


def test_the_gradients_that_a_phase_does_not_step_count_in_the_norm_that_is_clipped(tmp_path: Path) -> None:
    subject = subject_of(*TRAITS["two phases"])
    learner = subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, learner)
    trainer_of(subject.cfg, tmp_path).step(learner, optimizers, [make_batch()], [MOMENT], learner.objective.phases[0])
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert len(gradients) > 2, "the model's gradients are there, too"
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    plain = subject.learner()
    plain(make_batch(), MOMENT)["likelihood"].backward()
    unclipped = torch.stack([p.grad.norm() for p in plain.parameters() if p.grad is not None]).norm()
    assert unclipped > 0.05 and norm == pytest.approx(0.05, rel=1e-4)


def test_a_frozen_part_of_the_model_waits_for_its_phase(tmp_path: Path) -> None:
    """The run's optimiser, of which a phase steps some parameters only, keeps the gradients of the others."""
    subject = Subject(configuration())
    learner = subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, learner)
    phase = Phase("head first", ("head.*",))
    assert stepped_by(learner, phase, trainer_of(subject.cfg, tmp_path), optimizers) == {"head.weight", "head.bias"}
    assert all(p.grad is not None for p in learner.parameters())


def test_phases_run_in_their_epochs_over_their_share_of_the_train_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Moment] = []
    subject = subject_of(*TRAITS["two phases"])
    learner = subject.learner()
    late = Phase("late", ("*",), ("task",), first_epoch=2, last_epoch=3)
    short = Phase("estimate", ("objective.estimator.*",), ("likelihood",), learner.objective.phases[0].optimizer, 0.5)

    class Spied(Subject):
        def learner(self, *args: Any, **kwargs: Any) -> Learner:
            made = super().learner(*args, **kwargs)
            made.objective.phases = (short, late)
            made.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
            return made

    told: list[tuple[int, float]] = []
    shown = partial(Trainer, on_batch=lambda *share: told.append(share))
    monkeypatch.setattr("mmsa.testing.training.Trainer", shown)
    state, _ = fitted(Spied(subject.cfg), tmp_path)
    walked = [(moment.epoch, moment.phase, moment.step, moment.num_steps) for moment in seen]
    expected = []
    for epoch in range(1, 6):
        expected += [(epoch, "estimate", step, 2) for step in (1, 2)]
        expected += [(epoch, "late", step, 4) for step in (1, 2, 3, 4)] * (epoch in (2, 3))
    assert walked == expected
    sizes = {epoch: 6 if epoch in (2, 3) else 2 for epoch in range(1, 6)}
    assert told == [(epoch, done / size) for epoch, size in sizes.items() for done in range(1, size + 1)]
    assert "train/task" not in state.history[0] and "train/task" in state.history[1]
    write_history(tmp_path / "history.csv", state.history)
    first, second, *_ = csv.DictReader((tmp_path / "history.csv").read_text(encoding="utf-8").splitlines())
    assert first["train/task"] == "" and float(second["train/task"]) > 0


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (Phase("odd", ("objective.nothing.*",)), r"steps objective\.nothing\.\*, and no parameter has such a name"),
        (Phase("odd", losses=("absent",)), "lowers the loss absent, which is not returned; choose from task"),
    ],
)
def test_a_phase_of_what_is_not_there_is_refused(tmp_path: Path, phase: Phase, said: str) -> None:
    subject = Subject(configuration())
    learner = subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, learner)
    with pytest.raises(ConfigError, match=said):
        trainer_of(subject.cfg, tmp_path).step(learner, optimizers, [make_batch()], [MOMENT], phase)


# --- the complete input -----------------------------------------------------------------------------------------------


def test_the_complete_input_is_encoded_beside_the_corrupted_one_with_its_gradient() -> None:
    overrides, parts = TRAITS["complete"]
    still = [f"encoder.{m}.dropout=0" for m in ("text", "audio", "visual")]
    subject = subject_of([*overrides, *still], parts)
    model, batch = subject.model().train(), subject.batch()
    _, internals = model.trace(batch, complete=True)
    whole = model.encode(model.embed(batch))
    for modality, part in internals.complete.items():
        assert torch.equal(part.utterance, whole[modality].utterance)
        assert not torch.equal(part.utterance, internals.encoded[modality].utterance), "it lost some of its steps"
    told = internals.complete["text"].utterance.sum()
    (gradient,) = torch.autograd.grad(told, next(iter(model.encoders["text"].parameters())))
    assert gradient.abs().sum() > 0
    assert not model.trace(batch)[1].complete, "it is paid only where it is asked for"


# --- mixed utterances -------------------------------------------------------------------------------------------------


def test_targets_follow_mixed_utterances_with_weights_of_their_own() -> None:
    subject = subject_of(*TRAITS["mixing"])
    learner, batch = subject.learner(), subject.lacking()
    output, internals = learner.model.trace(batch)
    mix = output.mix
    assert mix is not None and len(output.predictions["sentiment"]) == len(mix.rows) == 2 * len(batch.ids)
    truth = batch.targets["sentiment"]
    by_hand = torch.stack(
        [sum(w * truth[row] for w, row in zip(mix.targets[n], mix.rows[n], strict=True)) for n in range(len(mix.rows))]
    )
    expected = (output.predictions["sentiment"].squeeze(-1) - by_hand).abs().mean()
    loss = learner.objective(output, internals, batch, MOMENT)["task"]
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, learner.model.regularizer.lean)
    assert gradient != 0, "weights of targets may carry a gradient"


def test_mixed_classes_are_shares_of_classes() -> None:
    subject = subject_of(*TRAITS["mixed classes"])
    learner, batch = subject.learner(), subject.batch()
    output, internals = learner.model.trace(batch)
    assert output.mix is not None
    classes = (batch.targets["sentiment"] >= 0).long()[output.mix.rows]  # (N, 2)
    logs = output.predictions["sentiment"].log_softmax(dim=1)
    expected = -(output.mix.targets * logs.gather(1, classes)).sum(dim=1).mean()
    torch.testing.assert_close(learner.objective(output, internals, batch, MOMENT)["task"], expected)


def test_utterances_are_mixed_at_one_site_only_and_never_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(*TRAITS["mixing"])
    model = subject.model().train()
    once = type(model.regularizer).forward
    monkeypatch.setattr(type(model.regularizer), "forward", lambda self, site, streams: once(self, "encoded", streams))
    with pytest.raises(ConfigError, match=r"mixes utterances twice\.\n  type regularizer\.sites=\[inputs\]"):
        model.trace(subject.batch())


# --- memory by row ----------------------------------------------------------------------------------------------------


def test_a_memory_is_renewed_after_every_batch_also_where_gradients_add_up(tmp_path: Path) -> None:
    subject = subject_of(*TRAITS["memory by row"])
    state, learner = fitted(subject, tmp_path)
    assert state.epoch == 5 and (learner.objective.times == 5).all()
    other = subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, other)
    batch, moments = subject.batch(), [MOMENT, MOMENT._replace(step=2)]
    seen: list[Tensor] = []
    other.register_forward_pre_hook(lambda module, inputs: seen.append(module.objective.remembered.clone()))
    trainer_of(subject.cfg, tmp_path).step(other, optimizers, [batch, batch], moments)
    assert not torch.equal(*seen), "the second batch of a group sees what the first left"


def test_what_an_objective_owns_is_never_part_of_the_model() -> None:
    for overrides, parts in TRAITS.values():
        subject = subject_of(overrides, parts)
        learner = subject.learner()
        assert learner.model.state_dict().keys() == subject.model().state_dict().keys()
        assert not any("estimator" in name or "remembered" in name for name in learner.model.state_dict())
