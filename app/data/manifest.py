"""The manifest: one row for every file of the data folder, with its class, split and verdict.

The rows that are used become ``Photo``s; ``--exclude FILE`` lists rows that are not to be used.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

from app.core.atomic_files import read_rows, write_rows
from app.core.errors import UsageError
from app.core.labels import NEITHER
from app.core.text_file import Row, read_text_file, row_readings, table_rows
from app.data.folder_layout import Split

Verdict = Literal["used", "skipped"]

# Why a file is skipped: the code in manifest.csv → what such files have in common.
REASONS = {
    "excluded": "excluded by a list",
    "left_out": "left out by a correction",
    "copy": "a copy of another file",
    "near_duplicate": "nearly the same picture as one in test or validation",
    "several_classes": "the same file lies in several classes",
    "no_class": "no folder, name or table gives its class",
    "hidden": "hidden, or in a folder of a system or a program",
    "link": "a link to a folder that is read already",
    "not_a_photo": "not a photo",
    "not_read": "a picture of a kind that is not read",
    "damaged": "damaged",
    "empty": "empty",
    "unreadable": "cannot be read",
    "too_costly": "too large, or made like a decompression bomb",
    "no_range": "pixels without a known range",
    "": "another reason (the run is of an older version)",
}


@dataclass(frozen=True)
class ManifestRow:
    """What is known about one file."""

    name: str  # path relative to the data folder, or whole, with forward slashes
    label: str  # its class, or ``neither``
    split: Split | Literal[""]  # empty when the file is skipped and no split was given
    sha256: str  # of the file's bytes; empty when it could not be read
    verdict: Verdict
    reason: str = ""  # why it is skipped, or what is odd about a used file; else empty
    width: int = 0  # in pixels, upright; 0 when unknown
    height: int = 0
    # The smallest sha256 among photos that are nearly the same picture; empty for one without any.
    group: str = ""
    # The kind of reason why it is skipped, one of REASONS; empty for a used file, but for a test
    # photo that a list excludes or a correction leaves out: it is used, and test is scored without
    # it as well.
    code: str = ""
    kind: str = ""  # what a photo of none of the classes shows, if its folder says so: ``fox``
    # Where a person has given it another label (``--corrections``): that label, and the one that
    # its place or a table gives. ``label`` is the corrected one, of test photos the given one: test
    # is scored with both.
    corrected: str = ""
    given: str = ""


@dataclass(frozen=True)
class Photo:
    """A usable photo of one split."""

    path: Path
    name: str  # as in the manifest
    content: str  # SHA-256 of the file's bytes, hexadecimal
    target: int  # the number of its class, in the order of the sorted class names; -1: of none
    group: str = ""  # of its near-duplicates, as in the manifest


class NeitherPhoto(NamedTuple):
    """A usable photo of one split that shows none of the classes."""

    photo: Photo  # with target -1
    kind: str  # the name of the first folder below ``neither/``, or empty


Photos = Mapping[Split, Sequence[Photo]]


def write_manifest(rows: Iterable[ManifestRow], path: Path) -> None:
    """Write the rows as CSV; names that are not valid UTF-8 keep their bytes."""
    write_rows(map(asdict, rows), [field.name for field in fields(ManifestRow)], path)


def read_manifest(path: Path) -> list[ManifestRow]:
    """Read what ``write_manifest`` wrote."""
    return [
        ManifestRow(**{**row, "width": int(row["width"]), "height": int(row["height"])})
        for row in read_rows(path)
    ]


def class_names(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """Return the classes that have usable photos, sorted; ``neither`` is no class."""
    return tuple(sorted({row.label for row in rows if row.verdict == "used"} - {NEITHER}))


def photos_of(rows: Sequence[ManifestRow], split: Split, root: Path) -> list[Photo]:
    """Return the usable photos of the classes in one split, in the manifest's order."""
    numbers = {name: number for number, name in enumerate(class_names(rows))}
    return [
        Photo(root / row.name, row.name, row.sha256, numbers[row.label], row.group)
        for row in rows
        if row.verdict == "used" and row.split == split and row.label != NEITHER
    ]


def neither_photos_of(rows: Sequence[ManifestRow], split: Split, root: Path) -> list[NeitherPhoto]:
    """Return one split's usable photos of none of the classes, in the manifest's order."""
    return [
        NeitherPhoto(Photo(root / row.name, row.name, row.sha256, -1), row.kind)
        for row in rows
        if row.verdict == "used" and row.split == split and row.label == NEITHER
    ]


def training_photos_before_corrections(rows: Sequence[ManifestRow], root: Path) -> list[Photo]:
    """Return the training photos as they were before corrections, with the labels given.

    Those of a class that no photo has any more are not among them.
    """
    numbers = {name: number for number, name in enumerate(class_names(rows))}
    return [
        Photo(root / row.name, row.name, row.sha256, numbers[row.given or row.label], row.group)
        for row in rows
        if row.split == "train"
        and (row.verdict == "used" or row.code == "left_out")
        and (row.given or row.label) in numbers
    ]


def corrected_test_photos(rows: Sequence[ManifestRow], classes: Sequence[str]) -> dict[str, int]:
    """Return what a person said of test photos: name → number of the class, -1: of none of them."""
    numbers = {name: number for number, name in enumerate(classes)}
    return {
        row.name: numbers.get(row.corrected, -1)
        for row in rows
        if row.verdict == "used"
        and row.split == "test"
        and row.label != NEITHER
        and (row.corrected not in ("", row.label) or row.code == "left_out")
    }


def excluded_names(listing: Path, data: Path, names: Collection[str]) -> set[str]:
    """Read a list of files that are not to be trained on.

    One a line, by the name that ``manifest.csv`` and ``audit.csv`` have, or by a path that leads
    into the data folder. Lines of these tables may stay whole: the first cell counts. Blank lines,
    comments (``#``) and the tables' header are passed over, unless a file is called like that.

    Args:
        listing: text (``app.core.text_file``).
        data: the data folder, as the user gave it.
        names: of all files below it.

    Returns:
        Those of ``names`` that are listed.

    Raises:
        UsageError: when the list cannot be read, or a line of it names no file of the folder.
    """
    known, found, strange = frozenset(names), set(), []
    text = read_text_file(listing, "--exclude to be a list of files, one a line")
    for row in table_rows(text):
        name = next((name for name in _readings(row, data) if name in known), None)
        if name is not None:
            found.add(name)
        elif not (row.line.startswith("#") or row.is_header()):
            strange.append(row)
    if strange:
        row = strange[0]
        more = f", and {len(strange) - 1} more such lines" if len(strange) > 1 else ""
        raise UsageError(
            f"expected files of {data} in {listing}; received {row.cells[0]!r} on line "
            f"{row.number}{more}; write one name a line, as manifest.csv has it"
        )
    return found


def _readings(row: Row, data: Path) -> Iterator[str]:
    """Yield the names below the data folder that a row may mean: as it stands, or as a path."""
    folders = (os.path.abspath(data), os.path.realpath(data))  # noqa: PTH100
    for text in row_readings(row):
        yield text
        yield Path(text).as_posix()  # ./cat/1.jpg
        path = Path(os.path.abspath(text))  # noqa: PTH100  (without .., and links stay)
        for folder in folders:
            if path.is_relative_to(folder):
                yield path.relative_to(folder).as_posix()
