"""What ``python -m app score`` is given → the files that are meant, one at a time.

No list of them is held: a million names would fill memory before the first photo is answered.
"""

from __future__ import annotations

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from os.path import exists, isdir, isfile, lexists
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.core.console import say
from app.core.errors import DataError, UsageError
from app.core.folder_tree import stream
from app.core.text_file import FILE_COLUMNS, LONGEST, Row, decode_text, row_readings, table_rows
from app.data.sets.archive import is_archive
from app.scoring.archive_members import members

LISTS = (".txt", ".lst", ".list", ".csv", ".tsv")  # lists and tables of names
BLOCK = 2**20  # bytes of a list that are read at once
LONGEST_CELL = 16 * BLOCK  # a cell in quotes that goes on longer has a quotation mark in its name
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_INT64 = 2**63 - 1


class Found(NamedTuple):
    """A file, or a member of an archive, as it was found.

    Attributes:
        path: of the file or the archive, absolute: a worker or a later call may be elsewhere.
        member: the name in the archive; empty for a file.
        place: where a member begins in its archive; 0 for a file.
        size: bytes; None where the system does not say.
        modified: ns since 1970; None likewise.
    """

    path: str
    member: str
    place: int
    size: int | None
    modified: int | None


def find(sources: Iterable[str], output: Path | None = None) -> Iterator[Found]:
    """Yield all files that sources mean; one that is meant twice comes twice.

    A source is a folder with all below it (as for ``predict.py``), an archive (.zip, .tar, .tar.gz,
    .tgz), a list or a table of names (.txt, .lst, .csv, .tsv; ``-`` on standard input), a pattern,
    or a photo. Names in a list are files, folders and archives, not patterns or further lists.
    What cannot be listed comes as a file of its own: to read it will tell the reason.

    Args:
        sources: as on the command line.
        output: what is written, which no folder of photos may hold; None: nothing is.

    Raises:
        UsageError: when one does, or a list cannot be read.
    """
    for source in sources:
        if source == "-":
            yield from _of_list(sys.stdin.buffer, "standard input", output)
        elif not exists(source) and glob.has_magic(source):
            matches = 0
            for match in glob.iglob(source, recursive=True):  # noqa: PTH207  Path.glob knows no "/..."
                matches += 1
                yield from _of_source(match, output)
            if not matches:
                yield found_file(_absolute(source))
        else:
            yield from _of_source(source, output)


def refuse_among_sources(output: Path, sources: Iterable[str]) -> None:
    """Refuse to write among the photos, which are only read, before anything is written.

    This looks at folders and patterns; what a list names, or a pattern finds by way of a link, is
    looked at when it is found (``find``).

    Raises:
        UsageError: when the folder for answers is or would be a source, or lies in one.
    """
    place = _absolute(os.fspath(output))
    for source in sources:
        if isdir(source):
            refuse_in_folder(output, source)
        elif not exists(source) and glob.has_magic(source):
            pattern = Path(_absolute(source)).parts
            if any(_matches(each.parts, pattern) for each in (Path(place), *Path(place).parents)):
                raise _among(output, source)


def refuse_in_folder(output: Path, folder: str) -> None:
    """Raise ``UsageError`` when ``output`` is a folder of photos or lies in it."""
    if output.resolve().is_relative_to(Path(folder).resolve()):
        raise _among(output, folder)


def _among(output: Path, source: str) -> UsageError:
    return UsageError(
        f"expected --output outside of {source}, whose photos are only read; received {output}; "
        "name another folder"
    )


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether a pattern of ``glob`` would find a path, which need not be there."""
    if not pattern or not path:
        return not path and all(each == "**" for each in pattern)
    first, *others = pattern
    seen = first.startswith(".") or not path[0].startswith(".")
    if first == "**":
        return _matches(path, others) or (seen and _matches(path[1:], pattern))
    return seen and fnmatchcase(path[0], first) and _matches(path[1:], others)


def _of_source(name: str, output: Path | None) -> Iterator[Found]:
    if name.lower().endswith(LISTS) and isfile(name):
        try:
            with Path(name).open("rb") as file:
                yield from _of_list(file, name, output)
        except OSError as error:
            raise UsageError(
                f"expected a list of files; received {name} ({error.strerror})"
            ) from error
    else:
        yield from _of_name(name, output)


def _of_name(name: str, output: Path | None) -> Iterator[Found]:
    """Yield what a folder, an archive or a file is."""
    name = _absolute(name)
    if isdir(name):
        if output is not None:
            refuse_in_folder(output, name)
        for entry in stream(name):
            if isinstance(entry, OSError):
                yield found_file(entry.filename)
            else:
                yield _found(entry.path, entry)
    elif is_archive(Path(name)) and isfile(name):
        yield from _of_archive(name)
    else:
        yield found_file(name)


def _of_archive(name: str) -> Iterator[Found]:
    number = 0
    try:
        for member in members(Path(name)):
            number += 1
            yield Found(name, member.name, member.place, member.size, _fitting(member.modified))
    except DataError as error:
        say(f"{error}; {number:,} files were found in it; get it again")
        yield found_file(name)


def _absolute(name: str) -> str:
    """Return a path from the root; ``..`` stays, since a link before it would lead elsewhere."""
    if ".." in Path(name).parts:
        return os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
    return os.path.abspath(name)  # noqa: PTH100


def found_file(path: str) -> Found:
    """Return a file by its name; one that is not there too, since its answer will say so."""
    return _found(path, Path(path))


def _found(path: str, entry: os.DirEntry[str] | Path) -> Found:
    try:
        status = entry.stat()
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return Found(path, "", 0, None, None)
    return Found(path, "", 0, status.st_size, _fitting(status.st_mtime_ns))


def _fitting(time: int) -> int:
    """Return a time in ns that fits into 64 bits: some disks know years beyond 2262."""
    return max(-_INT64, min(time, _INT64))


# ---- lists ---------------------------------------------------------------------------------------


def _of_list(file: BinaryIO, shown: str, output: Path | None) -> Iterator[Found]:
    """Yield what the rows of a list or table mean; a header says which column holds the names."""
    column, begun, in_table = 0, False, False
    for block in _blocks(file):
        for row in table_rows(decode_text(block)):
            if not begun:
                begun = True
                titles = [cell.strip().lower() for cell in row.cells]
                known = [number for number, title in enumerate(titles) if title in FILE_COLUMNS]
                if known and not any(map(lexists, row_readings(row))):
                    column, in_table = known[0], True
                    continue
            if column < len(row.cells):
                yield from _of_name(_meant(row, column, in_table=in_table), output)
    if not begun:
        say(f"no name in {shown}")


def _meant(row: Row, column: int, *, in_table: bool) -> str:
    """Return the name that a row means: the first reading that is there, else as it stands."""
    cell = row.cells[column]
    one = row if column == 0 else Row(row.number, cell, (cell,))
    return next(filter(lexists, row_readings(one)), cell if in_table else row.line)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a list in pieces of whole rows; one in UTF-16 at once."""
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    beginning = buffered.peek(BLOCK)
    if beginning.startswith(_UTF_16):
        yield buffered.read(LONGEST)
        return
    end, rest = b"\0" if b"\0" in beginning else b"\n", b""
    while chunk := buffered.read(BLOCK):
        rest += chunk
        block, found, after = rest.rpartition(end)
        if found and (block.count(b'"') % 2 == 0 or len(block) > LONGEST_CELL):
            yield block + end
            rest = after
        elif len(rest) > LONGEST:
            raise UsageError(
                "expected a list of names, one a line; received one without the end of a line"
            )
    if rest:
        yield rest + end
