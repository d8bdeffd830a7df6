"""One at a time: a lock that ends with its holder, even one that is killed."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _wait(descriptor: int) -> None:
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno != errno.EDEADLOCK:  # that it says after ten seconds
                    raise

    def _try(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _wait(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _try(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)  # what Unix says, and Windows


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process or thread holds the lock of ``path``, and hold it.

    The file is made where it is missing and stays, empty: to remove it would give those who wait
    another lock than those who come. Where the system refuses, on a disk without locks, say, or for
    another user's file, everybody goes on at once.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _wait(stack.enter_context(path.open("ab")).fileno())
        yield


@contextmanager
def locked_unless_taken(path: Path) -> Iterator[bool]:
    """Hold the lock of ``path`` if nobody else does; yield whether that is so.

    Where the system knows no locks the answer is yes.
    """
    with contextlib.ExitStack() as stack:
        free = True
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("ab"))
            try:
                _try(file.fileno())
            except OSError as error:
                free = error.errno not in _TAKEN
        yield free
