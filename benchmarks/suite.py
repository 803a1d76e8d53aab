"""The benchmarks, by name: a method joins by one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measuring import Contest
from benchmarks.plain.mmlatch import MMLatch
from benchmarks.corpus import WIDTHS
from benchmarks.training import Recipe, Size, contest

BOTH = ("32-true", "bf16-mixed")

RECIPES = {
    "mmlatch": Recipe(["experiment=mmlatch"], partial(MMLatch, WIDTHS, feedback="recurrent"), precisions=BOTH),
    "mmlatch-b128": Recipe(["experiment=mmlatch"], partial(MMLatch, WIDTHS, feedback="recurrent"), 128, BOTH),
    "no-feedback": Recipe(["experiment=mmlatch", "feedback=none"], partial(MMLatch, WIDTHS), precisions=BOTH),
    "m3": Recipe(["experiment=m3_table1"], partial(MMLatch, WIDTHS, m3=0.2)),
}

BENCHMARKS: dict[str, Callable[[Path, Size], Contest]] = {
    **{f"train/{name}": partial(contest, recipe, evaluation=False) for name, recipe in RECIPES.items()},
    **{f"evaluate/{name}": partial(contest, recipe, evaluation=True) for name, recipe in RECIPES.items()},
}
