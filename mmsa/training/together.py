"""One forward and backward of several learners at once, each with its own parameters, batch and draws."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Generator, Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from mmsa.layers.draws import Runs, drawing_as, global_generators
from mmsa.model import Learner
from mmsa.stages import Objective, Phase
from mmsa.training.joint_learner import JointLearner, Losses
from mmsa.training.joint_update import JointUpdate, fit_together
from mmsa.training.trainer import Gradients, alone
from mmsa.types import Batch, Moment, Output, sent

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Largest difference between a loss of a joint step and the same alone: far above rounding, far below another draw."""
CLOSE = 1e-2
"""Largest difference between a gradient of a joint step and the same alone, as a share of the largest element."""


@dataclass(frozen=True)
class Trained:
    """What a computation of gradients reads of a trainer.

    Args:
        fabric: where it runs.
        generators: of all runs.
    """

    fabric: Fabric
    generators: Mapping[str, Generator]


class JointStep:
    """The joint forward and backward of learners of one configuration.

    Args:
        learners: at least two, without other state than their parameters.
        generators: of each, by name; those by the names of `global_generators` stand for these.
        fabric: where they run.
        gradients: computes losses and gradients as `alone` does, of all as of one learner.
        optimizers: of each; none leave the update to the caller.
        clip_norm, clip_value: as of the trainer.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        generators: Sequence[Mapping[str, Generator]],
        fabric: Fabric,
        gradients: Gradients = alone,
        optimizers: Sequence[Optimizer] = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self._learners, self._generators, self._gradients = learners, generators, gradients
        self._optimizers, self._clip = optimizers, (clip_norm, clip_value)
        self._update: JointUpdate | None = None
        self.updated = False
        """Whether the last step has updated the parameters; else their gradients are in them."""
        first = {**generators[0], **global_generators()}
        self._runs = Runs({first[name]: [own[name] for own in generators] for name in generators[0]})
        self._joint: Any = JointLearner(learners, list(generators[0].values()), self._runs)
        numbered = {f"{name} {k}": source for k, own in enumerate(generators) for name, source in own.items()}
        self._trained: Any = Trained(fabric, numbered)

    def __call__(self, batches: Sequence[Batch], moment: Moment) -> list[Losses]:
        """The losses of each learner, whose parameters are updated or have their gradients.

        Args:
            batches: of each, all of one size.
            moment: of all.

        Raises:
            Exception: whatever it is, all generators are as before.
        """
        with self._restored_after_an_error():
            losses = self._computed(batches, moment)
            self.updated = self._all_updated()
        if not self.updated:
            self._joint.share_out()
        return losses

    def release(self) -> None:
        """Give each learner tensors of its own."""
        if self._update is not None:
            self._update.release()
            self._update = None
            for module in (module for learner in self._learners for module in learner.modules()):
                if isinstance(module, nn.RNNBase):
                    module.flatten_parameters()  # a GPU's library warns where they lie apart, and copies them each time

    def _computed(self, batches: Sequence[Batch], moment: Moment) -> list[Losses]:
        """The losses of each learner; the gradients are in the stacks."""
        batch = self._together(batches, training=True)
        (losses,) = self._gradients(self._trained, self._joint, [batch], [moment], Phase())
        return [{name: values[k] for name, values in losses.items()} for k in range(len(batches))]

    def _all_updated(self) -> bool:
        """Update all; False where each is to update itself, as from then on."""
        joint = self._joint
        if self._update is None and self._optimizers and fit_together(self._optimizers, joint.parameters_of):
            self._update = JointUpdate(joint.named(), joint.parameters_of, self._optimizers, *self._clip)
        if self._update is not None and self._update():
            return True
        self.release()
        self._optimizers = ()
        return False

    @torch.no_grad()
    def outputs(self, batches: Sequence[Batch]) -> list[Output]:
        """The output of each learner in evaluation; arguments as of a step."""
        batch = self._together(batches, training=False)
        outputs: list[Output] = self._joint.outputs(batch)
        return outputs

    def _together(self, batches: Sequence[Batch], training: bool) -> Batch:
        """The batches as one, for which all is ready."""
        if self._joint.training != training:
            self._joint.train(training)
        batch, self._runs.num_steps = together(batches, self._trained.fabric.device)
        if self._update is None:
            self._joint.gather()
        return batch

    def proven(self, batches: Sequence[Batch], moment: Moment) -> list[Losses]:
        """A joint step, without an update, that is compared with the losses, gradients and draws of each learner alone.

        Raises:
            RuntimeError: they differ, or PyTorch has no batching rule for an operation; all generators are as before.
        """
        before, self.updated = self._states(), False
        self.release()
        with self._restored_after_an_error():
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "There is a performance drop")  # of one without a batching rule
                    found = self._computed(batches, moment)
                    self._joint.share_out()
            except UserWarning as warning:
                operations = re.findall(r"aten::\w+", str(warning)) or [str(warning)]
                raise RuntimeError(f"PyTorch has no batching rule for {operations[0]}") from warning
            after = self._states()
            self._restore(before)
            for learner, own, batch, losses in zip(self._learners, self._generators, batches, found, strict=True):
                with drawing_as(own):
                    self._compare(learner, batch, moment, losses)
            drawn = self._states()
            if any(not torch.equal(drawn[key], after[key]) for key in after):
                raise RuntimeError("a part draws other numbers than alone")
        return found

    def _compare(self, learner: Any, batch: Batch, moment: Moment, losses: Losses) -> None:
        """Compare a learner's losses and gradients with those that it has alone; the gradients stay.

        Raises:
            RuntimeError: they differ.
        """
        parameters = dict(learner.named_parameters())
        found = {name: parameter.grad for name, parameter in parameters.items()}
        (wanted,) = alone(self._trained, learner, [batch], [moment], Phase())
        for name, loss in wanted.items():
            if not torch.allclose(loss, losses[name], RELATIVE, ABSOLUTE, equal_nan=True):
                raise RuntimeError(f"the loss {name} is {losses[name].item():.6g}, alone {loss.item():.6g}")
        size = max(p.grad.abs().max().item() for p in parameters.values() if p.grad is not None)
        for name, parameter in parameters.items():
            ours, theirs = (torch.zeros(()) if g is None else g for g in (found[name], parameter.grad))
            most = CLOSE * theirs.abs().max().item() + ABSOLUTE * size
            if not ((ours - theirs).abs().max().item() <= most or not math.isfinite(size)):
                raise RuntimeError(f"the gradient of {name} differs from that alone")
            parameter.grad = found[name]

    @contextmanager
    def _restored_after_an_error(self) -> Iterator[None]:
        """An error inside leaves all generators as they were before."""
        before = self._states()
        try:
            yield
        except BaseException:
            self._restore(before)
            raise

    def _states(self) -> dict[str, Tensor]:
        return {name: source.get_state() for name, source in self._trained.generators.items()}

    def _restore(self, states: Mapping[str, Tensor]) -> None:
        for name, state in states.items():
            self._trained.generators[name].set_state(state)

    @torch.no_grad()
    def proven_outputs(self, batches: Sequence[Batch]) -> list[Output]:
        """As `outputs`, compared with those of each learner alone.

        Raises:
            RuntimeError: they differ, or an operation cannot be batched.
        """
        found = self.outputs(batches)
        self.release()
        for learner, batch, output in zip(self._learners, batches, found, strict=True):
            for name, wanted in learner.model(batch).predictions.items():
                most = RELATIVE * wanted.abs().max().item()
                if not torch.allclose(wanted, output.predictions[name], RELATIVE, most):
                    raise RuntimeError(f"the prediction {name} differs from that alone")
        return found


def together(batches: Sequence[Batch], device: torch.device) -> tuple[Batch, dict[int, list[int]]]:
    """Batches of one size as one on a device, its tensors (K, …); for each padded number of steps that of every batch.

    Modalities whose steps differ in other ways between the batches get other padded numbers.
    """
    if batches[0].pieces:
        raise NotImplementedError("word pieces have steps of their own")
    num_steps: dict[int, list[int]] = {}
    features = {}
    for m in batches[0].features:
        own = [batch.features[m].shape[1] for batch in batches]
        most = max(own)
        while num_steps.get(most, own) != own:
            most += 1
        num_steps[most] = own
        axes = batches[0].features[m].dim() - 2  # after that of time
        widened = [
            b.features[m] if n == most else pad(b.features[m], (0, 0) * axes + (0, most - n))
            for b, n in zip(batches, own, strict=True)
        ]
        features[m] = sent(torch.stack(widened), device)
    lengths, targets = (
        {name: sent(torch.stack([getattr(batch, field)[name] for batch in batches]), device) for name in names}
        for field, names in (("lengths", batches[0].lengths), ("targets", batches[0].targets))
    )
    rows = sent(torch.stack([batch.rows for batch in batches]), device)
    return replace(batches[0], features=features, lengths=lengths, targets=targets, rows=rows), num_steps


def hindrance(learner: Learner) -> str | None:
    """Why a learner takes no part in a joint step, as far as its parts show it."""
    if reason := hindrance_of(type(learner.objective)):
        return reason
    if tuple(learner.objective.phases) != (Phase(),):
        return "the objective has phases of its own"
    for name, module in learner.named_modules():
        rate = getattr(module, "dropout" if isinstance(module, nn.MultiheadAttention) else "p", 0.0)
        if isinstance(module, _DropoutNd | nn.MultiheadAttention) and rate > 0:
            return f"{name.partition('.')[2]} drops by the library's own draws"
    if name := next((name for name, _ in learner.named_buffers()), None):
        return f"{name.partition('.')[2]} is state besides the parameters"
    return None


def hindrance_of(objective: type) -> str | None:
    """Why no learner of this objective takes part in a joint step."""
    renewed = getattr(objective, "after_backward", None) is not Objective.after_backward
    return "the objective has a memory of its own" if renewed else None
