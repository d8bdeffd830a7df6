"""The manifest: one row for every file of the data folder, with its class, split and verdict."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from app.atomic import open_whole
from app.files import Split

Verdict = Literal["used", "skipped"]


@dataclass(frozen=True)
class ManifestRow:
    """What is known about one file.

    Attributes:
        name: path relative to the data folder, with forward slashes.
        label: its class.
        split: train, validation or test; empty when the file is skipped and no split was given.
        sha256: of the file's bytes; empty when it could not be read.
        verdict: ``used`` or ``skipped``.
        reason: why it is skipped, or what is odd about a used file; empty otherwise.
        width: in pixels, upright; 0 when unknown.
        height: likewise.
    """

    name: str
    label: str
    split: Split | Literal[""]
    sha256: str
    verdict: Verdict
    reason: str = ""
    width: int = 0
    height: int = 0


def write_manifest(rows: Iterable[ManifestRow], path: Path) -> None:
    """Write the rows as CSV; names that are not valid UTF-8 keep their bytes."""
    with open_whole(path) as file:
        writer = csv.DictWriter(file, [field.name for field in fields(ManifestRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_manifest(path: Path) -> list[ManifestRow]:
    """Read what ``write_manifest`` wrote."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: Iterable[dict[str, Any]] = csv.DictReader(file)
        return [
            ManifestRow(**{**row, "width": int(row["width"]), "height": int(row["height"])})
            for row in rows
        ]
