"""Self-MM: labels of each modality, generated in training from the utterances' labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.two_layers import TwoLayers
from mmsa.ranges import Count, DropRate, Positive
from mmsa.stages import Objective, Task
from mmsa.types import Batch, Internals, Moment, Output, Stream

EPSILON = 1e-8
Number = TypeVar("Number", int, float)


class Memory(nn.Module):
    """The features of each train utterance in one representation, and the centres of its two classes.

    Args:
        width: of the features, >= 1.
    """

    labels: Tensor
    features: Tensor
    present: Tensor
    positive: Tensor
    negative: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.zeros(0))  # (N,)
        self.register_buffer("features", torch.zeros(0, width))  # (N, d), zeros before the utterance is seen
        self.register_buffer("present", torch.ones(0, dtype=torch.bool))  # (N,), False once seen to lack the modality
        self.register_buffer("positive", torch.zeros(width))  # NaN where the class has no member
        self.register_buffer("negative", torch.zeros(width))

    def begin(self, labels: Tensor) -> None:
        """Size it for as many utterances as there are labels (N,)."""
        self.labels = labels.clone()
        self.features = labels.new_zeros(len(labels), self.features.shape[1])
        self.present = torch.ones_like(labels, dtype=torch.bool)

    def leaning(self, features: Tensor) -> Tensor:
        """How much nearer features (B, d) are to the positive centre than to the negative one (B,)."""
        to_positive = torch.linalg.vector_norm(features - self.positive, dim=1)
        to_negative = torch.linalg.vector_norm(features - self.negative, dim=1)
        return (to_negative - to_positive) / (to_positive + EPSILON)

    def keep(self, rows: Tensor, stream: Stream, exclude_zero: bool) -> None:
        """Keep the features of some utterances, and move the centres to the means over all."""
        self.features[rows] = stream.values
        self.present[rows] = stream.lengths > 0
        positive = self.labels > 0 if exclude_zero else self.labels >= 0
        self.positive = self._mean(positive & self.present)
        self.negative = self._mean((self.labels < 0) & self.present)

    def _mean(self, members: Tensor) -> Tensor:
        weights = members.to(self.features.dtype)  # (N,)
        return weights @ self.features / weights.sum()


class SelfMM(nn.Module, Objective):
    """The task's loss, and per modality the error of a head of its own against labels that training generates.

    A modality's label starts as the label of the whole, $y$. From the second epoch on, every batch moves the labels
    $y_m$ of its utterances: with $d$ the distance of a feature (the first hidden layer of the modality's head, or of
    the fusion) from the mean feature of the utterances with positive or negative labels,
    $\\delta = (d^- - d^+) / (d^+ + \\epsilon)$, and in epoch $e$

        r_m = 0.5 δ_m / (δ + ε) y + 0.5 (y + δ_m - δ), within [-bound, bound];
        y_m <- (e - 1) / (e + 1) y_m + 2 / (e + 1) r_m.

    The error of an utterance weighs tanh |y_m - y|, so nothing before the third epoch, when gradients are zeros.
    Utterances that lack a modality have no error there, keep their label, and do not count in its centres; a class
    without members moves no label.

    Reference: Self-MM (Yu et al., AAAI 2021, arXiv 2102.04830) as MMSA has it; thuiar/Self-MM counts labels of zero as
    positive (exclude_zero=False). Where we differ: absent modalities and empty classes as above (there a NaN).

    Args:
        task: whose loss it is; a regression of one number.
        utterance_dims: width of each modality's utterance vector.
        published_dims: of the fusion, which publishes its first hidden layer as "hidden".
        hidden_dims: width >= 1 of both hidden layers of a modality's head, for all or by modality.
        dropouts: rate in [0, 1) before a modality's head, in training only, for all or by modality.
        bound: largest absolute r_m, > 0.
        exclude_zero: labels of zero are in no class; else they are positive.

    Shapes: the model's output for a batch -> the losses "task" and "unimodal_MODALITY", scalars.

    Raises:
        ConfigError: a fusion that publishes no hidden layer, another task, or mixed utterances.
    """

    def __init__(
        self,
        task: Task,
        utterance_dims: Mapping[str, int],
        published_dims: Mapping[str, int],
        hidden_dims: Count | Mapping[str, Count],
        dropouts: DropRate | Mapping[str, DropRate] = 0.0,
        bound: Positive = 3.0,
        exclude_zero: bool = True,
    ) -> None:
        super().__init__()
        _check(task, published_dims)
        self.task, self.bound, self.exclude_zero = task, bound, exclude_zero
        widths = _by_modality("hidden_dims", hidden_dims, utterance_dims)
        rates = _by_modality("dropouts", dropouts, utterance_dims)
        self.layers = nn.ModuleDict({m: TwoLayers(n, widths[m], rates[m]) for m, n in utterance_dims.items()})
        self.outputs = nn.ModuleDict({m: nn.Linear(widths[m], 1) for m in utterance_dims})
        self.whole = Memory(published_dims["hidden"])
        self.memories: Mapping[str, Memory] = nn.ModuleDict({m: Memory(widths[m]) for m in utterance_dims})  # type: ignore[assignment]
        self._features: dict[str, Stream] = {}
        self._hidden: Stream | None = None

    def begin(self, num_train: int, targets: Mapping[str, Tensor]) -> None:
        """Every modality's labels are those of the whole."""
        truth = self.task.truth(targets[self.task.target]).to(torch.float32)  # (N,)
        for memory in (self.whole, *self.memories.values()):
            memory.begin(truth)

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        if output.mix is not None:
            raise ConfigError(
                "objective=self_mm has labels of each utterance, and the regularizer mixes them.\n"
                "  type regularizer=none, or objective=task"
            )
        truth = self.whole.labels[batch.rows]  # (B,)
        losses = {"task": self.task.loss(output, batch)}
        hidden = internals.fused.published["hidden"].detach()
        self._hidden = Stream(hidden.to(truth.dtype), torch.ones_like(batch.rows))
        for m, encoded in internals.encoded.items():
            first, second = self.layers[m](encoded.utterance)
            predicted = self.outputs[m](second).squeeze(-1).to(truth.dtype)  # (B,)
            self._features[m] = Stream(first.detach().to(truth.dtype), encoded.lengths)
            label = self.memories[m].labels[batch.rows]
            weight = torch.tanh((label - truth).abs()) * (encoded.lengths > 0)
            losses[f"unimodal_{m}"] = (weight * (predicted - label).abs()).mean()
        return losses

    def after_backward(self, batch: Batch, moment: Moment) -> None:
        """Renew labels, features and centres by the forward pass before."""
        if self._hidden is not None:
            self.renew(batch.rows, moment.epoch, self._hidden, self._features)

    @torch.no_grad()
    def renew(self, rows: Tensor, epoch: int, hidden: Stream, features: Mapping[str, Stream]) -> None:
        """Labels by the centres of the batch before, then features, then centres.

        Args:
            rows: (B,) of the utterances.
            epoch: from 1; the first moves no label.
            hidden: (B, d) features of the whole.
            features: (B, d_m) of each modality.
        """
        if epoch > 1:
            whole = self.whole.leaning(hidden.values)
            for m, memory in self.memories.items():
                self._renew_labels(memory, rows, epoch, whole, features[m])
        self.whole.keep(rows, hidden, self.exclude_zero)
        for m, memory in self.memories.items():
            memory.keep(rows, features[m], self.exclude_zero)

    def _renew_labels(self, memory: Memory, rows: Tensor, epoch: int, whole: Tensor, stream: Stream) -> None:
        truth, label, own = self.whole.labels[rows], memory.labels[rows], memory.leaning(stream.values)  # (B,)
        made = 0.5 * own / (whole + EPSILON) * truth + 0.5 * (truth + own - whole)
        moved = (epoch - 1) / (epoch + 1) * label + 2 / (epoch + 1) * made.clamp(-self.bound, self.bound)
        memory.labels[rows] = torch.where((stream.lengths > 0) & ~moved.isnan(), moved, label)


def _check(task: Task, published_dims: Mapping[str, int]) -> None:
    """Refuse a fusion that publishes no hidden layer, and a task of more than one number.

    Raises:
        ConfigError: it is one.
    """
    if "hidden" not in published_dims:
        raise ConfigError(
            "objective=self_mm needs a fusion that publishes its hidden layer; this one publishes "
            f"{', '.join(published_dims) or 'nothing'}.\n  type fusion=mlp, or objective=task"
        )
    if task.output_dim != 1:
        raise ConfigError(
            f"objective=self_mm needs a regression of one number; this task has {task.output_dim} outputs.\n"
            "  type task=regression, or objective=task"
        )


def _by_modality(option: str, values: Number | Mapping[str, Number], names: Mapping[str, int]) -> dict[str, Number]:
    """The value of each modality.

    Raises:
        ConfigError: one has none.
    """
    if not isinstance(values, Mapping):
        return dict.fromkeys(names, values)
    absent = [name for name in names if name not in values]
    if absent:
        raise ConfigError(
            f"objective.{option} lacks {absent[0]}; it has {', '.join(values) or 'none'}.\n"
            f"  type +objective.{option}.{absent[0]}=VALUE"
        )
    return {name: values[name] for name in names}
