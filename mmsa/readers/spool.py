"""Steps that wait on disk until all of a data set's are there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmsa.data.ragged import Ragged, offsets_of
from mmsa.errors import DataError


class Held:
    """The same in memory, of a known number of steps."""

    def __init__(self, num_steps: int) -> None:
        self._capacity, self._num_steps = num_steps, 0
        self._values = np.zeros((0, 0), dtype=np.float32)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def append(self, steps: np.ndarray) -> None:
        """As of `Spool`."""
        if not self._values.size:
            self._values = np.empty((self._capacity, steps.shape[1]), dtype=np.float32)
        self._values[self._num_steps : self._num_steps + len(steps)] = steps
        self._num_steps += len(steps)

    def array(self) -> np.ndarray:
        """All blocks."""
        return self._values


class Spool:
    """A growing (total steps, D) float32 array in a file without a name: nothing is left of it, however a run ends.

    Args:
        folder: where there is room for the whole array; None takes the system's temporary folder.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._place = folder or Path(tempfile.gettempdir())
        self._num_steps = 0
        self._width = 0  # until the first block
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by __exit__
        except OSError as error:
            raise self._no_room(error) from error

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, steps: np.ndarray) -> None:
        """Add a block (n, D), D that of the blocks before it.

        Raises:
            DataError: the disk is full.
        """
        self._width = int(steps.shape[1])
        self._num_steps += len(steps)
        try:
            self._file.write(np.ascontiguousarray(steps, dtype=np.float32).data)
            self._file.flush()
        except OSError as error:
            raise self._no_room(error) from error

    def array(self) -> np.ndarray:
        """All blocks, mapped read-only; it outlives the spool."""
        shape = (self._num_steps, self._width)
        if 0 in shape:  # of which there is nothing to map
            return np.zeros((self._num_steps, self._width or 1), dtype=np.float32)
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=shape)

    def _no_room(self, error: OSError) -> DataError:
        megabytes = self._num_steps * self._width * 4 / 1e6
        return DataError(
            f"{self._place} cannot take the features, {megabytes:.0f} MB so far ({error.strerror}).\n"
            "  type paths.data=FOLDER on a disk with room that you may write to"
        )


def put_aside(sequences: Iterable[np.ndarray], folder: Path | None) -> list[np.ndarray]:
    """Sequences that a reader makes, (T_i, D) float32, mapped from a file in the folder; None keeps them in memory.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    if folder is None:
        return list(sequences)
    lengths = []
    with Spool(folder) as spool:
        for steps in sequences:
            spool.append(steps)
            lengths.append(len(steps))
        whole = Ragged(spool.array().view(np.ndarray), offsets_of(lengths))
    return [whole[i] for i in range(len(whole))]
