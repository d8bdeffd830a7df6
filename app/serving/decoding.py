"""Foreign bytes → pixels in a process of its own, which may be killed at any moment.

This is what runs there; it brings Pillow and NumPy and nothing else. Who starts and ends these
processes: ``app.serving.decoders``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from app.core.errors import ImageError
from app.data.decode import MAX_MEMORY, Pixels, read_image, resize

MIB = 2**20
USUAL = 256 * MIB  # what the process has without a photo, where the system does not tell
THREAD = 16 * MIB  # what a decoder's thread may take for its stack: AVIF has one for each core
GRACE = 1.0  # seconds after the time limit: the service kills first, unless it is no more

Result = TypeVar("Result")


class Allowed(NamedTuple):
    """What one photo may take: seconds, and bytes of its file."""

    seconds: float
    body: int


def decoded(
    work: Callable[[bytes, int], Result], data: bytes, size: int, allowed: Allowed
) -> Result:
    """Call ``work(data, size)`` within limits of memory and, on Unix, of time.

    After the time the process ends by SIGALRM, whatever code is running.

    Raises:
        ImageError: as ``work``, and when the memory does not suffice.
    """
    prepare(allowed)
    timer = getattr(signal, "setitimer", None)  # not on Windows
    if timer:
        timer(signal.ITIMER_REAL, allowed.seconds + GRACE)
    try:
        return work(data, size)
    except (ImageError, MemoryError) as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            raise ImageError("takes more memory than a photo may; save it again") from None
        raise
    finally:
        if timer:
            timer(signal.ITIMER_REAL, 0)


def for_page(data: bytes, size: int) -> tuple[Pixels, Pixels]:
    """Decode a photo for the network, and as small as its heat map is shown."""
    from app.inference.heatmap import LONGEST

    pixels = read_image(data)
    shown = Image.fromarray(pixels)
    shown.thumbnail((LONGEST, LONGEST))
    return resize(pixels, size), np.asarray(shown)


def nothing(_: bytes, __: int) -> None:
    """Do nothing, so that the process has been started and everything is imported."""


@functools.cache
def prepare(allowed: Allowed) -> None:
    """Make this process one that only the service ends, and that memory has a limit for.

    Ctrl-C in a terminal, a terminal that is closed, and systemd signal all processes at once;
    what is under way is to be answered first.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        # The file comes, is copied by decoders, and lies there as it was sent.
        most = _data_bytes() + MAX_MEMORY + 3 * allowed.body + (os.cpu_count() or 1) * THREAD
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
