"""How long a tracker that failed is left alone; the workers of a sweep on one host share it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from mmsa.locks import lock_file
from mmsa.secrets import hidden

PAUSE_SECONDS = 300.0
FAILED = "MMSA_TRACKING_FAILED"
"""Environment variable: the address whose failure has been printed, by this process or the one that started it."""
_sharing: str | None = None


def share_pauses(name: str) -> None:
    """From now on, the trackers of this process share their pauses with those of others on this host.

    Args:
        name: equal in the processes that share.
    """
    global _sharing
    _sharing = name


class Pause:
    """The pause after a failure of one tracking URI.

    Its attribute `is_shared` says that others depend on it: none of them then tries before it is over, as each try may
    take a minute.

    Args:
        uri: of the tracker.
    """

    def __init__(self, uri: str) -> None:
        self.is_shared = _sharing is not None
        self._file: Path | None = lock_file(f"pause-{_sharing}-{hidden(uri)}") if self.is_shared else None
        self._end = 0.0

    def lasts(self) -> bool:
        """Whether nothing should be tried now."""
        return 0 < self._until() - time.monotonic() <= PAUSE_SECONDS

    def begin(self) -> None:
        """Begin, or begin anew."""
        self._end = time.monotonic() + PAUSE_SECONDS
        if self._file is not None:
            with suppress(OSError):
                self._file.write_text(str(self._end), encoding="ascii")

    def trying(self) -> None:
        """Before a try: after a pause one worker tries, and the others wait for its outcome."""
        if self._until():
            self.begin()

    def over(self) -> None:
        """After a try that succeeded."""
        self._end = 0.0
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _until(self) -> float:
        """The end of the last pause, by the clock that the processes of a host have in common; 0 without one."""
        if self._file is not None:
            with suppress(OSError, ValueError):
                return float(self._file.read_text(encoding="ascii"))
        return self._end
