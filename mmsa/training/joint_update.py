"""One update of several learners: of each the gradient is clipped by itself, and all optimisers are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer


class JointUpdate:
    """Clips gradients and steps optimisers, as `Trainer.update` does for each.

    While it stands, the parameters and the states of all optimisers are parts of stacks.

    Args:
        stacks: (K, …) of the parameters of K learners, by name.
        parameters: of each learner, by the same names.
        optimizers: of each, as `fit_together` allows.
        clip_norm, clip_value: as of the trainer.
    """

    def __init__(
        self,
        stacks: Mapping[str, nn.Parameter],
        parameters: Sequence[Mapping[str, nn.Parameter]],
        optimizers: Sequence[Optimizer],
        clip_norm: float | None,
        clip_value: float | None,
    ) -> None:
        self._clip_norm, self._clip_value, self._optimizers = clip_norm, clip_value, optimizers
        self._owners = {stack: [own[name] for own in parameters] for name, stack in stacks.items()}
        stack_of = {owners[0]: stack for stack, owners in self._owners.items()}
        groups = [{**group, "params": [stack_of[p] for p in group["params"]]} for group in optimizers[0].param_groups]
        kind: Any = type(optimizers[0])
        self._joint: Optimizer = kind(groups)
        for stack, owners in self._owners.items():
            own = zip(optimizers, owners, strict=True)
            if states := [optimizer.state[p] for optimizer, p in own if p in optimizer.state]:
                self._joint.state[stack] = {key: _joined(key, [each[key] for each in states]) for key in states[0]}
        for stack, owners in self._owners.items():
            for k, parameter in enumerate(owners):
                parameter.data = stack.data[k]
        self._num_given = 0
        self._give()

    def __call__(self) -> bool:
        """Update all by the gradients of the stacks; False, and nothing done, where the optimisers have come apart."""
        settings = _settings(self._optimizers[0])
        if any(_settings(optimizer) != settings for optimizer in self._optimizers[1:]):
            return False
        for group, setting in zip(self._joint.param_groups, settings, strict=True):
            group.update(setting)
        self._clip()
        self._joint.step()
        self._give()
        return True

    def release(self) -> None:
        """Give each learner and optimiser tensors of its own."""
        for stack, owners in self._owners.items():
            for optimizer, parameter in zip(self._optimizers, owners, strict=True):
                parameter.data = parameter.data.clone()
                if stack in self._joint.state:
                    optimizer.state[parameter] = {k: v.clone() for k, v in optimizer.state[parameter].items()}

    def _clip(self) -> None:
        """Replace the gradients by clipped ones; in place it would clip twice where two share their memory."""
        stacks = [p for group in self._joint.param_groups for p in group["params"] if p.grad is not None]
        found: list[Any] = [stack.grad for stack in stacks]
        if self._clip_value is not None:
            found = [each.clamp(-self._clip_value, self._clip_value) for each in found]
        if self._clip_norm is not None:
            norms = torch.stack([each.reshape(len(each), -1).norm(dim=1) for each in found])  # (P, K)
            share = (self._clip_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
            found = [each * share.view(-1, *[1] * (each.dim() - 1)) for each in found]
        for stack, gradient in zip(stacks, found, strict=True):
            stack.grad = gradient

    def _give(self) -> None:
        """Let the optimisers' states be parts of the joint one's, which a stack has from its first gradient on."""
        if len(self._joint.state) == self._num_given:
            return
        self._num_given = len(self._joint.state)
        known = [
            (owners, self._joint.state[stack]) for stack, owners in self._owners.items() if stack in self._joint.state
        ]
        for owners, state in known:
            for k, (optimizer, parameter) in enumerate(zip(self._optimizers, owners, strict=True)):
                optimizer.state[parameter] = {key: value if key == STEPS else value[k] for key, value in state.items()}


STEPS = "step"
"""Of an optimiser's state of a parameter: the number of its steps, which all learners have in common."""


def fit_together(optimizers: Sequence[Optimizer], parameters: Sequence[Mapping[str, nn.Parameter]]) -> bool:
    """Whether one optimiser can do what these do: fused Adam or AdamW without hooks, equally set, and equally far.

    Args:
        optimizers: of each learner.
        parameters: of each, by name.
    """
    if type(optimizers[0]) not in (Adam, AdamW) or not all(group["fused"] for group in optimizers[0].param_groups):
        return False
    if any(each._optimizer_step_pre_hooks or each._optimizer_step_post_hooks for each in optimizers):
        return False
    forms = [_form(*own) for own in zip(optimizers, parameters, strict=True)]
    return all(form == forms[0] for form in forms)


def _form(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> tuple[Any, ...]:
    """Equal where optimisers are equally set, and equally far with each parameter."""
    name_of = {parameter: name for name, parameter in parameters.items()}
    named = [[name_of.get(p) for p in group["params"]] for group in optimizer.param_groups]
    steps = {name: float(optimizer.state[p][STEPS]) for name, p in parameters.items() if p in optimizer.state}
    return type(optimizer), named, _settings(optimizer), steps


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Of its groups all but the parameters."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _joined(key: str, values: Sequence[Tensor]) -> Tensor:
    """Of the states of one parameter of all learners."""
    return values[0].clone() if key == STEPS else torch.stack(list(values))
