"""Photos that are used: where each lies, what it holds, which class it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.data.folder_layout import Split
from app.data.manifest import ManifestRow


@dataclass(frozen=True)
class Photo:
    """A usable photo of one split.

    Attributes:
        path: where it lies.
        name: as in the manifest.
        content: SHA-256 of the file's bytes, hexadecimal.
        target: the number of its class, in the order of the sorted class names.
    """

    path: Path
    name: str
    content: str
    target: int


Photos = Mapping[Split, Sequence[Photo]]


def class_names(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """Return the classes that have usable photos, sorted."""
    return tuple(sorted({row.label for row in rows if row.verdict == "used"}))


def photos_of(rows: Sequence[ManifestRow], split: Split, root: Path) -> list[Photo]:
    """Return the usable photos of one split, in the manifest's order."""
    numbers = {name: number for number, name in enumerate(class_names(rows))}
    return [
        Photo(root / row.name, row.name, row.sha256, numbers[row.label])
        for row in rows
        if row.verdict == "used" and row.split == split
    ]
