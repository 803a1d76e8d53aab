"""The Protocol of each stage; any class that implements it is one.

The limits of a part are declared on its class, see `mmsa.layers.support`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa.types import (
    Batch,
    Embedded,
    Encoded,
    Fused,
    Interaction,
    Internals,
    Moment,
    Output,
    Reads,
    Regularized,
    Stream,
)


class Encoder(Protocol):
    """One modality's features -> Encoded; `mmsa.encoder.bilstm` is an example.

    `input_dim` is the width of `embed`'s result. An encoder whose `Encoded.pooled` is not its utterance gives its width
    as `pooled_dim`; one that reads word pieces has a static method `tokenizer`, see `mmsa.encoder.bert`.
    """

    input_dim: int
    sequence_dim: int
    utterance_dim: int

    def embed(self, features: Tensor) -> Tensor:
        """(B, T, D) features, or (B, P) ids of word pieces -> what a feedback or a regularizer may mask."""

    def __call__(self, embedded: Embedded) -> Encoded:
        """The encoding; zeros at padding and where the length is 0."""


class Feedback(Protocol):
    """Inputs and their encodings -> the inputs for the next pass; `mmsa.feedback.mmlatch` is an example."""

    num_passes: int
    requires_alignment: bool

    def __call__(
        self, embedded: Mapping[str, Embedded], encoded: Mapping[str, Encoded], fusion: Fusion
    ) -> tuple[Mapping[str, Embedded], Mapping[str, Tensor]]:
        """The inputs that the encoders read next, and the tensors (masks) that figures show."""


class Regularizer(Protocol):
    """Streams of a site -> changed streams, in training; `mmsa.regularizer.m3` is an example.

    The sites are "inputs" of the encoders, "encoded" modalities, and "streams" of the fusion.
    """

    requires_alignment: bool

    def __call__(self, site: str, streams: Mapping[str, Stream]) -> Regularized:
        """The streams, with a record of the changes; in evaluation, and at other sites, the streams unchanged."""


class Fusion(Protocol):
    """Encoded modalities -> one vector; `mmsa.fusion.concat` is an example.

    A fusion may publish codes per modality, which a feedback may read: `code_dims` names them with their widths, and
    `codes(encoded)` returns {name: {modality: (B, width)}}. What it publishes as `Fused.published` for an objective, it
    names with the widths in `published_dims`.
    """

    reads: Reads
    requires_alignment: bool
    output_dim: int

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """The streams of the modalities, of which only the part that the fusion `reads` is to be used."""

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """The streams, as a regularizer left them, -> vector (B, output_dim)."""


class Task(Protocol):
    """What a run predicts: the target, the head, the loss, the metrics, and the monitored one.

    `mmsa.training.regression` is an example; `mmsa.training.task` has what tasks of one target share.
    """

    target: str
    monitor: str
    mode: Literal["min", "max"]
    """Which value of the monitored metric is better."""
    shown: tuple[str, ...]
    """Metrics that tables show, in order."""
    columns: tuple[str, ...]
    """Names of the target's columns; none is one number per utterance."""
    levels: tuple[float, ...]
    """Of a regression one value in each class, from which the majority baseline chooses; none has no such baseline."""
    finest: str
    """The accuracy over these classes."""

    @property
    def output_dim(self) -> int:
        """Width of the head's output."""

    def head(self, input_dim: int) -> nn.Module:
        """A head (B, input_dim) -> (B, output_dim)."""

    def truth(self, target: Tensor) -> Tensor:
        """A stored target (N,) or (N, K) as this task sees it, of the same shape."""

    def classes(self, target: Tensor) -> Tensor:
        """A stored target (N,) -> (N,) int64 classes, from 0; a ConfigError where it has none."""

    def select(self, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Its target (N,) or (N, K) among those of a fold, or a DataError."""

    def truths(self, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """The truths of a fold, (N,) or (N, K)."""

    def begin(self, targets: Mapping[str, np.ndarray]) -> None:
        """Meet the targets of the train fold, before the first loss: refuse them, or read what it needs from them."""
        self.truths(targets)

    def unlearnt(self, targets: Mapping[str, np.ndarray]) -> Sequence[str]:
        """The predictions of which a fold has no example, in words."""
        return ()

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Head's output (B, C), truth (B,) or (B, K) -> scalar."""

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The loss of a batch, with the weighted auxiliary losses of the stages."""

    def decide(self, output: Tensor) -> Tensor:
        """Head's output (B, C) -> prediction (B,) or (B, K) in the units of the truth."""

    def metrics(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Metrics of a whole fold, by name."""


@dataclass(frozen=True)
class Phase:
    """One walk over the train fold in every epoch in which it is due.

    Args:
        name: of the phase.
        parameters: patterns (as of file names) of the parameters that it steps: of the model by their names, such as
            "encoders.audio.*", of the objective as "objective.*". The others keep their gradients, which count in the
            norm that is clipped.
        losses: names of the losses whose sum it lowers; None: all.
        optimizer: makes an optimiser of its own for its parameters, which then are in no other; None: the run's.
        share: of the batches of the train fold, in (0, 1]; each phase has an order of its own.
        first_epoch: from which it is due, from 1.
        last_epoch: until which it is due, this one included; None: to the end.
    """

    name: str = "main"
    parameters: Sequence[str] = ("*",)
    losses: Sequence[str] | None = None
    optimizer: Callable[[Iterable[Any]], Optimizer] | None = None
    share: float = 1.0
    first_epoch: int = 1
    last_epoch: int | None = None

    def is_due(self, epoch: int) -> bool:
        """Whether it is walked in this epoch."""
        return self.first_epoch <= epoch and (self.last_epoch is None or epoch <= self.last_epoch)


class Objective(Protocol):
    """The training loss: an `nn.Module` of the training only; `mmsa.objective.unimodal` is an example.

    Its parameters are optimised and its state is in last.pt, but never in best.pt or a prediction. A class that names
    this Protocol as its second base needs `forward` alone.
    """

    needs: Sequence[str] = ()
    """Names of the targets that it reads besides the task's."""
    phases: Sequence[Phase] = (Phase(),)
    """In the order in which an epoch walks them."""
    averages: bool = False
    """Whether each loss is a mean over all utterances of a batch, each by itself, so that devices can share one."""
    reads_complete: bool = False
    """Whether `Internals.complete` is wanted, at the cost of another pass of the encoders."""

    def begin(self, num_train: int, targets: Mapping[str, Tensor]) -> None:
        """Size and fill the memories by row.

        Args:
            num_train: utterances of the train fold.
            targets: theirs, by name; `Batch.rows` are positions in them.
        """

    def __call__(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        """Losses of the batch by name, scalars, weighted; their sum is lowered."""
        raise NotImplementedError

    def after_backward(self, batch: Batch, moment: Moment) -> None:
        """Renew labels or memories, without a gradient; due after every batch, also where gradients add up."""
