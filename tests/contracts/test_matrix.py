"""docs/combinations.md is what the code refuses: `python -m tests.contracts.test_matrix > docs/combinations.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmsa.errors import ConfigError
from mmsa.testing.combinations import Combination, Value
from tests.contracts.conftest import COMBINATIONS, configuration, model_of

PAGE = Path(__file__).parents[2] / "docs" / "combinations.md"
COMMAND = "python -m tests.contracts.test_matrix > docs/combinations.md"
HEAD = f"""# Which parts go together

Made from the code by `{COMMAND}`; a test fails when the two differ.

All options of `encoder`, `fusion`, `regularizer` and `feedback` go together, for one to four modalities, on a common
time axis or separate ones, except those in this table: a run refuses them before it trains, with the corrected options.
The laws of `tests/contracts` are tested for every allowed pair, for every allowed combination by `make test-slow`.
`dataset.modalities=[text,audio]` chooses two modalities; a fourth needs a data set of your own.

| this | does not go with | why | type |
|---|---|---|---|
"""
IN_WORDS = {
    ("axes", "own"): "modalities with time axes of their own",
    ("widths", "unequal"): "encoders of different widths",
}


def refusal(combination: Combination, *more: str) -> str:
    """How the code refuses a combination, with overrides typed after it."""
    with pytest.raises(ConfigError, match="\n  type ") as refused:
        build(combination, *more)
    return str(refused.value)


def build(combination: Combination, *more: str) -> None:
    cfg = configuration(*COMBINATIONS.overrides(combination), *more)
    model_of(cfg, combination.num_modalities, aligned=combination.axes == "common")


def in_words(value: Value) -> str:
    factor, option = value
    if factor == "num_modalities":
        return f"{option} modalit{'y' if option == 1 else 'ies'}"
    return IN_WORDS.get(value, f"`{factor}={option}`")


def page() -> str:
    """The whole page; what is refused for one reason shares a row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for part, other, combination in COMBINATIONS.refusals():
        why, typed = refusal(combination).split("\n  type ")
        why = re.sub(r",? (not|but they give|and these are not) .*", ".", why)  # the rest is of this case
        rows.setdefault((in_words(part), why, typed), []).append(in_words(other))
    lines = [f"| {part} | {', '.join(others)} | {why} | {typed} |" for (part, why, typed), others in rows.items()]
    return HEAD + "\n".join(lines) + "\n"


def test_the_page_is_what_the_code_refuses() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"docs/combinations.md is out of date; type: {COMMAND}"


def test_what_a_refusal_says_to_type_goes_together() -> None:
    tried = 0
    for *_, combination in COMBINATIONS.refusals():
        for alternative in re.split(r",? or ", refusal(combination).split("\n  type ")[1]):
            if all(re.match(r"(encoder|fusion|regularizer|feedback)[\w.]*=", word) for word in alternative.split()):
                build(combination, *alternative.split())
                tried += 1
    assert tried > len(list(COMBINATIONS.refusals()))


@pytest.mark.slow
def test_everything_else_is_refused() -> None:
    for combination in COMBINATIONS.every():
        if not COMBINATIONS.is_allowed(combination):
            refusal(combination)


if __name__ == "__main__":
    print(page(), end="")
