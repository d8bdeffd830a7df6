"""Lists and tables that people wrote: by an editor, Excel or PowerShell, on any system.

A list has one name a line. A table has cells separated by commas, semicolons or tabs. Both are read
by the same functions, since a list of names may be the first column of a table.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.core.errors import UsageError
from app.core.sanitise import MARK, from_csv

LONGEST = 256_000_000  # bytes, millions of names: endless input fills no memory
SEPARATORS = "\t;,"  # Excel writes ; where a comma stands before decimals
# What the first column of a table of files is called, compared in lower case.
FILE_COLUMNS = {"name", "path", "file", "filename", "file_name", "image", "image_name", "id"}
_EXCEL = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's own line about the separator


@dataclass(frozen=True)
class Row:
    """One row of a list or table."""

    number: int  # of its first line, from 1
    line: str  # as it stands, without its end
    cells: tuple[str, ...]  # never empty

    def is_header(self) -> bool:
        """Return whether the first cell is what a column of files is called."""
        return self.cells[0].strip().lower() in FILE_COLUMNS


def read_text_file(path: Path, what: str) -> str:
    """Read a text file, whatever its encoding (``decode_text``).

    Args:
        path: the file; a pipe is read as well.
        what: what it is expected to be, for the message: "--exclude to be a list of files".

    Raises:
        UsageError: when it cannot be read or is longer than ``LONGEST`` bytes.
    """
    try:
        with path.open("rb") as file:
            return read_text(file, f"{what}; received {path}")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"expected {what}; received {path} ({reason})") from error


def read_text(file: BinaryIO, received: str) -> str:
    """Read text from an open file.

    Args:
        file: it is read to its end.
        received: begins the message after "expected": what is expected, and what was received.

    Raises:
        UsageError: when it is longer than ``LONGEST`` bytes.
    """
    data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise UsageError(
            f"expected {received}, which is longer than the {LONGEST:,} bytes that are read; "
            "name a folder, or split it"
        )
    return decode_text(data)


def decode_text(data: bytes) -> str:
    """Return bytes as text.

    With a byte order mark it is UTF-8 or UTF-16; without one, a line is UTF-8 if it can be, and
    else Windows-1252, as Excel writes. No bytes are refused: ``name_readings`` gives a file's name
    whose bytes are in neither.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(map(_decode_line, data.split(b"\n")))


def table_rows(text: str) -> Iterator[Row]:
    r"""Yield the rows of a list or table; blank lines are left out.

    Lines end with ``\n`` or ``\r\n``, all with ``\r``, or all with NUL (``find -print0``). The
    first row of several cells decides which of ``SEPARATORS`` separates them: the one that gives
    the most cells. A cell in double quotes may hold separators and line ends. A comment (``#``) is
    one cell.
    """
    if "\0" in text:
        for number, line in enumerate(text.split("\0"), start=1):
            if line:
                yield Row(number, line, (line,))
        return
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines, number, separators = text.split("\n"), 0, SEPARATORS
    while number < len(lines):
        line, start = lines[number].removesuffix("\r"), number
        number += 1
        if not line.strip():
            continue
        if separators == SEPARATORS and (excel := _EXCEL.fullmatch(line)):
            separators = excel[1]
            continue
        if line.startswith("#"):
            yield Row(start + 1, line, (line,))
            continue
        # Of several separators, the first of those that give the most cells.
        found = [(_split(lines, start, each), each) for each in separators]
        (cells, took), separator = max(found, key=lambda one: len(one[0][0]))
        if len(cells) > 1:
            separators = separator
        number = start + took
        line = "\n".join(lines[start:number]).removesuffix("\r")
        yield Row(start + 1, line, cells)


def _split(lines: Sequence[str], start: int, separator: str) -> tuple[tuple[str, ...], int]:
    """Return the cells of the row that begins at a line, and how many lines it takes."""
    line = lines[start].removesuffix("\r")
    if '"' not in line:
        return tuple(line.split(separator)), 1
    rest = (f"{lines[at]}\n" for at in range(start, len(lines)))
    # strict: a name that begins with a quotation mark does not swallow the lines below it.
    reader = csv.reader(rest, delimiter=separator, strict=True)
    try:
        return tuple(next(reader)), reader.line_num
    except csv.Error:
        return (line,), 1


def row_readings(row: Row) -> Iterator[str]:
    """Yield the names of a file that a row of a list may mean, the likeliest first.

    These are the whole line, and the first cell as it stands, as the project's tables and
    spreadsheets guard it, without blanks around it, and with slashes for the backslashes of
    Windows; each in all of its ``name_readings``.
    """
    cell = row.cells[0]
    bare = cell.strip()
    texts = (row.line, cell, from_csv(cell), cell.removeprefix(MARK), bare, bare.replace("\\", "/"))
    for text in dict.fromkeys(texts):
        yield from name_readings(text)


def name_readings(name: str) -> Iterator[str]:
    """Yield the names that a file may have on disk whose name was read from a list.

    These are the name itself, its composed and decomposed forms (macOS writes the latter), and its
    bytes in Windows-1252, since names on Linux may be any bytes.
    """
    yield name
    if name.isascii():
        return
    for form in ("NFC", "NFD"):
        yield unicodedata.normalize(form, name)
    try:
        yield os.fsdecode(name.encode("cp1252", "surrogateescape"))
    except UnicodeEncodeError:  # no name in Windows-1252
        return


def _decode_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "surrogateescape")  # five bytes have no meaning in it
