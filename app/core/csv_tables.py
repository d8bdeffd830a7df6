"""CSV files of a run: written whole, read back with whatever bytes file names have."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.atomic_files import open_whole

MARK = "'"  # makes text of what follows, in every spreadsheet


def write_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows below a header, whole or not at all."""
    with open_whole(path) as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(
            {
                name: text_cell(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
            for row in rows
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what ``write_rows`` wrote; every value is text."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return [
        {
            name: value.removeprefix(MARK) if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def text_cell(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula: with ``'`` before ``=``.

    Spreadsheets run what begins with ``= + - @``, a tab or the end of a line. ``'`` itself gets one
    more, so that reading gives back what was written.
    """
    return MARK + text if text.startswith(tuple("=+-@\t\r\n" + MARK)) else text
