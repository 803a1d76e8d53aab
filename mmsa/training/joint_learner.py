"""Learners of one configuration as one: all parameters of a name in one stack, computed under vmap over the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from mmsa.layers.draws import Runs, Together, computing
from mmsa.model import Learner
from mmsa.types import Batch, Moment, Output

Losses = dict[str, Tensor]


class JointLearner(nn.Module):
    """Learners of one configuration as one, with all parameters of a name in one stack.

    Args:
        learners: K of them, without other state than their parameters.
        generators: of the first, which stand for those of all.
        runs: draw.

    Shapes: a Batch whose tensors are (K, …) and a Moment -> named losses (K,).
    """

    def __init__(self, learners: Sequence[Learner], generators: Sequence[Generator], runs: Runs) -> None:
        super().__init__()
        self._runs = runs
        self.parameters_of = [dict(learner.named_parameters()) for learner in learners]
        self._template: Any = deepcopy(learners[0], {id(source): source for source in generators})
        self.objective = self._template.objective
        names = {parameter: name for name, parameter in self._template.named_parameters()}
        self._places = [
            (module, name, names[parameter])
            for module in self._template.modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        ]
        for module, name, _ in self._places:
            delattr(module, name)  # a tensor of the joint step takes its place
        self._stacks = {
            name: nn.Parameter(torch.stack([own[name].data for own in self.parameters_of]), parameter.requires_grad)
            for name, parameter in self.parameters_of[0].items()
        }
        self._index = torch.arange(len(learners), device=next(iter(self._stacks.values())).device)[:, None]

    def named(self) -> dict[str, nn.Parameter]:
        """The stacks by the names of their parameters."""
        return self._stacks

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of all modules."""
        for stack in self._stacks.values():
            stack.grad = None

    @torch.no_grad()
    def gather(self) -> None:
        """Take over what the learners' parameters are now."""
        for name, stack in self._stacks.items():
            torch.stack([own[name].data for own in self.parameters_of], out=stack.data)

    def share_out(self) -> None:
        """Give each learner its gradients."""
        for name, stack in self._stacks.items():
            # A copy, as clipping changes it in place and two may share their memory; in order, as fused Adam reads it.
            whole = None if stack.grad is None else stack.grad.clone(memory_format=torch.contiguous_format)
            parts = [None] * len(self.parameters_of) if whole is None else whole.unbind()
            for own, part in zip(self.parameters_of, parts, strict=True):
                own[name].grad = part

    def forward(self, batch: Batch, moment: Moment) -> Losses:
        losses: Losses = self._batched(lambda own: self._template(own, moment), batch)
        return losses

    def outputs(self, batch: Batch) -> list[Output]:
        """The output of each."""

        def one(own: Batch) -> dict[str, Any]:
            output: Output = self._template.model(own)
            return {name: getattr(output, name) for name in ("predictions", "losses", "feedback")}

        found = self._batched(one, batch)
        primary = self._template.model.primary
        return [Output(primary=primary, **tree_map(itemgetter(k), found)) for k in range(len(self.parameters_of))]

    def _batched(self, one: Callable[[Batch], Any], batch: Batch) -> Any:
        """A computation of the template for all learners at once."""

        def placed(stacks: Mapping[str, Tensor], index: Tensor, tensors: Mapping[str, Any]) -> Any:
            for module, name, of in self._places:
                vars(module)[name] = stacks[of]  # as setattr, which takes ten times as long
            with computing(Together(index, self._runs)):
                return one(replace(batch, **tensors))

        tensors = {field: getattr(batch, field) for field in ("features", "lengths", "targets", "rows")}
        # what is drawn for all is cut by index
        return vmap(placed, randomness="same")(self._stacks, self._index, tensors)
