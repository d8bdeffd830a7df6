"""What a person has decided about photos: ``corrections.csv``, one line a decision.

Lines are only appended, each is on the disk before the next key, and to take a decision back is a
line too. So a review may be killed at any moment: what was decided counts, but for a last line that
was not written to its end. The photos themselves are never touched. A decision is about one file
with one content: where the file was moved or replaced since, the decision does not count. A file
outside of the data folder, which had no label, is named by its whole path.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from os.path import exists, isfile
from pathlib import Path
from typing import Literal, get_args

from app.core.atomic_files import locked, sync_names, write_rows
from app.core.console import say
from app.core.errors import UsageError
from app.core.labels import is_neither, is_unsure, plain_name
from app.core.sanitise import for_csv, from_csv
from app.core.text_file import LONGEST, table_rows

Decision = Literal["right", "class", "leave_out", "neither", "skip", "undo"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
Key = tuple[str, str]  # a file's name as in manifest.csv, and the SHA-256 of its bytes
LONGEST_NOTE = 1000  # characters
_FILE = "a file of corrections, as `python -m app studio` writes it"
_BEGINNING = re.compile(rb'\n"?\d{4}-\d\d-\d\dT\d\d:')  # of the next line


@dataclass(frozen=True)
class Correction:
    """One decision about one photo: a line of ``corrections.csv``.

    Attributes:
        time: of the decision (UTC), in ISO 8601.
        name: of the file, relative to the data folder, as in ``manifest.csv``; the whole path of a
            file that lies elsewhere.
        sha256: of its bytes, hexadecimal; empty where it could not be read.
        decision: ``right``: its label is right. ``class``: it shows the class ``label`` instead.
            ``leave_out``: it is not to be used. ``neither``: it shows none of the classes.
            ``skip``: nothing is said about it. ``undo``: the last decision about it is taken back.
        label: the class, for ``class``; else empty.
        note: what the person wrote, or empty.
    """

    time: str
    name: str
    sha256: str
    decision: Decision
    label: str = ""
    note: str = ""

    @property
    def key(self) -> Key:
        """What the decision is about."""
        return self.name, self.sha256


COLUMNS = tuple(field.name for field in fields(Correction))
Corrections = Mapping[Key, Correction]


class CorrectionsLog:
    """``corrections.csv`` while a person decides; several processes may write the same file.

    Example:
        >>> log = CorrectionsLog(Path("runs/first/corrections.csv"))  # doctest: +SKIP
        >>> log.decide("cat/1.jpg", "ab12…", "class", "dog")  # doctest: +SKIP
        >>> log.undo()  # doctest: +SKIP

    Args:
        path: of the file; it is made by the first decision.

    Raises:
        UsageError: when the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack: list[Correction] = []
        self._size = -1
        self._read()

    @property
    def standing(self) -> dict[Key, Correction]:
        """The last decision about each photo that was not taken back."""
        return {each.key: each for each in self._stack}

    def decide(
        self, name: str, sha256: str, decision: Decision, label: str = "", note: str = ""
    ) -> Correction:
        """Append a decision; it is on the disk when this returns (some ms).

        Args:
            name: of the file, as in ``manifest.csv``.
            sha256: of its bytes, as there.
            decision: all but ``undo``.
            label: the class, for the decision ``class``. ``neither`` as a label is that decision.
            note: kept with it, at most 1,000 characters.

        Returns:
            The decision as it was written.

        Raises:
            UsageError: when it is no decision, or a class is missing or has a name that no class
                may have.
            OSError: when it cannot be written; the file is as it was then.
        """
        if decision == "undo" or decision not in DECISIONS:
            raise UsageError(
                f"expected a decision out of {', '.join(DECISIONS[:-1])}; received {decision!r}"
            )
        label = plain_name(label)
        if decision == "class" and is_neither(label):
            decision = "neither"
        if decision == "class" and (not label or is_unsure(label)):
            raise UsageError(
                f"expected the name of a class; received {label!r}; name one of the classes"
            )
        label = label if decision == "class" else ""
        note = note.replace("\0", "")[:LONGEST_NOTE]
        with self._held():
            return self._append(Correction(_now(), name, sha256, decision, label, note))

    def undo(self) -> Correction | None:
        """Take back the last decision that stands; again for the one before it.

        Returns:
            The decision that no longer counts; None where none is left.
        """
        with self._held():
            if not self._stack:
                return None
            last = self._stack[-1]
            self._append(Correction(_now(), last.name, last.sha256, "undo"))
            return last

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let nobody else write meanwhile; read what others wrote, cut off a torn end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            size = self.path.stat().st_size if exists(self.path) else 0
            if size != self._size:
                self._read()
            if size > self._size:  # what a killed process left of its line
                with self.path.open("r+b") as file:
                    file.truncate(self._size)
            yield

    def _append(self, correction: Correction) -> Correction:
        new = self._size == 0
        text = (_line(COLUMNS) if new else "") + _line(astuple(correction))
        self._size += _write(text, self.path)
        if new:
            sync_names(self.path.parent)
        _take(correction, self._stack)
        return correction

    def _read(self) -> None:
        lines, self._size = _read_lines(self.path) if exists(self.path) else ([], 0)
        self._stack = []
        for line in lines:
            _take(line, self._stack)


def read_corrections(path: Path) -> dict[Key, Correction]:
    """Return the last decision about each photo in ``corrections.csv``.

    Raises:
        UsageError: when it cannot be read, or holds something else.
    """
    stack: list[Correction] = []
    for line in _read_lines(path)[0]:
        _take(line, stack)
    return {each.key: each for each in stack}


def read_all_corrections(paths: Iterable[Path]) -> dict[Key, Correction]:
    """Return the last decision about each photo in several files, of which the later ones count."""
    found: dict[Key, Correction] = {}
    for path in paths:
        found |= read_corrections(path)
    return found


def write_corrections(corrections: Corrections, path: Path) -> None:
    """Write decisions that stand, whole or not at all; ``read_corrections`` reads them back."""
    write_rows(map(asdict, corrections.values()), COLUMNS, path)


def _take(correction: Correction, stack: list[Correction]) -> None:
    """Add a decision to those that stand, or take the last one about that photo away."""
    if correction.decision != "undo":
        stack.append(correction)
        return
    for place in range(len(stack) - 1, -1, -1):
        if stack[place].key == correction.key:
            del stack[place]
            return


def _read_lines(path: Path) -> tuple[list[Correction], int]:
    """Return the decisions of a file, and how many bytes of it are whole lines.

    A torn last line is said, and does not count.
    """
    data = _bytes_of(path)
    size = _whole(data)
    torn = data[size:]
    if _BEGINNING.search(torn):  # no program was killed there: a person edited the file
        number = data[:size].count(b"\n") + 1
        raise UsageError(
            f"expected {_FILE}; received {path}, in which a quotation mark opens in line {number} "
            "or later and never closes; mend that line"
        )
    if torn:
        shown = torn[:60].decode("utf-8", "backslashreplace")
        say(f"the last line of {path} was not written to its end and does not count: {shown!r}")
    text = data[:size].decode("utf-8-sig", "surrogateescape")
    rows = [row for row in table_rows(text) if not row.line.startswith("#")] if text else []
    if not rows:
        return [], size
    titles = [from_csv(cell) for cell in rows[0].cells]
    if missing := [name for name in COLUMNS if name not in titles]:
        raise UsageError(
            f"expected {_FILE}; received {path}, whose first line does not name the "
            f"column{'s' if missing[1:] else ''} {', '.join(missing)}"
        )
    places = [titles.index(name) for name in COLUMNS]
    found = []
    for row in rows[1:]:
        cells = [from_csv(row.cells[place]) for place in places if place < len(row.cells)]
        found.append(_correction(cells, f"{path}, line {row.number}"))
    return found, size


def _correction(cells: Sequence[str], where: str) -> Correction:
    """Return a line's decision; raise ``UsageError`` for what is none."""
    mend = "mend the line, or take it out"
    if len(cells) < len(COLUMNS):
        raise UsageError(
            f"expected {len(COLUMNS)} cells ({', '.join(COLUMNS)}) in {where}; received "
            f"{len(cells)}; {mend}"
        )
    time, name, sha256, decision, label, note = cells
    label = plain_name(label)
    if decision not in DECISIONS:
        raise UsageError(
            f"expected a decision out of {', '.join(DECISIONS)} in {where}; received "
            f"{decision!r}; {mend}"
        )
    if (decision == "class") != bool(label) or is_neither(label) or is_unsure(label):
        raise UsageError(
            f"expected the name of a class beside the decision class, and only there, in {where}; "
            f"received {label!r} beside {decision}; {mend}"
        )
    return Correction(time, name, sha256.lower(), decision, label, note)


def _bytes_of(path: Path) -> bytes:
    received = None
    try:
        if not exists(path):
            received = "nothing there"
        elif not isfile(path):  # a pipe that nobody writes to would never end
            received = "a folder, pipe or device"
        elif path.stat().st_size > LONGEST:
            received = f"more than {LONGEST:,} bytes"
        else:
            return path.read_bytes()
    except (OSError, ValueError) as error:
        received = getattr(error, "strerror", None) or str(error)
    raise UsageError(f"expected {_FILE}; received {path} ({received})")


def _whole(data: bytes) -> int:
    """Return how many bytes are whole lines: a line ends where no cell is open.

    Names may hold line breaks. They stand in quotes, and a quote in a cell is written twice: where
    a line ends, the number of quotes is even.
    """
    end = size = quotes = 0
    for line in data.split(b"\n")[:-1]:
        quotes += line.count(b'"')
        size += len(line) + 1
        if quotes % 2 == 0:
            end = size
    return end


def _line(cells: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(map(for_csv, cells))
    return file.getvalue()


def _write(text: str, path: Path) -> int:
    """Append text and wait until it is on the disk; return how many bytes it has.

    After an error the file is as it was.
    """
    data = text.encode("utf-8", "surrogateescape")
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            if (count := file.write(data)) != len(data):
                raise OSError(f"only {count} of {len(data)} bytes could be written")
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)
            raise
    return len(data)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
