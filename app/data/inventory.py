"""The inventory of a data folder: every file decoded and judged, every photo with its split.

The first thing a run does, and all that a person should know of the photos before training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app.core.console import say
from app.data.audit import audit, rows_of_others
from app.data.folder_layout import SPLITS, LabelledFile, files_below, find_files
from app.data.manifest import ManifestRow, excluded_names
from app.data.splits import MAX_RATIO, SHARES, assign_splits, class_weights, imbalance

SKIPPED_SHOWN = 10  # the manifest lists them all
STATED_RATIO = 1.5  # of the classes' photos; in small sets a random split alone can give 1.2


def take_inventory(
    root: Path, *, data: Path, seed: int, exclude: Path | None = None
) -> list[ManifestRow]:
    """Decode every file, give each photo its split, and say what was found.

    Args:
        root: the folder of the photos.
        data: what the user gave for it: the same folder, or an archive.
        seed: of the division into splits.
        exclude: a list of files that are not to be used.

    Raises:
        DataError: when the folder has no layout that gives classes, or too few photos.
        UsageError: when the list cannot be read, or names a file that is not there.
    """
    files = find_files(root)
    judged = audit(files, _excluded(root, data, exclude, files))
    _say_near_duplicates(judged)
    rows = assign_splits(judged, seed=seed)
    _say_splits(judged, rows)
    rows += rows_of_others(root, files)
    _say_counts(rows)
    _say_balance(rows)
    return rows


def _excluded(
    root: Path, data: Path, listing: Path | None, files: Sequence[LabelledFile]
) -> dict[str, str]:
    """Return the names of files that ``listing`` has, each with its reason."""
    if listing is None:
        return {}
    others = (path.relative_to(root).as_posix() for path in files_below(root))
    names = excluded_names(listing, data, {*others, *(file.name for file in files)})
    say(f"{len(names)} files are excluded by {listing}")
    return dict.fromkeys(names, f"excluded by {listing.name}")


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
        say(f"{sum(several.values())} used photos are nearly the same as others: see manifest.csv")
    classes = Counter(group for group, _ in places)
    strange = sum(size for group, size in several.items() if classes[group] > 1)
    if strange:
        say(f"{strange} of them lie in different classes: one of the labels may be wrong")


def _say_splits(judged: list[ManifestRow], rows: list[ManifestRow]) -> None:
    """Say which splits the user's folders give and which photos were moved to make the others."""
    if not any(row.split for row in judged):
        shares = ", ".join(f"{share:.0%} {split}" for split, share in SHARES.items())
        say(f"no splits given: photos are divided by their content into {shares}")
        return
    for split in SPLITS[1:]:
        pairs = zip(judged, rows, strict=True)
        moved = [new.label for old, new in pairs if old.split == "train" and new.split == split]
        if moved:
            say(
                f"{len(moved)} photos of train become {split}, which has none of "
                f"{', '.join(sorted(set(moved)))}"
            )


def _say_counts(rows: list[ManifestRow]) -> None:
    """Say how many photos each split has, and what is skipped and why."""
    used = [row for row in rows if row.verdict == "used"]
    for split in SPLITS:
        labels = [row.label for row in used if row.split == split]
        counts = ", ".join(f"{label} {labels.count(label)}" for label in sorted(set(labels)))
        say(f"{split}: {len(labels)} photos ({counts})")
    skipped = [row for row in rows if row.verdict == "skipped"]
    for row in skipped[:SKIPPED_SHOWN]:
        say(f"skipped {row.name!r}: {row.reason}")
    if len(skipped) > SKIPPED_SHOWN:
        say(f"... and {len(skipped) - SKIPPED_SHOWN} more; manifest.csv lists every file")


def _say_balance(rows: Sequence[ManifestRow]) -> None:
    """Say how far the classes are out of balance, and the weights that meet it."""
    labels = [row.label for row in rows if row.verdict == "used" and row.split == "train"]
    ratio, weights = imbalance(labels), class_weights(labels)
    if weights:
        each = ", ".join(f"{label} {weight:.2f}" for label, weight in weights.items())
        say(f"classes out of balance, {ratio:.1f} to 1: training weighs them, {each}")
    elif ratio > STATED_RATIO:
        say(f"classes out of balance, {ratio:.1f} to 1: not weighted up to {MAX_RATIO} to 1")
