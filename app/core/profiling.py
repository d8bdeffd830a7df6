"""How long each phase of a run takes, and how much memory the run has taken by its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds and memory by phase, for ``metrics.json``.

    Attributes:
        began: when the clock was made, in seconds since 1970 (``time.time``).
        seconds: that each phase took.
        memory: bytes, the most that the process had resident up to the end of each phase, without a
            GPU's own memory. It never falls: the phase with the largest rise is the one that needs
            the memory. Empty on Windows.
    """

    def __init__(self) -> None:
        self.began, self._started = time.time(), time.monotonic()
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a phase, and note the memory at its end."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        if (peak := peak_memory()) is not None:
            self.memory[name] = peak

    def total(self) -> dict[str, float]:
        """Return the phases and ``total``, everything since the clock was made."""
        return {**self.seconds, "total": time.monotonic() - self._started}


def peak_memory() -> int | None:
    """Return the bytes that this process had resident at most so far; None on Windows.

    A process that was started by a larger one may begin with the peak of that one (Linux).
    """
    if sys.platform == "win32":
        return None
    import resource  # which Windows has not

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): macOS counts bytes
