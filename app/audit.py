"""Before anything else: decode every file, find copies, and say of each why it is used or not."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from app.console import progress_bar
from app.errors import DataError, ImageError
from app.files import LabelledFile, files_below
from app.images import SUFFIXES, decode
from app.manifest import ManifestRow
from app.reading import read_bytes

MIN_PHOTOS = 10  # of each class: with fewer, validation and test would hold none
# Of several copies the one stays that keeps the test set as the user made it.
_SPLIT_ORDER = {"test": 0, "validation": 1, "train": 2, "": 3}


def audit(files: Sequence[LabelledFile]) -> list[ManifestRow]:
    """Decode every file completely, in parallel, and judge it. Nothing on disk is changed.

    Skipped are files that hold no whole photo, all but one copy of the same file within a class,
    and files that lie in two classes at once (one of the labels must be wrong).

    Args:
        files: as ``find_files`` lists them.

    Returns:
        One row for each file, in the same order; ``split`` is what the user gave, or empty.

    Raises:
        DataError: when fewer than two classes, or fewer than ten photos of a class, can be used.
    """
    with progress_bar() as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("Reading photos", total=len(files))
        rows = []
        for row in pool.map(_judge, files):
            rows.append(row)
            bar.advance(task)
    rows = _skip_copies(rows)
    _check_enough(rows)
    return rows


def rows_of_others(root: Path, files: Sequence[LabelledFile]) -> list[ManifestRow]:
    """Return a skipped row for every file below ``root`` whose place tells no class."""
    labelled = {file.name for file in files}
    names = (path.relative_to(root).as_posix() for path in files_below(root))
    return [
        ManifestRow(name, "", "", "", "skipped", "its place tells no class")
        for name in names
        if name not in labelled
    ]


def _judge(file: LabelledFile) -> ManifestRow:
    row = ManifestRow(file.name, file.label, file.split or "", "", "skipped")
    try:
        data = read_bytes(file.path)
        row = replace(row, sha256=hashlib.sha256(data).hexdigest())
        pixels, found = decode(data)
    except ImageError as error:
        return replace(row, reason=str(error))
    expected = SUFFIXES.get(Path(file.name).suffix.lower())
    note = "" if found == expected else f"a {found} file by its content"
    height, width = pixels.shape[:2]
    return replace(row, verdict="used", reason=note, width=width, height=height)


def _skip_copies(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    rows = list(rows)
    copies = defaultdict(list)
    for number, row in enumerate(rows):
        if row.verdict == "used":
            copies[row.sha256].append(number)
    for numbers in copies.values():
        labels = sorted({rows[number].label for number in numbers})
        kept = min(numbers, key=lambda number: (_SPLIT_ORDER[rows[number].split], number))
        for number in numbers:
            if len(labels) > 1:
                reason = f"the same file lies in the classes {' and '.join(labels)}"
            elif number != kept:
                reason = f"a copy of {rows[kept].name}"
            else:
                continue
            rows[number] = replace(rows[number], verdict="skipped", reason=reason)
    return rows


def _check_enough(rows: Sequence[ManifestRow]) -> None:
    counts = {row.label: 0 for row in rows}
    for row in rows:
        counts[row.label] += row.verdict == "used"
    found = ", ".join(f"{label}: {count}" for label, count in sorted(counts.items()))
    if len(counts) < 2:
        raise DataError(
            f"expected photos of two classes or more; received {found or 'no files'}; "
            "put the photos of each class into a folder of its own"
        )
    if min(counts.values()) < MIN_PHOTOS:
        reasons = sorted({row.reason for row in rows if row.verdict == "skipped"})
        why = f" (skipped, for example: {reasons[0]})" if reasons else ""
        raise DataError(
            f"expected at least {MIN_PHOTOS} usable photos of each class; received {found}{why}; "
            "add photos or move the folder that is no class away"
        )
