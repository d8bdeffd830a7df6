"""The manifest: one row for every file of the data folder, with its class, split and verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from app.core.atomic_files import read_rows, write_rows
from app.data.folder_layout import Split

Verdict = Literal["used", "skipped"]

# Why a file is skipped: the code in manifest.csv → what such files have in common.
REASONS = {
    "excluded": "excluded by a list",
    "copy": "a copy of another file",
    "near_duplicate": "nearly the same picture as one in test or validation",
    "several_classes": "the same file lies in several classes",
    "no_class": "its place tells no class",
    "not_a_photo": "not a photo",
    "damaged": "damaged",
    "empty": "empty",
    "unreadable": "cannot be read",
    "too_costly": "too large, or made like a decompression bomb",
    "no_range": "pixels without a known range",
    "": "another reason (the run is of an older version)",
}


@dataclass(frozen=True)
class ManifestRow:
    """What is known about one file.

    Attributes:
        name: path relative to the data folder, with forward slashes.
        label: its class.
        split: train, validation or test; empty when the file is skipped and no split was given.
        sha256: of the file's bytes; empty when it could not be read or was excluded.
        verdict: ``used`` or ``skipped``.
        reason: why it is skipped, or what is odd about a used file; empty otherwise.
        width: in pixels, upright; 0 when unknown.
        height: likewise.
        group: the same for photos that are nearly the same picture, the smallest ``sha256`` among
            them; empty for a photo without near-duplicates.
        code: the kind of reason why it is skipped, one of ``REASONS``; empty for a used file.
    """

    name: str
    label: str
    split: Split | Literal[""]
    sha256: str
    verdict: Verdict
    reason: str = ""
    width: int = 0
    height: int = 0
    group: str = ""
    code: str = ""


def write_manifest(rows: Iterable[ManifestRow], path: Path) -> None:
    """Write the rows as CSV; names that are not valid UTF-8 keep their bytes."""
    write_rows(map(asdict, rows), [field.name for field in fields(ManifestRow)], path)


def read_manifest(path: Path) -> list[ManifestRow]:
    """Read what ``write_manifest`` wrote."""
    return [
        ManifestRow(**{**row, "width": int(row["width"]), "height": int(row["height"])})
        for row in read_rows(path)
    ]
