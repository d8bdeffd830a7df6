"""The audit: decode every file, find copies, and give each a verdict and the reason for it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from app.core.console import listing, progress_bar
from app.core.environment import usable_cores
from app.core.errors import DataError, ImageError
from app.core.labels import NEITHER
from app.data.decode import SUFFIXES, decode
from app.data.folder_layout import ENOUGH, LabelledFile
from app.data.manifest import REASONS, ManifestRow
from app.data.near_duplicates import Fingerprint, fingerprint, near_duplicates
from app.data.photo_file import read_bytes

MIN_PHOTOS = ENOUGH  # of each class: three to train on, one each for validation and test
FEW_PHOTOS = 10  # with fewer of a class a line says what to expect; of neither so many are needed
COUNTS_SHOWN = 10  # of classes, in a message
# Of several copies the one stays that keeps the test set as the user made it.
_SPLIT_ORDER = {"test": 0, "validation": 1, "train": 2, "": 3}


Judged = Sequence[tuple[ManifestRow, Fingerprint | None]]


def audit(files: Sequence[LabelledFile]) -> list[ManifestRow]:
    """Decode and judge every file: ``judge`` and then ``mark_duplicates``.

    Raises:
        DataError: as ``check_enough``.
    """
    rows = mark_duplicates(judge(files))
    check_enough(rows)
    return rows


def judge(files: Sequence[LabelledFile]) -> Judged:
    """Decode every file completely, in parallel. Nothing on disk is changed.

    Args:
        files: as ``find_files`` lists them.

    Returns:
        For each file, in the same order, its row, skipped where it holds no whole photo, and the
        fingerprint of its picture; ``split`` is what the user gave, or empty.
    """
    judged = []
    with progress_bar() as bar, ThreadPoolExecutor(usable_cores()) as pool:
        task = bar.add_task("Reading photos", total=len(files))
        for result in pool.map(_judge, files):
            judged.append(result)
            bar.advance(task)
    return judged


def mark_duplicates(judged: Judged, excluded: Mapping[str, str] | None = None) -> list[ManifestRow]:
    """Leave out copies and near-duplicates, and what a list excludes.

    Skipped are all but one copy of the same file within a class, files that lie in two classes (one
    of the labels must be wrong), and near-duplicates of a photo of the class in the user's own test
    or validation part. Other near-duplicates are used, noted, and in one ``group``.

    Args:
        judged: as ``judge`` returns them.
        excluded: names of files that are treated as if they were not there, with the reason.

    Returns:
        One row for each file, in the same order.
    """
    excluded = excluded or {}
    rows = [
        replace(row, verdict="skipped", reason=excluded[row.name], code="excluded")
        if row.name in excluded
        else row
        for row, _ in judged
    ]
    return _mark_near_duplicates(_skip_copies(rows), [print_ for _, print_ in judged])


def rows_of_others(others: Mapping[str, str]) -> list[ManifestRow]:
    """Return a skipped row for every file without a label.

    Args:
        others: the files' names with the codes of the reasons, as ``read_folder`` gives them.
    """
    return [
        ManifestRow(name, "", "", "", "skipped", REASONS[code], code=code)
        for name, code in others.items()
    ]


def _judge(file: LabelledFile) -> tuple[ManifestRow, Fingerprint | None]:
    row = ManifestRow(file.name, file.label, file.split or "", "", "skipped", kind=file.kind)
    try:
        data = read_bytes(file.path)
        row = replace(row, sha256=hashlib.sha256(data).hexdigest())
        pixels, found = decode(data)
    except ImageError as error:
        return replace(row, reason=str(error), code=error.code), None
    expected = SUFFIXES.get(Path(file.name).suffix.lower())
    note = "" if found == expected else f"a {found} file by its content"
    height, width = pixels.shape[:2]
    row = replace(row, verdict="used", reason=note, width=width, height=height)
    return row, fingerprint(pixels)


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
                code = "several_classes"
                reason = f"the same file lies in the classes {' and '.join(labels)}"
            elif number != kept:
                code, reason = "copy", f"a copy of {rows[kept].name}"
            else:
                continue
            rows[number] = replace(rows[number], verdict="skipped", reason=reason, code=code)
    return rows


def _mark_near_duplicates(
    rows: Sequence[ManifestRow], prints: Sequence[Fingerprint | None]
) -> list[ManifestRow]:
    rows = list(rows)
    known = {n: p for n, p in enumerate(prints) if p is not None and rows[n].verdict == "used"}
    numbers = list(known)
    for found in near_duplicates(list(known.values())):
        group = [numbers[place] for place in found]
        name = min(rows[number].sha256 for number in group)
        kept: dict[str, ManifestRow] = {}  # of each class
        for number in sorted(group, key=lambda number: _SPLIT_ORDER[rows[number].split]):
            kept.setdefault(rows[number].label, rows[number])
        left = [n for n in group if rows[n].split == kept[rows[n].label].split]
        for number in group:
            row = replace(rows[number], group=name)
            others = [rows[other] for other in left if other != number]
            if number not in left:
                reason = f"nearly the same picture as {kept[row.label].name}"
                row = replace(row, verdict="skipped", reason=reason, code="near_duplicate")
            elif others:
                other = min(others, key=lambda other: other.label == row.label)
                note = f"nearly the same picture as {other.name}"
                if other.label != row.label:
                    note += f", which lies in the class {other.label}"
                row = replace(row, reason="; ".join(filter(None, (row.reason, note))))
            rows[number] = row
    return rows


def check_enough(rows: Sequence[ManifestRow]) -> None:
    """Raise ``DataError`` for fewer than two classes, or fewer than five usable photos of one.

    Of photos of none of the classes there may be none, or ten and more.
    """
    counts = Counter({row.label: 0 for row in rows})
    for row in rows:
        counts[row.label] += row.verdict == "used"
    few = len(counts) > COUNTS_SHOWN  # of many classes, the smallest ones
    shown = sorted(counts.items(), key=lambda pair: (pair[1], pair[0]) if few else (0, pair[0]))
    found = listing((f"{label}: {count}" for label, count in shown), COUNTS_SHOWN)
    if len(counts.keys() - {NEITHER}) < 2:
        raise DataError(
            f"expected photos of two classes or more; received {found or 'no files'}; "
            "put the photos of each class into a folder of its own"
        )
    lacking = counts.get(NEITHER, FEW_PHOTOS) < FEW_PHOTOS
    if lacking or min(counts.values()) < MIN_PHOTOS:
        needed = f"at least {MIN_PHOTOS} usable photos of each class"
        if lacking:
            needed = f"at least {FEW_PHOTOS} usable photos of {NEITHER}"
        reasons = sorted({row.reason for row in rows if row.verdict == "skipped"})
        why = f" (skipped, for example: {reasons[0]})" if reasons else ""
        raise DataError(
            f"expected {needed}; received {found}{why}; "
            "add photos or move the folder that is no class away"
        )
