"""Plans of slots, and what nvidia-smi may list."""

from __future__ import annotations

import pytest

from mmsa.errors import ConfigError
from mmsa.sweep.slots import Accelerator, SlotPlan, SlotRules, choose_slots

SMI = """\
0, GPU-aaaa1111, NVIDIA A100, SXM4, 1024
1, GPU-aaaa2222, NVIDIA A100, SXM4, 39936
2, GPU-bbbb3333, NVIDIA GB10, [N/A]
"""


def plan(
    slots: object = "auto",
    accelerator: Accelerator = "auto",
    threads: int = 1,
    slots_per_gpu: int = 1,
    gpu_memory: float = 2,
) -> SlotPlan:
    return choose_slots(slots, SlotRules(accelerator, threads, slots_per_gpu, gpu_memory))  # type: ignore[arg-type]


def names(plan: SlotPlan) -> list[str]:
    return [slot.name for slot in plan.slots]


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*arguments, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    assert message.splitlines()[-1].startswith("  type ")
    return message
