"""The losses of an epoch, checked now and then."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmsa.errors import TrainingError
from mmsa.types import Batch

CHECK_EVERY = 50
"""Batches between two looks at the losses on a CPU; on an accelerator, for which a look waits, an epoch has one."""


class LossLog:
    """The losses of an epoch's batches, which are looked at every CHECK_EVERY of them, or at its end.

    Args:
        epoch: for the message.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.num_utterances = 0
        self.sums: dict[str, float] = {}
        self.pending: list[tuple[int, tuple[str, ...], dict[str, Tensor]]] = []

    def add(self, done: int, batches: Sequence[Batch], losses: Sequence[dict[str, Tensor]]) -> None:
        """The losses of a group of batches, before which there were `done` others in the epoch.

        Raises:
            TrainingError: one is not finite.
        """
        for index, (batch, of_batch) in enumerate(zip(batches, losses, strict=True), start=done + 1):
            self.pending.append((index, batch.ids, of_batch))
        on_cpu = all(loss.device.type == "cpu" for loss in losses[0].values())
        if on_cpu and len(self.pending) >= CHECK_EVERY:
            self._look()

    def means(self) -> dict[str, float]:
        """Each loss as a mean over the utterances, by name.

        Raises:
            TrainingError: one is not finite.
        """
        self._look()
        return {name: total / self.num_utterances for name, total in self.sums.items()}

    def _look(self) -> None:
        values = [torch.stack(list(losses.values())) for _, _, losses in self.pending]
        found = torch.stack(values).cpu().double().tolist() if values else []
        for (index, ids, losses), row in zip(self.pending, found, strict=True):
            for name, loss in zip(losses, row, strict=True):
                if not math.isfinite(loss):
                    shown = ", ".join(ids[:6]) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")
                    of = "" if len(losses) == 1 else f" {name}"
                    raise TrainingError(
                        f"the training loss{of} is {loss} in epoch {self.epoch}, batch {index}; "
                        f"its utterances: {shown}.\n"
                        "  check their features, or try a smaller optimizer.lr or trainer.clip_norm=1"
                    )
                self.sums[name] = self.sums.get(name, 0.0) + loss * len(ids)
            self.num_utterances += len(ids)
        self.pending = []
