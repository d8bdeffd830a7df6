"""One step of a sort, and its way back. Each may be begun again wherever it was interrupted.

Nothing is ever written over: a name is given with a hard link, which fails where the name is taken.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from os.path import lexists
from pathlib import Path

from app.scoring.sort_journal import Mode, Step

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
CHANGED = "changed since it was answered"
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
TAKEN = "something else has its name in the target"
COARSE = 2_000_000_000  # ns: FAT keeps times to 2 s, exFAT to 10 ms; many USB sticks have these


class Left(Exception):
    """Raised with the reason why a file stays where it is."""


def do(mode: Mode, step: Step, root: Path) -> None:
    """Copy, link or move a file below ``root``; nothing happens where that was done before.

    Raises:
        Left: when the file is not as it was answered, or its name is taken.
        OSError: when the system refuses.
    """
    target = root / step.folder / step.name
    _temporary(step, root).unlink(missing_ok=True)
    _DO[mode](step, target, root)


def undo(mode: Mode, step: Step, root: Path) -> None:
    """Take one step back; nothing happens where it was not done, or is undone.

    Raises:
        Left: when the file was changed since, or something else is at its old place.
        OSError: when the system refuses.
    """
    target = root / step.folder / step.name
    _temporary(step, root).unlink(missing_ok=True)
    _UNDO[mode](step, target, root)


def as_answered(status: os.stat_result, size: int | None, modified: int | None) -> bool:
    """Return whether a file has the size and the time that the answered one had.

    Times are compared in µs: some programs that filter Parquet files write no ns.
    """
    if size is None or modified is None:
        return False
    return status.st_size == size and abs(status.st_mtime_ns - modified) < 1000


def _is_as_answered(step: Step, path: Path) -> bool:
    return as_answered(path.stat(), step.size, step.modified)


def _is_its_copy(step: Step, path: Path) -> bool:
    status = path.stat()
    return status.st_size == step.size and abs(status.st_mtime_ns - step.modified) <= COARSE


def _copy(step: Step, target: Path, root: Path) -> None:
    if lexists(target):
        if not _is_its_copy(step, target):
            raise Left(TAKEN)
        return
    _copied(step.source, target, step, _temporary(step, root))


def _copied(source: Path, target: Path, step: Step, temporary: Path, *, check: bool = True) -> None:
    """Copy a file with its times; the copy appears whole or not at all.

    It is compared with what was answered, or, without ``check``, brought to the disk at once, since
    its source is about to be removed; all others reach the disk before the journal says so.
    """
    try:
        shutil.copy2(source, temporary)
        if not check:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif not (_is_as_answered(step, source) and _is_its_copy(step, temporary)):
            raise Left(CHANGED)
        _give_name(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _link(step: Step, target: Path, root: Path) -> None:
    if lexists(target):
        if not _leads_to(target, step.source):
            raise Left(TAKEN)
        return
    if not _is_as_answered(step, step.source):
        raise Left(CHANGED)
    target.symlink_to(step.source)


def _move(step: Step, target: Path, root: Path) -> None:
    if lexists(target):
        if not lexists(step.source):
            return
        if not _same(step.source, target):
            raise Left(TAKEN)
    else:
        if not _is_as_answered(step, step.source):
            raise Left(CHANGED)
        _carry(step.source, target, step, _temporary(step, root))
    try:
        step.source.unlink(missing_ok=True)
    except OSError:
        target.unlink()
        raise


def _carry(source: Path, target: Path, step: Step, temporary: Path) -> None:
    """Give a file a second name, or where that is on another disk a copy."""
    try:
        _give_name(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copied(source, target, step, temporary, check=False)


def _same(one: Path, other: Path) -> bool:
    """Return whether two names are of one file, or of a file and its whole copy on another disk."""
    first, second = one.stat(), other.stat()
    if first.st_dev == second.st_dev:
        return first.st_ino == second.st_ino
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)


def _undo_copy(step: Step, target: Path, root: Path) -> None:
    if lexists(target):
        if not _is_its_copy(step, target):
            raise Left("the copy was changed since")
        target.unlink()


def _undo_link(step: Step, target: Path, root: Path) -> None:
    if lexists(target):
        if not _leads_to(target, step.source):
            raise Left(TAKEN)
        target.unlink()


def _undo_move(step: Step, target: Path, root: Path) -> None:
    if not lexists(target):
        if not lexists(step.source):
            raise Left("gone from the target")
        return
    if not lexists(step.source):
        step.source.parent.mkdir(parents=True, exist_ok=True)
        temporary = step.source.with_name(_temporary(step, root).name)
        temporary.unlink(missing_ok=True)
        _carry(target, step.source, step, temporary)
    elif not _same(step.source, target):
        raise Left("something else is at its old place")
    target.unlink()


def _give_name(path: Path, name: Path) -> None:
    """Give a file a name that is free; it keeps its own where the disk knows hard links.

    Raises:
        FileExistsError: when the name is taken.
    """
    try:
        os.link(path, name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if lexists(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name)) from error
        path.rename(name)


def _leads_to(link: Path, source: Path) -> bool:
    return link.is_symlink() and link.readlink() == source


def _temporary(step: Step, root: Path) -> Path:
    return root / step.folder / f".sort-{step.number}.part"


_Move = Callable[[Step, Path, Path], None]
_DO: dict[Mode, _Move] = {"copy": _copy, "link": _link, "move": _move}
_UNDO: dict[Mode, _Move] = {"copy": _undo_copy, "link": _undo_link, "move": _undo_move}
