"""The default objective: the task's loss and the auxiliary losses of the stages."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmsa.stages import Objective, Task
from mmsa.types import Batch, Internals, Moment, Output


class TaskObjective(nn.Module, Objective):
    """The loss of the task and the weighted auxiliary losses of the stages, and nothing of its own.

    Args:
        task: whose losses they are.

    Shapes: the model's output for a batch -> the loss "task", a scalar.
    """

    averages = True

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        return {"task": self.task.loss(output, batch)}
