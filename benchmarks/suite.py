"""The benchmarks, by name: a method joins by one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import data, seeds, serving, starting
from benchmarks.measuring import Contest, Size
from benchmarks.parts import parts
from benchmarks.plain.misa import MISA
from benchmarks.plain.mmlatch import M3, MMLatch, UtteranceM3
from benchmarks.plain.self_mm import SelfMM
from benchmarks.training import Recipe, evaluation, training

BOTH = ("fp32", "bf16")
WITH_FEEDBACK = partial(MMLatch, feedback="recurrent")
SLP = partial(MMLatch, pooling="mean", head_dropout=0.2)
WORDS = "encoder/text=misa"

RECIPES = {
    "mmlatch": Recipe(("experiment=mmlatch",), WITH_FEEDBACK, precisions=BOTH),
    "mmlatch-b128": Recipe(("experiment=mmlatch",), WITH_FEEDBACK, 128, BOTH),
    "no-feedback": Recipe(("experiment=mmlatch", "feedback=none"), MMLatch, precisions=BOTH),
    "m3": Recipe(("experiment=m3_table1",), partial(MMLatch, m3=M3(0.2))),
    "m3-table2": Recipe(("experiment=m3_table2",), partial(MMLatch, m3=M3(0.25, (0.6, 0.2, 0.2)))),
    "m3-baseline": Recipe(("experiment=m3_baseline",), MMLatch),
    "slp": Recipe(("experiment=slp_baseline",), SLP),
    "slp-m3": Recipe(("experiment=slp_m3",), partial(SLP, m3=UtteranceM3(0.2))),
    "static": Recipe(("experiment=mmlatch_static",), partial(MMLatch, feedback="linear")),
    "misa": Recipe(("experiment=misa_mosei", WORDS), MISA),
    "misa-sequence": Recipe(("experiment=misa_mmlatch_sequence", WORDS), partial(MISA, source="sequence")),
    "misa-sequence-mlp": Recipe(
        ("experiment=misa_mmlatch_sequence_mlp", WORDS), partial(MISA, source="sequence", mlp=True)
    ),
    "misa-static": Recipe(("experiment=misa_mmlatch_static", WORDS), partial(MISA, source="utterance")),
    "misa-projected": Recipe(("experiment=misa_mmlatch_static_projected", WORDS), partial(MISA, source="projected")),
    "misa-private": Recipe(("experiment=misa_mmlatch_private", WORDS), partial(MISA, source="private")),
    "self-mm": Recipe(("experiment=self_mm_mosi", "encoder/text=bilstm"), SelfMM),
}

BENCHMARKS: dict[str, Callable[[Path, Size], Contest]] = {
    "start/cold": starting.cold,
    "start/trial": starting.trial,
    "start/report": starting.report,
    "seeds/4-of-16": partial(seeds.together, num_seeds=4, width=16),
    "seeds/8-of-16": partial(seeds.together, num_seeds=8, width=16),
    "seeds/8-of-32": partial(seeds.together, num_seeds=8, width=32),
    "seeds/4-of-32-b32": partial(seeds.together, num_seeds=4, width=32, batch_size=32),
    "seeds/8-of-64": partial(seeds.together, num_seeds=8, width=64),
    "seeds/steps-16-of-16": partial(seeds.steps, num_seeds=16, width=16, batch_size=16),
    "seeds/steps-8-of-32": partial(seeds.steps, num_seeds=8, width=32, batch_size=16),
    "seeds/steps-4-of-16-b64": partial(seeds.steps, num_seeds=4, width=16, batch_size=64),
    "seeds/steps-4-of-16-b128": partial(seeds.steps, num_seeds=4, width=16, batch_size=128),
    "seeds/sweep": seeds.sweep,
    "data/align": data.align,
    "data/prepare": data.prepare,
    "data/load": data.load,
    "predict/load": serving.load,
    "predict/one": serving.one,
    "predict/batch": serving.several,
    "memory/train": starting.memory,
    "memory/predict": serving.memory,
}
for _precision in BOTH:
    BENCHMARKS[f"parts/{_precision}"] = partial(parts, RECIPES["mmlatch"], _precision)
for _name, _recipe in RECIPES.items():
    BENCHMARKS[f"train/{_name}"] = partial(training, _recipe)
    BENCHMARKS[f"evaluate/{_name}"] = partial(evaluation, _recipe)
