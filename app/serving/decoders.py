"""The processes in which the service decodes: as many as there are cores, four at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import BrokenWorkerProcess, CancelScope, current_time
from anyio.to_process import run_sync

from app.core.errors import ImageError
from app.serving.decoding import Allowed, decoded, nothing, prepare
from app.serving.metrics import Metrics
from app.serving.uploads import Refused

# Seconds for one photo: five times what app.data.decode allows, for slower machines.
MOST = 10.0
LEAST = 2.0  # and with a shorter --timeout

Result = TypeVar("Result")


class Decoders:
    """Decodes in other processes: whatever a decoder does, it ends, and the service goes on.

    anyio starts the processes, keeps them, and kills one whose caller gives up; the next photo
    starts another in its place.

    Args:
        processes: how many there are.
        allowed: what one photo may take.
        metrics: where it is counted how many processes were lost.
    """

    def __init__(self, processes: int, allowed: Allowed, metrics: Metrics) -> None:
        self.processes, self.allowed, self.metrics = processes, allowed, metrics
        self._free = asyncio.Semaphore(processes)
        self._jobs: set[asyncio.Task[object]] = set()
        self._begun: dict[CancelScope, float] = {}  # the photos under way, and since when
        self._started = 0  # processes that live

    async def start(self) -> None:
        """Start all processes, so that the first photos need not wait for that."""
        each = (self.decode(nothing, b"", 0) for _ in range(self.processes))
        await asyncio.gather(*each, return_exceptions=True)  # a photo will tell what is wrong

    @property
    def stuck(self) -> bool:
        """Whether every process has been at one photo for more than half of its time."""
        latest = asyncio.get_running_loop().time() - self.allowed.seconds / 2
        late = [begun for begun in self._begun.values() if begun < latest]
        return len(late) >= self.processes

    async def decode(self, work: Callable[[bytes, int], Result], data: bytes, size: int) -> Result:
        """Call ``work(data, size)``, a function of a module, in another process.

        A caller that gives up while it waits for its turn is forgotten. Later its photo is decoded
        to the end: to start a new process would cost more than most photos.

        Raises:
            ImageError: as ``work``, and when the time or the memory does not suffice.
            Refused: 503, when the process ended, killed by the system, say.
        """
        await self._free.acquire()
        job = asyncio.create_task(self._decode(work, data, size))
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return await asyncio.shield(job)

    async def close(self) -> None:
        """Kill what is at work; those without work end with the event loop."""
        for scope in self._begun:
            scope.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _decode(self, work: Callable[[bytes, int], Result], data: bytes, size: int) -> Result:
        try:
            with CancelScope() as scope:
                self._begun[scope] = asyncio.get_running_loop().time()
                if len(self._begun) > self._started:
                    with CancelScope(shield=True):  # broken off, anyio would forget it
                        await run_sync(prepare, self.allowed)
                    self._started += 1
                self._begun[scope] = asyncio.get_running_loop().time()
                scope.deadline = current_time() + self.allowed.seconds
                return await run_sync(decoded, work, data, size, self.allowed, cancellable=True)
            self._lost("late")
            raise ImageError(f"was not decoded within {self.allowed.seconds:g} s")
        except (BrokenWorkerProcess, OSError):  # OSError: it could not be started
            self._lost("ended")
            raise Refused(
                503, "the process that decoded a photo ended; ask again", retry_after=1
            ) from None
        finally:
            del self._begun[scope]

    def _lost(self, reason: str) -> None:
        self._started = max(self._started - 1, 0)
        self.metrics.decoders_lost.labels(reason).inc()

    def _done(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        self._free.release()
        if not job.cancelled():
            job.exception()  # taken note of, even where nobody waits any more
