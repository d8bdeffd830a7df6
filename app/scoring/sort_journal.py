"""The journal of a sort: what goes where, and how far it is. It lies in the target, as SQLite.

It is written before and after each step, so that an interrupted sort can go on or be undone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from app.core.errors import AppError, UsageError

JOURNAL = "sort.sqlite"
LONGEST_ENDING = 50  # bytes; of a name with a longer one the end may be cut
Mode = Literal["copy", "link", "move"]
State = Literal["planned", "begun", "done", "left"]
# `key` is the target as disks compare names that know no case. `names` counts files of one name.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS folders (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS names (key TEXT PRIMARY KEY, files INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS steps (
    id INTEGER PRIMARY KEY,
    source BLOB NOT NULL,
    folder TEXT NOT NULL,
    name BLOB NOT NULL,
    key TEXT UNIQUE,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    state TEXT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_source ON steps (source);
"""


class Step(NamedTuple):
    """One file: from where, into which folder of the target and under which name.

    ``size`` and ``modified`` (ns) are those that the file had when it was answered.
    """

    number: int
    source: Path
    folder: str
    name: str
    size: int
    modified: int

    @property
    def target(self) -> str:
        """Its place below the target."""
        return f"{self.folder}/{self.name}"


class Journal:
    """The journal of one sort; use ``open_journal``. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that the block adds, or nothing of it."""
        with self._db:  # commits, or rolls back what an exception broke off
            self._db.execute("BEGIN EXCLUSIVE")
            yield

    def set(self, **values: str) -> None:
        """Keep settings of the sort."""
        rows = list(values.items())
        self._db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def get(self, name: str) -> str | None:
        """Return a setting; None where there is none."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def clear(self) -> None:
        """Remove a plan that was not agreed to."""
        for table in ("settings", "folders", "names", "steps"):
            self._db.execute(f"DELETE FROM {table}")

    def plan(self, source: bytes, folder: str, size: int, modified: int) -> None:
        """Plan a step; the file gets a name that no other one has in its folder.

        A file that is planned already stays where it was put first.
        """
        known = "SELECT 1 FROM steps WHERE source = ? AND state = 'planned'"
        if self._db.execute(known, (source,)).fetchone():
            return
        own = os.path.basename(os.fsdecode(source))  # noqa: PTH119
        self._db.execute("INSERT OR IGNORE INTO folders VALUES (?)", (folder,))
        first = f"{folder}/{own}".casefold().encode("utf-8", "backslashreplace").decode()
        name, added = own, 0
        while not added:
            (number,) = self._db.execute(
                "INSERT INTO names VALUES (?, 1) ON CONFLICT DO UPDATE SET files = files + 1"
                " RETURNING files",
                (first,),
            ).fetchone()
            if number > 1:
                name = numbered(own, number)
            key = f"{folder}/{name}".casefold().encode("utf-8", "backslashreplace").decode()
            added = self._add(source, folder, name, key, size, modified, "planned", "")

    def leave(self, source: bytes, folder: str, note: str) -> None:
        """Note a file that stays where it is, and why."""
        self._add(source, folder, "", None, 0, 0, "left", note)

    def _add(self, source: bytes, folder: str, name: str, *values: object) -> int:
        return self._db.execute(
            "INSERT OR IGNORE INTO steps (source, folder, name, key, size, modified, state, note)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (source, folder, os.fsencode(name), *values),
        ).rowcount

    def steps(self, *states: State, at_once: int) -> Iterator[list[Step]]:
        """Yield the steps that are in one of these states, some at a time, in their order."""
        marks = ", ".join("?" * len(states))
        last = 0
        while rows := self._db.execute(
            "SELECT id, source, folder, name, size, modified FROM steps"
            f" WHERE state IN ({marks}) AND id > ? ORDER BY id LIMIT ?",
            (*states, last, at_once),
        ).fetchall():
            last = rows[-1][0]
            yield [
                Step(number, Path(os.fsdecode(source)), folder, os.fsdecode(name), *rest)
                for number, source, folder, name, *rest in rows
            ]

    def mark(
        self, steps: Sequence[Step], state: State, notes: dict[int, str] | None = None
    ) -> None:
        """Record the state of steps; those with a note are left."""
        notes = notes or {}
        rows: list[tuple[Any, ...]] = [
            ("left" if step.number in notes else state, notes.get(step.number, ""), step.number)
            for step in steps
        ]
        with self.transaction():
            self._db.executemany("UPDATE steps SET state = ?, note = ? WHERE id = ?", rows)

    def folders(self) -> list[str]:
        """Return the folders of the target."""
        return [name for (name,) in self._db.execute("SELECT name FROM folders ORDER BY name")]

    def totals(self) -> list[tuple[str, int, int, int]]:
        """Return of each folder its files, their bytes, and how many get another name."""
        return list(
            self._db.execute(
                "SELECT folder, count(*), sum(size), sum(key NOT IN (SELECT key FROM names))"
                " FROM steps WHERE state != 'left' GROUP BY folder ORDER BY folder"
            )
        )

    def left(self) -> list[tuple[str, int, bytes]]:
        """Return why files are left, how many for each reason, and the first one."""
        return list(
            self._db.execute(
                "SELECT note, count(*), min(source) FROM steps WHERE state = 'left'"
                " GROUP BY note ORDER BY note"
            )
        )

    def count(self, *states: State) -> int:
        """Return how many steps are in one of these states."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT count(*) FROM steps WHERE state IN ({marks})"
        return int(self._db.execute(query, states).fetchone()[0])


def numbered(name: str, number: int) -> str:
    """Return a name with a number before its ending: ``IMG_1-2.jpg``; at most 255 bytes."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122
    if len(os.fsencode(ending)) > LONGEST_ENDING:
        stem, ending = name, ""
    added = f"-{number}{ending}"
    while len(os.fsencode(stem + added)) > 255:
        stem = stem[:-1]
    return stem + added


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal, or make it; close it at the end.

    Raises:
        UsageError: when it is none, or another process has it.
        AppError: when the disk is full or refuses.
    """
    try:
        with closing(Journal(path)) as journal:
            yield journal
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UsageError(
                f"expected a target that nobody else sorts into; received {path.parent}, which "
                "another process uses; wait for it"
            ) from error
        raise AppError(
            f"expected {path} to be written; received: {error}; make room on the disk, then run "
            "the same command again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"expected the journal of a sort; received {path}, which is damaged ({error})"
        ) from error
