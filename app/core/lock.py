"""One at a time: a lock that ends with its holder, even one that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process or thread holds the lock of ``path``, and hold it.

    The file is made where it is missing and stays, empty: to remove it would give those who wait
    another lock than those who come. Where the system refuses, on a disk without locks, say, or for
    another user's file, everybody goes on at once.
    """
    with locked_unless_taken(path, wait=True):
        yield


@contextmanager
def locked_unless_taken(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of ``path`` if nobody else does; yield whether that is so.

    Where the system knows no locks the answer is yes.
    """
    # A soft lock is a file that outlives a killed holder.
    lock = FileLock(path, blocking=wait, fallback_to_soft=False)
    free = True
    try:
        lock.acquire()
    except Timeout:
        free = False
    except OSError:  # as on a disk without locks
        pass
    try:
        yield free
    finally:
        lock.release()
