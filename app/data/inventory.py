"""The inventory of a data folder: every file decoded and judged, every photo with its split.

The first thing a run does, and all that a person should know of the photos before training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.core.console import listing, percent, say
from app.core.errors import UsageError
from app.core.labels import NEITHER
from app.data.apply_corrections import apply_corrections, mark_test_photos, with_corrected
from app.data.audit import FEW_PHOTOS, check_enough, judge, mark_duplicates, rows_of_others
from app.data.corrections import Corrections
from app.data.folder_layout import SPLITS, FolderReading, LayoutSettings, read_folder
from app.data.folder_names import is_photo_name
from app.data.manifest import ManifestRow, excluded_names
from app.data.splits import MAX_RATIO, SHARES, assign_splits, class_weights, imbalance

SKIPPED_SHOWN = 10  # the manifest lists them all
CLASSES_SHOWN = 10  # of more, only the smallest and the largest number of photos are said
STATED_RATIO = 1.5  # of the classes' photos; in small sets a random split alone can give 1.2
# Reasons of which a line counts the files; of the others each file is named.
_COUNTED = {
    "hidden": "hidden, or in folders of systems and programs",
    "link": "links to folders that are read already, which are not followed",
}


def take_inventory(
    root: Path,
    *,
    data: Path,
    seed: int,
    exclude: Path | None = None,
    exclude_from_test: bool = False,
    corrections: Corrections | None = None,
    layout: LayoutSettings | None = None,
    counts: bool = True,
) -> list[ManifestRow]:
    """Decode every file, give each photo its split, and say what was found.

    Args:
        root: the folder of the photos.
        data: what the user gave for it: the same folder, or an archive.
        seed: of the division into splits.
        exclude: a list of files that are not to be used.
        exclude_from_test: whether the list may name test photos. These stay in the test set, with
            the code ``excluded``, so that test can be scored with and without them.
        corrections: what a person has decided about photos. No photo changes its split for it, but
            for some of a class that would have none in a split. Test photos keep their labels; what
            they are said to show is noted beside it.
        layout: what the user says about the layout.
        counts: whether to say how many photos each split has.

    Returns:
        A row for every file below the folder.

    Raises:
        DataError: when the folder has no layout that gives classes, or too few photos.
        UsageError: when the list cannot be read, names a file that is not there, or names test
            photos and may not.
    """
    reading = read_folder(root, layout or LayoutSettings())
    reading = with_corrected(reading, root, corrections or {})
    _say_reading(reading)
    excluded = _excluded(data, exclude, reading)
    judged = judge(reading.files)
    given = mark_duplicates(judged)
    if excluded or corrections:
        whole = assign_splits(given, seed=seed)
        test = _excluded_test_photos(whole, excluded, allowed=exclude_from_test)
        changed = apply_corrections(judged, whole, corrections or {})
        given = mark_duplicates(changed, {n: why for n, why in excluded.items() if n not in test})
        check_enough(given)
        rows = assign_splits(_as_divided(given, whole), seed=seed)
        rows = [
            replace(row, reason=excluded[row.name], code="excluded") if row.name in test else row
            for row in mark_test_photos(rows, corrections or {})
        ]
    else:
        check_enough(given)
        rows = assign_splits(given, seed=seed)
    _say_near_duplicates(given)
    _say_splits(given, rows)
    rows += rows_of_others(reading.others)
    if counts:
        _say_counts(rows)
    _say_skipped(rows)
    _say_balance(rows)
    _say_few(rows)
    return rows


def _excluded(data: Path, listing: Path | None, reading: FolderReading) -> dict[str, str]:
    """Return the names of files that ``listing`` has, each with its reason."""
    if listing is None:
        return {}
    every = {*reading.others, *(file.name for file in reading.files)}
    names = excluded_names(listing, data, every)
    say(f"{_are(len(names), 'file')} excluded by {listing}")
    return dict.fromkeys(names, f"excluded by {listing.name}")


def _say_reading(reading: FolderReading) -> None:
    """Say how the folder was read, and count what has no label or is nobody's photo."""
    for note in reading.notes:
        say(note)
    photos = [n for n, code in reading.others.items() if code == "no_class" and is_photo_name(n)]
    if photos:
        places = Counter(
            f"{name.partition('/')[0]}/" if "/" in name else "in no folder" for name in photos
        )
        where = listing(f"{place} {count:,}" for place, count in places.most_common())
        say(f"{_are(len(photos), 'photo', ' without a label')} left out ({where})")
    for code, what in _COUNTED.items():
        if count := list(reading.others.values()).count(code):
            say(f"{_are(count, 'file')} left out: {what}")


def _are(count: int, what: str, which: str = "") -> str:
    return f"1 {what}{which} is" if count == 1 else f"{count:,} {what}s{which} are"


def _excluded_test_photos(
    whole: Sequence[ManifestRow], excluded: Mapping[str, str], *, allowed: bool
) -> set[str]:
    """Return the names of the test photos that a list excludes.

    Args:
        whole: all files, divided as if nothing were excluded.
        excluded: names of files, with the reason.
        allowed: whether there may be any.

    Raises:
        UsageError: when there are and may not be.
    """
    test = (row.name for row in whole if row.verdict == "used" and row.split == "test")
    names = [name for name in test if name in excluded]
    if names and not allowed:
        raise UsageError(
            f"expected --exclude to name no test photo; received {len(names)}, the first "
            f"{names[0]!r}; without the photos that a model gets wrong, the test would look better "
            "than the model is: take them out of the list, or add --exclude-from-test, which "
            "gives the scores with and without them"
        )
    if names:
        say(f"{len(names)} of them are test photos: test is scored with and without these")
    return set(names)


def _as_divided(given: Sequence[ManifestRow], whole: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Give photos the split that they have if nothing is excluded or corrected.

    A photo that is used only because another one is excluded goes with its near-duplicates.

    Args:
        given: the rows without the excluded files, their labels corrected.
        whole: all files, divided as if nothing were excluded or corrected.
    """
    used = [row for row in whole if row.verdict == "used"]
    by_name = {row.name: row.split for row in used}
    by_content = {(row.sha256, row.label): row.split for row in used}
    known = [
        replace(
            row,
            split=by_name.get(row.name, by_content.get((row.sha256, row.label), row.split)),
        )
        if row.verdict == "used"
        else row
        for row in given
    ]
    of_group = {
        row.group: row.split for row in known if row.verdict == "used" and row.group and row.split
    }
    return [
        replace(row, split=row.split or of_group.get(row.group, ""))
        if row.verdict == "used"
        else row
        for row in known
    ]


def _say_near_duplicates(judged: Sequence[ManifestRow]) -> None:
    """Say which photos are left out for a near-duplicate, and how many stay beside one."""
    groups = [row for row in judged if row.group]
    used = [row for row in groups if row.verdict == "used"]
    places = {(row.group, row.label): row.split for row in used}
    left_out = Counter(
        (row.split, places[row.group, row.label]) for row in groups if row.verdict == "skipped"
    )
    for (split, other), count in left_out.items():
        are = "photo is" if count == 1 else "photos are"
        say(f"{count} {are} left out of {split}: {other} has nearly the same")
    sizes = Counter(row.group for row in used)
    several = {group: size for group, size in sizes.items() if size > 1}
    if several:
        say(
            f"{sum(several.values())} used photos are nearly the same as others: manifest.csv of "
            "the run names them"
        )
    classes = Counter(group for group, _ in places)
    strange = sum(size for group, size in several.items() if classes[group] > 1)
    if strange:
        say(f"{strange} of them lie in different classes: one of the labels may be wrong")


def _say_splits(judged: list[ManifestRow], rows: list[ManifestRow]) -> None:
    """Say which splits the user's folders give and which photos were moved to make the others."""
    if not any(row.split for row in judged):
        shares = ", ".join(f"{percent(share)} {split}" for split, share in SHARES.items())
        say(f"no splits given: photos are divided by their content into {shares}")
        return
    for split in SPLITS[1:]:
        pairs = zip(judged, rows, strict=True)
        moved = [new.label for old, new in pairs if old.split == "train" and new.split == split]
        if moved:
            say(
                f"{len(moved)} photos of train become {split}, which has none of "
                f"{listing(sorted(set(moved)))}"
            )


def _say_counts(rows: list[ManifestRow]) -> None:
    """Say how many photos each split has."""
    used = [row for row in rows if row.verdict == "used"]
    for split in SPLITS:
        labels = Counter(row.label for row in used if row.split == split)
        strangers = labels.pop(NEITHER, 0)
        beside = f", and {strangers:,} of {NEITHER}" if strangers else ""
        say(f"{split}: {labels.total():,} photos ({_counts(labels)}){beside}")


def _say_skipped(rows: list[ManifestRow]) -> None:
    """Say which files are skipped and why, apart from those that were counted."""
    skipped = [
        row for row in rows if row.verdict == "skipped" and row.code not in (*_COUNTED, "no_class")
    ]
    for row in skipped[:SKIPPED_SHOWN]:
        say(f"skipped {row.name!r}: {row.reason}")
    if len(skipped) > SKIPPED_SHOWN:
        say(
            f"... and {len(skipped) - SKIPPED_SHOWN} more; manifest.csv of the run lists every file"
        )


def _counts(labels: Counter[str]) -> str:
    """Return how many photos each class has; of many classes, only from how many to how many."""
    if len(labels) <= CLASSES_SHOWN:
        return listing(f"{label} {labels[label]:,}" for label in sorted(labels))
    low, high = min(labels.values()), max(labels.values())
    each = f"{low:,} to {high:,}" if low < high else f"{low:,}"
    return f"{len(labels):,} classes, {each} photos each"


def _say_few(rows: Sequence[ManifestRow]) -> None:
    """Say what to expect where a class has few photos."""
    counts = Counter(row.label for row in rows if row.verdict == "used" and row.label != NEITHER)
    few = [label for label, count in counts.items() if count < FEW_PHOTOS]
    if few:
        say(
            f"{len(few)} of {len(counts)} classes have fewer than {FEW_PHOTOS} photos: they train, "
            "but validation and test hold one photo or two of them, so go by the cross-validated "
            "figures, and expect clearly better answers from 20 photos and more"
        )


def _say_balance(rows: Sequence[ManifestRow]) -> None:
    """Say how far the classes are out of balance, and the weights that meet it."""
    train = [row for row in rows if row.verdict == "used" and row.split == "train"]
    labels = [row.label for row in train if row.label != NEITHER]
    ratio, weights = imbalance(labels), class_weights(labels)
    if weights:
        each = listing(f"{label} {weight:.2f}" for label, weight in weights.items())
        say(f"classes out of balance, {ratio:.1f} to 1: training weighs them, {each}")
    elif ratio > STATED_RATIO:
        say(f"classes out of balance, {ratio:.1f} to 1: not weighted up to {MAX_RATIO} to 1")
