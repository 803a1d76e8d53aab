"""One forward and backward of several learners at once, each with its own parameters, batch and draws."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import vmap
from torch.nn.functional import pad
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from mmsa.layers.draws import Together, computing
from mmsa.model import Learner
from mmsa.stages import Objective, Phase
from mmsa.training.phases import summed
from mmsa.types import Batch, Moment, Output

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Largest difference between a loss of a joint step and the same alone: far above rounding, far below another draw."""


class JointStep:
    """The joint forward and backward of learners of one configuration.

    Args:
        learners: at least two, without other state than their parameters.
        generators: of each, by name; the one named "dropout" stands for the global one.
    """

    def __init__(self, learners: Sequence[Learner], generators: Sequence[Mapping[str, Generator]]) -> None:
        self._learners = list(learners)
        self._parameters = [list(learner.parameters()) for learner in learners]
        self._values = [[parameter.detach() for parameter in own] for own in self._parameters]
        self._generators = generators
        shared = {id(source): source for source in generators[0].values()}
        self._template: Any = deepcopy(learners[0], shared)
        numbers = {id(parameter): number for number, parameter in enumerate(self._template.parameters())}
        self._places: list[tuple[nn.Module, str, int]] = [
            (module, name, numbers[id(parameter)])
            for module in self._template.modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        ]
        for module, name, _ in self._places:
            delattr(module, name)  # a tensor of the joint step takes its place

    def __call__(self, numbers: Sequence[int], batches: Sequence[Batch], moment: Moment) -> list[dict[str, Tensor]]:
        """The losses of some learners, of each in its place; their gradients are in their parameters.

        Args:
            numbers: of the learners.
            batches: of each, all of one size.
            moment: of all.
        """
        own = [self._parameters[number] for number in numbers]
        leaves = [
            tensor.requires_grad_(parameter.requires_grad)
            for tensor, parameter in zip(self._stacked(numbers), self._parameters[0], strict=True)
        ]
        tensors, num_steps = together(batches)
        generators = {
            None if name == "dropout" else source: [self._generators[number][name] for number in numbers]
            for name, source in self._generators[0].items()
        }

        def one(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = self._template(replace(batches[0], **tensors), moment)
            return losses

        losses = self._batched(one, leaves, generators, num_steps, training=True)(tensors)
        trained = [number for number, leaf in enumerate(leaves) if leaf.requires_grad]
        total = summed({name: values.sum() for name, values in losses.items()})
        gradients = torch.autograd.grad(total, [leaves[number] for number in trained], allow_unused=True)
        for number, gradient in zip(trained, gradients, strict=True):
            # A copy, as clipping changes it in place and two may share their memory; in order, as fused Adam reads it.
            whole = None if gradient is None else gradient.clone(memory_format=torch.contiguous_format)
            parts = [None] * len(own) if whole is None else whole.unbind()
            for parameters, part in zip(own, parts, strict=True):
                parameters[number].grad = part
        return [{name: values[place].detach() for name, values in losses.items()} for place in range(len(numbers))]

    @torch.no_grad()
    def outputs(self, numbers: Sequence[int], batches: Sequence[Batch]) -> list[Output]:
        """The outputs of some learners in evaluation, of each in its place; arguments as of a step."""

        def one(tensors: Mapping[str, Any]) -> dict[str, Any]:
            output: Output = self._template.model(replace(batches[0], **tensors))
            return {name: getattr(output, name) for name in ("predictions", "losses", "feedback")}

        tensors, num_steps = together(batches)
        found = self._batched(one, self._stacked(numbers), {}, num_steps, training=False)(tensors)
        return [
            Output(primary=self._template.model.primary, **tree_map(itemgetter(place), found))
            for place in range(len(numbers))
        ]

    def _stacked(self, numbers: Sequence[int]) -> list[Tensor]:
        """The parameters of some learners, one over the other."""
        return [torch.stack(parts) for parts in zip(*(self._values[number] for number in numbers), strict=True)]

    def _batched(
        self,
        one: Callable[[Any], Any],
        parameters: Sequence[Tensor],
        generators: Mapping[Generator | None, Sequence[Generator]],
        num_steps: Mapping[int, Sequence[int]],
        training: bool,
    ) -> Callable[[Any], Any]:
        """A computation of the template for several learners at once, whose parameters these are."""

        def placed(parameters: Sequence[Tensor], index: Tensor, values: Any) -> Any:
            for module, name, number in self._places:
                vars(module)[name] = parameters[number]  # as setattr, which takes ten times as long
            with computing(Together(index, generators, num_steps)):
                return one(values)

        if self._template.training != training:
            self._template.train(training)
        index = torch.arange(len(parameters[0]))[:, None]
        return partial(vmap(placed, randomness="same"), parameters, index)  # what is drawn for all is cut by index

    def proven(self, numbers: Sequence[int], batches: Sequence[Batch], moment: Moment) -> list[dict[str, Tensor]]:
        """A joint step that is compared with the losses and the draws of each learner alone.

        Raises:
            RuntimeError: they differ, or PyTorch has no batching rule for an operation; all generators are as before.
        """
        before = self._states(numbers)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "There is a performance drop")  # of one without a batching rule
                found = self(numbers, batches, moment)
            self._compare(numbers, batches, moment, found, before)
        except UserWarning as warning:
            self._restore(numbers, before)
            operations = re.findall(r"aten::\w+", str(warning)) or [str(warning)]
            raise RuntimeError(f"PyTorch has no batching rule for {operations[0]}") from warning
        except BaseException:
            self._restore(numbers, before)
            raise
        return found

    def _compare(
        self,
        numbers: Sequence[int],
        batches: Sequence[Batch],
        moment: Moment,
        found: Sequence[Mapping[str, Tensor]],
        before: Mapping[tuple[int, str], Tensor],
    ) -> None:
        after = self._states(numbers)
        self._restore(numbers, before)
        for place, number in enumerate(numbers):
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.set_rng_state(self._generators[number]["dropout"].get_state())
                alone = self._learners[number](batches[place], moment)
                self._generators[number]["dropout"].set_state(torch.get_rng_state())
            for name, loss in alone.items():
                if not torch.allclose(loss, found[place][name], RELATIVE, ABSOLUTE, equal_nan=True):
                    raise RuntimeError(f"the loss {name} is {found[place][name].item():.6g}, alone {loss.item():.6g}")
        drawn = self._states(numbers)
        if any(not torch.equal(drawn[key], after[key]) for key in after):
            raise RuntimeError("a part draws other numbers than alone")

    def _states(self, numbers: Sequence[int]) -> dict[tuple[int, str], Tensor]:
        return {(n, name): source.get_state() for n in numbers for name, source in self._generators[n].items()}

    def _restore(self, numbers: Sequence[int], states: Mapping[tuple[int, str], Tensor]) -> None:
        for (number, name), state in states.items():
            self._generators[number][name].set_state(state)

    @torch.no_grad()
    def proven_outputs(self, numbers: Sequence[int], batches: Sequence[Batch]) -> list[Output]:
        """As `outputs`, compared with those of each learner alone.

        Raises:
            RuntimeError: they differ, or an operation cannot be batched.
        """
        found = self.outputs(numbers, batches)
        for number, batch, output in zip(numbers, batches, found, strict=True):
            for name, alone in self._learners[number].model(batch).predictions.items():
                most = RELATIVE * alone.abs().max().item()
                if not torch.allclose(alone, output.predictions[name], RELATIVE, most):
                    raise RuntimeError(f"the prediction {name} differs from that alone")
        return found


def together(batches: Sequence[Batch]) -> tuple[dict[str, Any], dict[int, list[int]]]:
    """The tensors of batches of one size with an axis for the batches before the others, by the name of their field,
    and for each padded number of steps that of every batch.

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
        features[m] = torch.stack(widened)
    stacked = {
        field: {name: torch.stack([getattr(batch, field)[name] for batch in batches]) for name in names}
        for field, names in (("lengths", batches[0].lengths), ("targets", batches[0].targets))
    }
    return {"features": features, **stacked, "rows": torch.stack([batch.rows for batch in batches])}, num_steps


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
