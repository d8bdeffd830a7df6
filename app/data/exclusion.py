"""``--exclude FILE``: which files of the data folder a person's list names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from app.core.errors import UsageError
from app.core.sanitise import MARK, from_csv


def excluded_names(listing: Path, data: Path, names: Collection[str]) -> set[str]:
    """Read a list of files that are not to be trained on.

    One a line, by the name that ``manifest.csv`` and ``audit.csv`` have, or by a path that leads
    into the data folder. Lines of these tables may stay whole: the first cell counts. Blank lines,
    comments (``#``) and the tables' header are passed over, unless a file is called like that.

    Args:
        listing: UTF-8 text.
        data: the data folder, as the user gave it.
        names: of all files below it.

    Returns:
        Those of ``names`` that are listed.

    Raises:
        UsageError: when the list cannot be read, or a line of it names no file of the folder.
    """
    known, found, strange = frozenset(names), set(), []
    for number, line, cell in _lines(listing):
        name = next((name for name in _readings(line, cell, data) if name in known), None)
        if name is not None:
            found.add(name)
        elif not (line.startswith("#") or cell.strip() in ("", "name")):
            strange.append((number, cell))
    if strange:
        number, cell = strange[0]
        more = f", and {len(strange) - 1} more such lines" if len(strange) > 1 else ""
        raise UsageError(
            f"expected files of {data} in {listing}; received {cell!r} on line {number}{more}; "
            "write one name a line, as manifest.csv has it"
        )
    return found


def _lines(listing: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, the line, and its first cell; a quoted cell may hold ends."""
    taken: list[str] = []

    def lines(text: str) -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    try:
        text = listing.read_bytes().decode("utf-8-sig", "surrogateescape")
        number = 1
        for cells in csv.reader(lines(text)):
            line = "".join(taken).rstrip("\r\n")
            yield number, line, cells[0] if cells else ""
            number += len(taken)
            taken.clear()
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"expected --exclude to be a list of files, one a line; received {listing} ({reason})"
        ) from error


def _readings(line: str, cell: str, data: Path) -> Iterator[str]:
    """Yield the names that a line may mean: as it stands, as a table's row, as a path."""
    yield line
    yield cell
    yield from_csv(cell)
    yield cell.removeprefix(MARK)  # a spreadsheet has put it there
    cell = cell.strip()
    yield Path(cell).as_posix()  # ./cat/1.jpg, and cat\1.jpg on Windows
    path = Path(os.path.abspath(cell))  # noqa: PTH100  (without .., and links stay)
    for folder in (os.path.abspath(data), os.path.realpath(data)):  # noqa: PTH100
        if path.is_relative_to(folder):
            yield path.relative_to(folder).as_posix()
