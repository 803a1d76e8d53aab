"""Utterances of one class are drawn together, others pushed apart, in the batch and in a memory of past ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsa.errors import ConfigError
from mmsa.ranges import Count, NaturalNumber, NonNegative, Positive
from mmsa.stages import Objective, Task
from mmsa.types import Batch, Internals, Moment, Output

NOTHING = -1
"""The class of vectors that are not compared: an empty place of the memory, and a vector of zeros, which has no
direction (dropout may erase a short utterance)."""


class ContrastiveObjective(nn.Module, Objective):
    """The task's loss, and the supervised contrastive loss of the fused vectors.

    Each utterance of the batch is compared with the others of the batch and with a first-in-first-out memory of earlier
    vectors. Gradients flow through the batch alone. The classes are the task's
    (`Task.classes`). A vector of zeros is not compared.

    Args:
        task: whose loss and whose classes.
        fused_dim: width F of the fused vector.
        weight: >= 0, of the contrastive loss.
        temperature: > 0, by which the cosines are divided.
        projection_dim: width of a linear map of the fused vector that is compared, >= 1; None: the vector itself.
        memory_size: past utterances to compare with, >= 0.

    Shapes: the model's output for a batch -> the losses "task" and "contrastive", scalars.

    Raises:
        ConfigError: the target has no classes; or utterances were mixed.

    Reference: Khosla et al., Supervised contrastive learning, NeurIPS 2020, arXiv 2004.11362: L_out. There a batch has
    two views of each example, so that no anchor lacks a positive; the map is an MLP, and there is no memory.
    """

    vectors: Tensor
    classes: Tensor

    def __init__(
        self,
        task: Task,
        fused_dim: int,
        weight: NonNegative = 0.1,
        temperature: Positive = 0.1,
        projection_dim: Count | None = None,
        memory_size: NaturalNumber = 256,
    ) -> None:
        super().__init__()
        self.task, self.weight, self.temperature = task, weight, temperature
        task.classes(torch.zeros(0))  # refuses a target without classes at once
        width = projection_dim or fused_dim
        self.projection = nn.Linear(fused_dim, width, bias=False) if projection_dim else nn.Identity()
        self.register_buffer("vectors", torch.zeros(memory_size, width))  # the oldest first
        self.register_buffer("classes", torch.full((memory_size,), NOTHING))
        self._seen: tuple[Tensor, Tensor] | None = None

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        if output.mix is not None:
            raise ConfigError(
                "objective=contrastive needs utterances of one class each, and the regularizer mixes utterances.\n"
                "  type regularizer=none, or objective=task"
            )
        projected = self.projection(internals.fused.vector)  # (B, P)
        vectors = functional.normalize(projected.to(self.vectors.dtype), dim=1)
        classes = self.task.classes(batch.targets[self.task.target])  # (B,)
        classes = torch.where(vectors.any(dim=1), classes, NOTHING)
        self._seen = vectors.detach(), classes
        return {"task": self.task.loss(output, batch), "contrastive": self.weight * self._loss(vectors, classes)}

    def after_backward(self, batch: Batch, moment: Moment) -> None:
        """The batch enters the memory, and as many of the oldest leave it."""
        if self._seen is not None:
            vectors, classes = self._seen
            self.vectors = torch.cat([self.vectors, vectors])[len(vectors) :]
            self.classes = torch.cat([self.classes, classes])[len(classes) :]
            self._seen = None

    def _loss(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """L_out of unit vectors (B, P) and their classes (B,), as a mean over the anchors that have a positive."""
        others = torch.cat([classes, self.classes])  # (B + M,)
        compared = (others != NOTHING).repeat(len(classes), 1)  # (B, B + M)
        compared.fill_diagonal_(False)
        positive = compared & (others == classes[:, None])
        anchors = positive.any(dim=1)
        logits = vectors @ torch.cat([vectors, self.vectors]).T / self.temperature  # (B, B + M)
        left_out = ~compared & anchors[:, None]  # other rows do not count, and without a contrast would be infinite
        log_shares = logits - logits.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)
        means = (log_shares * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return -means.sum() / anchors.sum().clamp(min=1)
