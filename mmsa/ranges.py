"""Ranges that constructors state in their annotations; `mmsa.config` checks every option against them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

LARGEST = 2**63 - 1
"""The largest whole number of PyTorch and of those who read our JSON."""
Count = Annotated[int, Ge(1), Le(LARGEST)]
Threads = Annotated[int, Ge(1), Le(1024)]
NaturalNumber = Annotated[int, Ge(0), Le(LARGEST)]
DropRate = Annotated[float, Ge(0.0), Lt(1.0)]
Probability = Annotated[float, Ge(0.0), Le(1.0)]
Positive = Annotated[float, Gt(0.0)]
NonNegative = Annotated[float, Ge(0.0)]
