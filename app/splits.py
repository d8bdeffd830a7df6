"""Who trains, who chooses, who is asked once: three disjoint splits, decided by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from app.errors import DataError
from app.files import SPLITS, Split
from app.manifest import ManifestRow

SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


def assign_splits(rows: Sequence[ManifestRow], *, seed: int) -> list[ManifestRow]:
    """Give every usable photo a split.

    Splits that the user gave stay. Those without a photo of a class are taken from the photos of
    the class without a split, or from ``train``: each photo's SHA-256 with the seed decides, so
    that adding photos moves none of the others. A class so small that a split would stay empty
    gives it the photo whose number is nearest.

    Args:
        rows: as ``audit`` judged them, at least ten usable photos of each class.
        seed: another seed gives another division.

    Returns:
        The rows in the same order, each usable one with a split.

    Raises:
        DataError: when a class has no photo to train on.
    """
    rows = [
        replace(row, split="train") if row.verdict == "used" and not row.split else row
        for row in rows
    ]
    for label in sorted({row.label for row in rows if row.verdict == "used"}):
        _divide(rows, label, seed)
    return rows


def _divide(rows: list[ManifestRow], label: str, seed: int) -> None:
    """Move photos of one class from train to the splits that have none of it, in place."""
    used = [n for n, row in enumerate(rows) if row.label == label and row.verdict == "used"]
    given = {rows[number].split for number in used}
    pool = [number for number in used if rows[number].split == "train"]
    places = {number: _place(rows[number].sha256, seed) for number in pool}
    low = 0.0
    for split in (split for split in SPLITS if split not in given):
        high = low + SHARES[split]
        chosen = [number for number in pool if low <= places[number] < high]
        if not chosen and pool:
            middle = (low + high) / 2
            chosen = [min(pool, key=lambda number: abs(places[number] - middle))]
        for number in chosen:
            rows[number] = replace(rows[number], split=split)
        pool = [number for number in pool if number not in set(chosen)]
        low = high
    if not pool:
        raise DataError(
            f"expected photos of {label} to train on; received {len(used)} usable ones, all in "
            "validation and test (a copy in several splits counts as test); add some to train"
        )


def _place(sha256: str, seed: int) -> float:
    """Return a photo's fixed place in [0, 1), uniform over photos."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
