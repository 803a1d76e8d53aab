"""Hydra's name for our sweeper, `hydra/sweeper=mmsa`; mmsa.sweep implements it.

Hydra looks for plugins in the namespace package `hydra_plugins`, and imports each of them at every start: nothing that
takes time is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig


@dataclass
class MmsaSweeperConf:
    """Node `hydra.sweeper`.

    Args:
        sampler: of the group hydra/sweeper/sampler that hydra-optuna-sweeper brings.
        params: a search space as for that plugin; `sweep.space` is ours, and wins.
    """

    _target_: str = "hydra_plugins.mmsa_sweeper.MmsaSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: Any = MISSING
    params: dict[str, Any] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="mmsa", node=MmsaSweeperConf, provider="mmsa_sweeper")


class MmsaSweeper(Sweeper):
    """Searches with workers that ask for trials, on the slots of this machine or as the jobs of a launcher."""

    def __init__(self, sampler: Any, params: Any) -> None:
        self.sampler, self.params = sampler, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.launching = {"config": config, "hydra_context": hydra_context, "task_function": task_function}

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep that the configuration's node `sweep` describes."""
        from mmsa.sweep.hydra_sweep import sweep

        sweep(self.launching, self.sampler, self.params, arguments)
