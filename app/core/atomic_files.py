"""Files and folders that appear whole or not at all, and locks that end with their process.

Files are written beside their place and then renamed.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from app.core.errors import FetchError
from app.core.sanitise import for_csv, for_json, from_csv

# A list of whole numbers as indented JSON has it; a line break in a text is written otherwise.
_WHOLE_NUMBERS = re.compile(r"\[\n\s+(-?\d+(?:,\n\s+-?\d+)*)\n\s+\]")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    After an error the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        sync_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def open_whole(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing that appears under ``path`` when the block succeeds."""
    with (
        whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield file


def write_json(value: Any, path: Path) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused.

    A list of whole numbers takes one line: a confusion matrix has a row for each class.
    """
    text = _WHOLE_NUMBERS.sub(
        lambda found: "[" + " ".join(found[1].split()) + "]", for_json(value, indent=2)
    )
    with open_whole(path) as file:
        file.write(text + "\n")


def write_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows below a header as CSV, whole or not at all; all text is in quotes."""
    with open_whole(path) as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(map(for_csv, columns))
        cells = ([row[name] for name in columns] for row in rows)
        writer.writerows([for_csv(c) if isinstance(c, str) else c for c in row] for row in cells)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what ``write_rows`` wrote, whatever bytes file names have; every value is text.

    A row that is too short or too long has other values, for its reader to judge.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return [{_text(name): _text(value) for name, value in row.items()} for row in rows]


def _text(value: Any) -> Any:
    return from_csv(value) if isinstance(value, str) else value


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``target`` when the block ends well, else disappears.

    Use it wherever many files are written that make sense only together.

    Args:
        target: the folder to make. It must not exist, or be empty: nothing is merged.

    Yields:
        A folder on the same disk, beside ``target``, to write into.

    Raises:
        FetchError: ``target`` is a file or holds something already, or the disk cannot be
            written. The message is one line.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FetchError(
            f"Expected a new or empty folder, got {target}, which holds something already."
            " Name another folder or move it away."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # One level deeper than mkdtemp's folder, which only its owner could read.
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            folder = temporary / "folder"
            folder.mkdir()
            yield folder
            _sync_files(folder)
            if target.exists():
                target.rmdir()  # Windows does not rename onto an empty folder
            folder.rename(target)
            sync_names(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise FetchError(
            f"Cannot write the folder {target}: {error.strerror or error}."
            " Nothing was left behind; free some space or choose another folder."
        ) from error


def remove_abandoned(path: Path) -> None:
    """Remove what ``whole`` and ``whole_folder`` of killed processes left beside ``path``.

    Only what has exactly the names that they give. Nobody else may be writing ``path``: hold a
    lock.
    """
    name = re.escape(path.name)
    for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if other.is_symlink():
            continue
        if re.fullmatch(rf"\.{name}\.\d+\.part", other.name) and other.is_file():
            other.unlink()
        elif re.fullmatch(rf"\.{name}\.[a-z0-9_]{{8}}", other.name) and other.is_dir():
            shutil.rmtree(other / "folder", ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds something else
                other.rmdir()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``path`` while the block runs; no other process or thread has it then.

    The lock ends with its holder, even one that is killed. The file is made where it is missing and
    stays, empty: if it were removed, those who wait would have another lock than those who come.

    Args:
        path: of the lock's file.
        wait: until it is free; else the block runs at once, with or without it.

    Yields:
        Whether nobody else holds it. True as well where the system refuses, as on a disk without
        locks or for another user's file.
    """
    from filelock import FileLock, Timeout  # brings asyncio: not for --help

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


def _sync(path: Path) -> None:
    """Let a file reach the disk: a power cut could leave its new name on old bytes."""
    with path.open("r+b") as file:  # Windows syncs only what may be written
        os.fsync(file.fileno())


def _sync_files(folder: Path) -> None:
    """Let what was written below a folder reach the disk: a power cut could leave empty files."""
    if hasattr(os, "sync"):  # once, where a call for each of 25,000 photos would take minutes
        os.sync()
        return
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)


def sync_names(folder: Path) -> None:
    """Let new names in a folder reach the disk, in the order in which they were given."""
    with contextlib.suppress(OSError):  # Windows opens no folder; some network disks sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
