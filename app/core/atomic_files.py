"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from app.core.errors import FetchError
from app.core.sanitise import for_json


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    After an error the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())  # else a power cut could leave the new name on old bytes
        temporary.replace(path)
        _sync_names(path.parent)
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
        file.flush()


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
            _sync_names(target.parent)
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


def write_json(value: Any, path: Path) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused."""
    with open_whole(path) as file:
        file.write(for_json(value, indent=2) + "\n")


def _sync_files(folder: Path) -> None:
    """Let what was written below a folder reach the disk: a power cut could leave empty files."""
    if hasattr(os, "sync"):  # once, where a call for each of 25,000 photos would take minutes
        os.sync()
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    """Let new names in a folder reach the disk, in the order in which they were given.

    Windows cannot open a folder, and some network disks do not sync one.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
