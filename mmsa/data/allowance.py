"""A budget of memory and work in proportion to a file's size, whatever the file claims."""

from __future__ import annotations

from pathlib import Path

from mmsa.errors import DataError

FLOOR, FACTOR = 1 << 28, 100


class Allowance:
    """Bytes that a source may still fill, in memory or on the way.

    Args:
        source: the file, or the folder of the files.
        size: bytes of them all.
    """

    def __init__(self, source: Path, size: int) -> None:
        self._source = source
        self._size = size
        self.left = FLOOR + FACTOR * size

    def pay(self, num_bytes: float) -> None:
        """Take this much.

        Raises:
            DataError: less is left.
        """
        self.left -= int(num_bytes)
        if self.left < 0:
            raise DataError(
                f"{self._source}: its content would need far more memory than its {self._size / 1e6:.1f} MB, "
                f"{FACTOR}-fold and more. Is it damaged?\n"
                "  download the data again, or write them without compression if they are sound"
            )
