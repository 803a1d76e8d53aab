"""docs/combinations.md is what the code accepts: `python -m tests.contracts.test_matrix > docs/combinations.md`."""

from __future__ import annotations

import itertools
import re
import string
from pathlib import Path

from mmsa.errors import ConfigError
from tests.contracts.conftest import configuration, encoder_overrides, model_of, options

PAGE = Path(__file__).parents[2] / "docs" / "combinations.md"
COMMAND = "python -m tests.contracts.test_matrix > docs/combinations.md"
COUNTS = (1, 2, 3, 4)
VARIANTS = {"m3": ("regularizer.per_step=false", "regularizer.sites=[inputs]")}
"""Per regularizer the overrides that change with what it goes together."""

HEAD = f"""# Which parts go together

Made from the code by `{COMMAND}`; a test fails when the two differ.

A cell says whether the parts of its row build a model for that number of modalities. Where a row names no override,
**yes** also means that the laws of `tests/contracts` are tested for it. A letter names the reason, below the table: so
a run answers before any data are read. `dataset.modalities=[text,audio]` chooses two modalities; a fourth needs a
data set of your own. `bert` is `encoder/text=bert`, beside `bilstm` for the other modalities.
"""


def answer(overrides: list[str], num_modalities: int) -> str:
    """What the code says to a combination: "yes", or why not."""
    try:
        model_of(configuration(*overrides), num_modalities)
    except ConfigError as refusal:
        return str(refusal)
    return "yes"


def none_first(group: str) -> list[str]:
    """The options of a group; off comes first."""
    return sorted(options(group), key=lambda option: (option != "none", option))


def table(encoder: str) -> str:
    """What is true of one encoder: a Markdown table, and the reasons that its letters name."""
    regularizers = [(name, more) for name in none_first("regularizer") for more in ("", *VARIANTS.get(name, ()))]
    lines = ["| fusion | regularizer | feedback | 1 | 2 | 3 | 4 |", "|---|---|---|---|---|---|---|"]
    reasons: dict[str, str] = {}
    for fusion, (regularizer, more), feedback in itertools.product(
        none_first("fusion"), regularizers, none_first("feedback")
    ):
        overrides = [
            *encoder_overrides(encoder),
            f"fusion={fusion}",
            f"regularizer={regularizer}",
            f"feedback={feedback}",
        ]
        cells = []
        for count in COUNTS:
            said = answer([*overrides, more] if more else overrides, count)
            if said == "yes":
                cells.append("**yes**")
                continue
            cause = re.sub(r",? (not for|but there is only) .*", ".", said.splitlines()[0])  # whatever the number was
            reasons.setdefault(cause, " ".join([cause, *(line.strip() for line in said.splitlines()[1:])]))
            cells.append(string.ascii_lowercase[list(reasons).index(cause)])
        name = f"`{regularizer}`, `{more}`" if more else f"`{regularizer}`"
        lines.append(f"| `{fusion}` | {name} | `{feedback}` | {' | '.join(cells)} |")
    listed = [
        f"- **{letter}** {reason}" for letter, reason in zip(string.ascii_lowercase, reasons.values(), strict=False)
    ]
    return "\n".join([*lines, "", *listed])


def page() -> str:
    """The whole page; encoders of which the same is true share a table."""
    tables: dict[str, list[str]] = {}
    for encoder in options("encoder"):
        tables.setdefault(table(encoder), []).append(f"`{encoder}`")
    return "\n".join([HEAD, *(f"## Encoder {' or '.join(names)}\n\n{text}\n" for text, names in tables.items())])


def test_the_page_is_what_the_code_accepts() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"docs/combinations.md is out of date; type: {COMMAND}"


if __name__ == "__main__":
    print(page(), end="")
