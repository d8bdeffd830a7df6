"""Photos are decoded in other processes, as many as there are cores, four at most.

Such a process imports this module, Pillow and NumPy, but no network and no web server, and may be
killed at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from anyio import BrokenWorkerProcess, CancelScope, current_time
from anyio.to_process import run_sync
from PIL import Image

from app.core.errors import ImageError
from app.data.decode import DECODERS, MAX_MEMORY, Pixels, read_image, resize

# Seconds for one photo: five times what app.data.decode allows, for slower machines.
MOST = 10.0
LEAST = 2.0  # and with a shorter --timeout
GRACE = 1.0  # seconds after that: the service kills first, unless it has ended itself
USUAL = 256 * 2**20  # bytes of a process without a photo, where the system does not say
THREAD = 16 * 2**20  # bytes of stack of a decoder's thread: AVIF has one for each core

Result = TypeVar("Result")


class Decoders:
    """Decodes in other processes: whatever a decoder does, it ends, and the service goes on.

    anyio starts the processes, keeps them, and kills one whose caller gives up; the next photo
    starts another in its place.

    Args:
        seconds: that a request may take; a photo may take as many, but 2 at least and 10 at most.
        body: bytes that a file may have.
        count_lost: called with ``late`` or ``ended`` when a process is lost.
        workers: services that share the cores.
    """

    def __init__(
        self, seconds: float, body: int, count_lost: Callable[[str], None], *, workers: int = 1
    ) -> None:
        self.processes = min(max((os.cpu_count() or 1) // workers, 1), DECODERS)
        self.seconds, self._body = max(min(seconds, MOST), LEAST), body
        self._count_lost = count_lost
        self._free = asyncio.Semaphore(self.processes)
        self._jobs: set[asyncio.Task[object]] = set()
        self._begun: dict[CancelScope, float] = {}  # the photos under way, and since when
        self._started = 0  # processes that live

    async def start(self) -> None:
        """Start all processes, so that the first photos need not wait for that."""
        each = (self.decode(_nothing, b"", 0) for _ in range(self.processes))
        await asyncio.gather(*each, return_exceptions=True)  # a photo will show what is wrong

    @property
    def stuck(self) -> bool:
        """Whether every process has decoded one photo for more than half of the allowed time."""
        latest = asyncio.get_running_loop().time() - self.seconds / 2
        return sum(begun < latest for begun in self._begun.values()) >= self.processes

    async def decode(self, work: Callable[[bytes, int], Result], data: bytes, size: int) -> Result:
        """Call ``work(data, size)``, a function of a module, in another process.

        A caller that gives up while it waits for its turn is forgotten. Later its photo is decoded
        to the end: to start a new process would cost more than most photos.

        Raises:
            ImageError: as ``work``, and when the time or the memory does not suffice.
            BrokenWorkerProcess: when the process ended, killed by the system, say.
        """
        await self._free.acquire()
        job = asyncio.create_task(self._decode(work, data, size))
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return await asyncio.shield(job)

    async def close(self) -> None:
        """Kill the processes that decode; the others end with the event loop."""
        for scope in self._begun:
            scope.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _decode(self, work: Callable[[bytes, int], Result], data: bytes, size: int) -> Result:
        now = asyncio.get_running_loop().time
        try:
            with CancelScope() as scope:
                self._begun[scope] = now()
                if len(self._begun) > self._started:
                    # Shielded: cancelled, anyio would forget the process. Suppressed: a signal
                    # that it does not ignore yet; what follows prepares it, or starts another.
                    with (
                        CancelScope(shield=True),
                        contextlib.suppress(KeyboardInterrupt, BrokenWorkerProcess),
                    ):
                        await run_sync(_prepare, self._body)
                    self._started += 1
                self._begun[scope] = now()
                scope.deadline = current_time() + self.seconds
                limits = self.seconds, self._body
                return await run_sync(_within_limits, work, data, size, *limits, cancellable=True)
            self._lost("late")
            raise ImageError(f"was not decoded within {self.seconds:g} s")
        except (BrokenWorkerProcess, OSError, KeyboardInterrupt) as error:
            # OSError: it could not be started; KeyboardInterrupt: Ctrl-C came to it, not to us.
            self._lost("ended")
            raise BrokenWorkerProcess from error
        finally:
            del self._begun[scope]

    def _lost(self, reason: str) -> None:
        self._started = max(self._started - 1, 0)
        self._count_lost(reason)

    def _done(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        self._free.release()
        if not job.cancelled():
            job.exception()  # retrieved, even where nobody waits any more


# ---- in the other process ------------------------------------------------------------------------


def for_page(data: bytes, size: int) -> tuple[Pixels, Pixels]:
    """Decode a photo for the network, and as small as its heat map is shown."""
    from app.inference.heatmap import LONGEST

    pixels = read_image(data)
    shown = Image.fromarray(pixels)
    shown.thumbnail((LONGEST, LONGEST))
    return resize(pixels, size), np.asarray(shown)


def _within_limits(
    work: Callable[[bytes, int], Result], data: bytes, size: int, seconds: float, body: int
) -> Result:
    """Call ``work(data, size)``; after its time SIGALRM ends the process, whatever code runs."""
    _prepare(body)
    timer = getattr(signal, "setitimer", None)  # not on Windows
    if timer:
        timer(signal.ITIMER_REAL, seconds + GRACE)
    try:
        return work(data, size)
    except (ImageError, MemoryError) as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            raise ImageError("takes more memory than a photo may; save it again") from None
        raise
    finally:
        if timer:
            timer(signal.ITIMER_REAL, 0)


def _nothing(_: bytes, __: int) -> None:
    """Do nothing: afterwards the process has started, and everything is imported."""


@functools.cache
def _prepare(body: int) -> None:
    """Limit this process's memory, and let only the service end it.

    Ctrl-C in a terminal, a terminal that is closed, and systemd signal all processes at once;
    what is under way is to be answered first.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        # The file comes, is copied by decoders, and lies there as it was sent.
        most = _data_bytes() + MAX_MEMORY + 3 * body + (os.cpu_count() or 1) * THREAD
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _data_bytes() -> int:
    """Return what RLIMIT_DATA counts already."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except (OSError, ValueError, IndexError):
        return USUAL
    return pages * os.sysconf("SC_PAGE_SIZE")
