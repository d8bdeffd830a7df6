"""The index of a scoring: which files there are, and in which part each of them is answered.

It is a SQLite file. So memory does not grow with the number of files, a process that is killed
leaves it whole, and a file that is found twice is in it once.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from app.core.errors import AppError, UsageError
from app.scoring.sources import Found

LISTED_AT_ONCE = 20_000  # files in a transaction
SAID_AFTER = 1_000  # files
# `part` is null while a file waits for its answer; then it is read at its latest `place`, which is
# another one where its archive was packed anew. The trigger counts what a part has lost to files
# that changed: it is then written again without them.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    member BLOB NOT NULL,
    place INTEGER NOT NULL,
    size INTEGER,
    modified INTEGER,
    part INTEGER,
    unread INTEGER NOT NULL DEFAULT 0,
    UNIQUE (path, member)
);
CREATE TABLE IF NOT EXISTS parts (
    number INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    labels TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS lost AFTER UPDATE OF part ON files
WHEN OLD.part IS NOT NULL AND NEW.part IS NULL
BEGIN UPDATE parts SET kept = kept - 1 WHERE number = OLD.part; END;
"""
_LIST = """
INSERT INTO files (path, member, place, size, modified) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (path, member) DO UPDATE SET
    place = excluded.place, size = excluded.size, modified = excluded.modified,
    part = NULL, unread = 0
WHERE size IS NOT excluded.size OR modified IS NOT excluded.modified OR unread
    OR (part IS NULL AND place IS NOT excluded.place)
"""


class Waiting(NamedTuple):
    """A file that waits for its answer: its number in the index, and where it is."""

    number: int
    found: Found


@dataclass(frozen=True)
class Part:
    """What the index knows of a file of answers.

    Attributes:
        number: which its name has.
        rows: in it.
        bytes: its size.
        sha256: of its bytes.
        labels: label → how many rows have it; an empty one counts those without an answer.
        unread: numbers of the files that could not be read, which a later call tries again.
    """

    number: int
    rows: int
    bytes: int
    sha256: str
    labels: dict[str, int]
    unread: tuple[int, ...] = ()


class Index:
    """The files and the parts of one scoring; use ``open_index``. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, files: Iterable[Found]) -> Iterator[int]:
        """Add files that are new, and let those wait again that changed or could not be read.

        Yields:
            How many files were looked at so far, now and then.
        """
        remaining, looked_at = iter(files), 0
        while first := next(remaining, None):
            some = chain([first], islice(remaining, LISTED_AT_ONCE - 1))
            with self._transaction():
                for found in some:
                    row = os.fsencode(found.path), os.fsencode(found.member), *found[2:]
                    self._db.execute(_LIST, row)
                    looked_at += 1
                    if looked_at % SAID_AFTER == 0:
                        yield looked_at

    def waiting(self, most: int | Callable[[], int]) -> Iterator[list[Waiting]]:
        """Yield the files that wait, in the order in which they were found, ``most`` at a time.

        A function is called anew for each list.
        """
        last, size = 0, most if callable(most) else lambda: most
        while shard := [
            Waiting(number, Found(os.fsdecode(path), os.fsdecode(member), *rest))
            for number, path, member, *rest in self._db.execute(
                "SELECT id, path, member, place, size, modified FROM files"
                " WHERE part IS NULL AND id > ? ORDER BY id LIMIT ?",
                (last, size()),
            )
        ]:
            last = shard[-1].number
            yield shard

    def counts(self) -> tuple[int, int]:
        """Return how many files there are, and how many of them wait."""
        files, waiting = self._db.execute(
            "SELECT count(*), sum(part IS NULL) FROM files"
        ).fetchone()
        return files, waiting or 0

    def labels(self) -> Counter[str]:
        """Return how many files have each label; an empty one counts those without an answer."""
        total: Counter[str] = Counter()
        for (text,) in self._db.execute("SELECT labels FROM parts"):
            total.update(json.loads(text))
        return total

    def next_part(self) -> int:
        """Return a number above those of all parts."""
        (number,) = self._db.execute("SELECT coalesce(max(number), -1) FROM parts").fetchone()
        return int(number) + 1

    def parts(self) -> list[Part]:
        """Return all parts, by number."""
        rows = self._db.execute(
            "SELECT number, rows, bytes, sha256, labels FROM parts ORDER BY number"
        )
        return [
            Part(number, count, size, digest, json.loads(labels))
            for number, count, size, digest, labels in rows
        ]

    def outdated(self) -> list[int]:
        """Return the numbers of parts with rows of files that wait again."""
        return [n for (n,) in self._db.execute("SELECT number FROM parts WHERE kept < rows")]

    def keep(self, part: Part, files: Sequence[int]) -> None:
        """Record a part that is on the disk: the files with these numbers are answered in it."""
        unread = set(part.unread)
        with self._transaction():
            self._record(part)
            self._db.executemany(
                "UPDATE files SET part = ?, unread = ? WHERE id = ?",
                [(part.number, number in unread, number) for number in files],
            )

    def answered_in(self, part: int, files: Iterable[int]) -> list[bool]:
        """Return of each file, by its number, whether that part still answers it."""
        find = "SELECT 1 FROM files WHERE id = ? AND part = ?"
        return [self._db.execute(find, (n, part)).fetchone() is not None for n in files]

    def replace(self, old: int, new: Part | None, files: Sequence[int]) -> None:
        """Let another part stand for one that is outdated; None where nothing of it is left."""
        with self._transaction():
            if new is not None:
                self._record(new)
                self._db.executemany(
                    "UPDATE files SET part = ? WHERE id = ?", [(new.number, n) for n in files]
                )
            self._db.execute("DELETE FROM parts WHERE number = ?", (old,))

    def forget(self, parts: Sequence[int]) -> None:
        """Let all files wait that were answered in parts which are gone or damaged."""
        with self._transaction():
            for number in parts:
                self._db.execute("DELETE FROM parts WHERE number = ?", (number,))
                self._db.execute("UPDATE files SET part = NULL WHERE part = ?", (number,))

    def _record(self, part: Part) -> None:
        self._db.execute(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
            (part.number, part.rows, part.rows, part.bytes, part.sha256, json.dumps(part.labels)),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db:  # commits, or rolls back what an exception broke off
            self._db.execute("BEGIN")
            yield


@contextmanager
def open_index(path: Path) -> Iterator[Index]:
    """Open the index of a scoring, or make it; close it at the end.

    Raises:
        UsageError: when the file is no index.
        AppError: when the disk is full or refuses.
    """
    try:
        with closing(Index(path)) as index:
            yield index
    except sqlite3.OperationalError as error:
        raise AppError(
            f"expected {path} to be written; received: {error}; make room on the disk, then run "
            "the same command again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"expected an index of scored files; received {path}, which is damaged ({error}); name "
            "another --output"
        ) from error
