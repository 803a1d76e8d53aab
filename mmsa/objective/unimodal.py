"""A head per modality, which learns the label of its modality."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import vmap

from mmsa.errors import ConfigError, DataError
from mmsa.ranges import NonNegative
from mmsa.stages import Objective, Task
from mmsa.types import Batch, Encoded, Internals, Moment, Output, over


class UnimodalObjective(nn.Module, Objective):
    """The task's loss, and that of a head over each modality's utterance vector.

    A head learns the label of its own modality, the target `TARGET_MODALITY` (as CH-SIMS has), where the data have it,
    else the label of all. Its loss is the task's, as a mean over the utterances that have the modality and whose label
    is not NaN.

    Args:
        task: whose loss and whose kind of head.
        utterance_dims: width U of each modality's utterance vector.
        weights: >= 0, of every head's loss, or one per modality.

    Shapes: the model's output for a batch -> the losses "task" and "unimodal_MODALITY", scalars.

    Raises:
        ConfigError: weights of other modalities; or utterances that were mixed before the encoders.

    Reference: Yu et al., CH-SIMS: a Chinese multimodal sentiment analysis dataset with fine-grained annotation of
    modality, ACL 2020. There each head has hidden layers, and the subnetworks of the modalities a penalty of their own.
    """

    def __init__(
        self,
        task: Task,
        utterance_dims: Mapping[str, int],
        weights: NonNegative | Mapping[str, NonNegative] = 1.0,
    ) -> None:
        super().__init__()
        self.task = task
        self.weights = dict(weights) if isinstance(weights, Mapping) else dict.fromkeys(utterance_dims, weights)
        if self.weights.keys() != utterance_dims.keys():
            each = ",".join(f"{m}:{self.weights.get(m, 1)}" for m in utterance_dims)
            raise ConfigError(
                f"objective.weights={self.weights}: needs a number for each of {', '.join(utterance_dims)}.\n"
                f"  type objective.weights={{{each}}}, or one number for all"
            )
        self.heads = nn.ModuleDict({m: task.head(width) for m, width in utterance_dims.items()})

    def begin(self, num_train: int, targets: Mapping[str, Tensor]) -> None:
        """Look whether the labels of the modalities are such as the label of all.

        Raises:
            DataError: one has other columns.
        """
        common = targets[self.task.target]
        for name in filter(targets.__contains__, map(self._own, self.heads)):
            if targets[name].shape != common.shape:
                raise DataError(
                    f"the target {name} needs the columns of {self.task.target}, {list(common.shape[1:]) or 'none'}; "
                    f"it has {list(targets[name].shape[1:]) or 'none'}.\n  type objective=task"
                )

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        if internals.regularized["inputs"].mix is not None:
            raise ConfigError(
                "objective=unimodal needs encodings of one utterance each, and the regularizer mixes utterances before "
                "they are encoded.\n  type regularizer=none, or regularizer.sites=[encoded], or objective=task"
            )
        heads = {m: self.weights[m] * self._loss(m, internals.encoded[m], batch.targets) for m in self.heads}
        return {"task": self.task.loss(output, batch), **{f"unimodal_{m}": loss for m, loss in heads.items()}}

    def _own(self, modality: str) -> str:
        """Name of a modality's own label."""
        return f"{self.task.target}_{modality}"

    def _loss(self, modality: str, encoded: Encoded, targets: Mapping[str, Tensor]) -> Tensor:
        """The unweighted loss of one head; 0 of a batch in which no utterance counts."""
        own = self._own(modality)
        target = targets[own if own in targets else self.task.target]
        labelled = ~target.reshape(len(target), -1).isnan().any(dim=1)  # (B,)
        counted = labelled & (encoded.lengths > 0)  # (B,)
        truth = self.task.truth(target.masked_fill(~over(counted, target), 0.0))
        predicted: Tensor = self.heads[modality](encoded.utterance)  # (B, C)
        losses = vmap(lambda *of_one: self.task.primary_loss(*(part[None] for part in of_one)))(
            predicted, truth
        )  # (B,)
        return (losses * counted).sum() / counted.sum().clamp(min=1)
