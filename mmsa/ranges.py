"""Ranges that constructors state in their annotations; `mmsa.config` checks every option against them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1)]
NaturalNumber = Annotated[int, Ge(0)]
DropRate = Annotated[float, Ge(0.0), Lt(1.0)]
Probability = Annotated[float, Ge(0.0), Le(1.0)]
Positive = Annotated[float, Gt(0.0)]
NonNegative = Annotated[float, Ge(0.0)]
