"""CSV files of a run: written whole, read back with whatever bytes file names have."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.atomic_files import open_whole
from app.core.sanitise import for_csv, from_csv


def write_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows below a header, whole or not at all; all text is in quotes."""
    with open_whole(path) as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(map(for_csv, columns))
        writer.writerows([_cell(row[name]) for name in columns] for row in rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what ``write_rows`` wrote; every value is text."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return [{_text(name): _text(value) for name, value in row.items()} for row in rows]


def _cell(value: Any) -> Any:
    return for_csv(value) if isinstance(value, str) else value


def _text(value: Any) -> Any:
    """Return a cell's text; rows that are too short or too long have other values."""
    return from_csv(value) if isinstance(value, str) else value
