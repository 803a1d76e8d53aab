"""The limits of a part are declared once, on its class; these functions refuse the rest.

A part without a declaration goes with everything. Its limits: `num_modalities` for which it is defined; whether it
`requires_alignment` of the modalities or `requires_equal_widths` of their encoders; and for an encoder or a regularizer
the fusions that it `serves`, by the part they read. Where its options decide, the instance declares it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

from mmsa.errors import ConfigError

ANY_NUMBER = range(1, sys.maxsize)
SEVERAL = range(2, sys.maxsize)


def check_number(part: str, supported: range, modalities: Collection[str], instead: str) -> None:
    """Refuse a number of modalities for which a part is not defined.

    Args:
        part: the part that needs them, as the message begins.
        supported: the numbers for which it is defined.
        modalities: their names.
        instead: the options to type instead.

    Raises:
        ConfigError: it is another number.
    """
    if len(modalities) not in supported:
        wanted = " or ".join(map(str, supported)) if supported.stop < sys.maxsize else f"{supported.start} or more"
        raise ConfigError(
            f"{part} needs {wanted} modalities, not {len(modalities)} ({', '.join(modalities)}).\n"
            f"  type {instead}, or name {wanted} in dataset.modalities"
        )


def check_equal(numbers: Mapping[str, int], needs: str, typed: str) -> None:
    """Refuse numbers that differ.

    Args:
        numbers: by their owner.
        needs: the part that needs them equal, and their meaning, as the message begins.
        typed: the options to type.

    Raises:
        ConfigError: they differ.
    """
    if len(set(numbers.values())) > 1:
        came = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise ConfigError(f"{needs} {came}.\n  type {typed}")


def common_width(option: str, input_dims: Mapping[str, int]) -> int:
    """The one width of all modalities.

    Raises:
        ConfigError: the widths differ.
    """
    needs = f"{option} needs encoders of one width, but they give"
    check_equal(input_dims, needs, "the same hidden_dim and merge for every encoder, or fusion=concat")
    return next(iter(input_dims.values()))
