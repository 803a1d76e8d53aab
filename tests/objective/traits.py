"""A small method for each hard trait of those to come, as parts that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from mmsa.stages import Objective, Phase, Task
from mmsa.training.optimizers import adam
from mmsa.types import Batch, Internals, Mix, Moment, Output, Regularized, Stream


class TwoPhases(nn.Module, Objective):
    """An estimator of one modality from another, stepped by an optimiser of its own in a walk of its own, as MMIM's."""

    def __init__(self, task: Task, utterance_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.task = task
        self.estimator = nn.Linear(utterance_dims["text"], utterance_dims["audio"])
        self.phases = (
            Phase("estimate", ("objective.estimator.*",), ("likelihood",), partial(adam, lr=0.01), share=0.5),
            Phase("main", losses=("task", "information")),
        )

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        encoded = internals.encoded
        error = (self.estimator(encoded["text"].utterance) - encoded["audio"].utterance).square().mean()
        return {"task": self.task.loss(output, batch), "likelihood": error, "information": 0.1 * error}


class OnTheComplete(nn.Module, Objective):
    """The encodings of corrupted inputs are drawn to those of the complete ones, which receive a gradient too."""

    reads_complete = True

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        pairs = [(internals.encoded[m].utterance, whole.utterance) for m, whole in internals.complete.items()]
        return {
            "task": self.task.loss(output, batch),
            "reconstruction": torch.stack([(ours - whole).abs().mean() for ours, whole in pairs]).sum(),
        }


class Mixing(nn.Module):
    """Utterances as they are, and after them as many mixed ones, whose targets have learned weights of their own."""

    requires_alignment = False

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.lean = nn.Parameter(torch.tensor(0.3))

    def forward(self, site: str, streams: Mapping[str, Stream]) -> Regularized:
        if site != "encoded" or not self.training:
            return Regularized(streams)
        count = len(next(iter(streams.values())).values)
        order = torch.randperm(count, generator=self.generator)
        rows = torch.stack([torch.arange(count).repeat(2), torch.cat([torch.arange(count), order])], dim=1)  # (2B, 2)
        share = torch.cat([torch.ones(count), torch.rand(count, generator=self.generator)])
        weights = torch.stack([share, 1 - share], dim=1)  # (2B, 2)
        leaned = torch.where(share < 1, share * torch.sigmoid(self.lean), share)
        mixed = {
            name: Stream(
                (weights.reshape(*weights.shape, *[1] * (s.values.dim() - 1)) * s.values[rows]).sum(dim=1),
                s.lengths[rows].amax(dim=1),
            )
            for name, s in streams.items()
        }
        targets = torch.stack([leaned, 1 - leaned], dim=1)
        return Regularized(mixed, mix=Mix(rows, dict.fromkeys(streams, weights), targets))


class RowMemory(nn.Module, Objective):
    """Remembers what was predicted of each utterance, and draws its prediction to that."""

    remembered: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.latest: Tensor | None = None

    def begin(self, num_train: int, targets: Mapping[str, Tensor]) -> None:
        self.register_buffer("remembered", targets["sentiment"].float().clone())
        self.register_buffer("times", torch.zeros(num_train, dtype=torch.int64))

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        predicted = output.predictions["sentiment"].squeeze(-1)
        self.latest = predicted.detach()
        return {
            "task": self.task.loss(output, batch),
            "memory": (predicted - self.remembered[batch.rows]).square().mean(),
        }

    def after_backward(self, batch: Batch, moment: Moment) -> None:
        assert self.latest is not None
        share = 1 / moment.epoch
        self.remembered[batch.rows] = (1 - share) * self.remembered[batch.rows] + share * self.latest
        self.times[batch.rows] += 1
