"""Who trains, who chooses, who is asked once: three disjoint splits, decided by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from app.files import SPLITS, Split
from app.manifest import ManifestRow

SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


def assign_splits(rows: Sequence[ManifestRow], *, seed: int) -> list[ManifestRow]:
    """Give every usable photo a split.

    Splits that the user gave stay. Missing ones are taken from the photos without a split, or from
    ``train``: each photo's SHA-256 with the seed decides, class by class, so that adding photos
    moves none of the others. A class so small that a split would stay empty gives it the photo
    whose number is nearest.

    Args:
        rows: as ``audit`` judged them, at least ten usable photos of each class.
        seed: another seed gives another division.

    Returns:
        The rows in the same order, each usable one with a split.
    """
    given = {row.split for row in rows if row.split}
    missing: list[Split] = [s for s in SPLITS if s not in given] if given else list(SPLITS[1:])
    rows = [
        replace(row, split="train") if row.verdict == "used" and not row.split else row
        for row in rows
    ]
    for label in sorted({row.label for row in rows}):
        _divide(rows, label, missing, seed)
    return rows


def _divide(rows: list[ManifestRow], label: str, missing: Sequence[Split], seed: int) -> None:
    """Move photos of one class from train to the missing splits, in place."""
    pool = [
        number
        for number, row in enumerate(rows)
        if row.label == label and row.split == "train" and row.verdict == "used"
    ]
    places = {number: _place(rows[number].sha256, seed) for number in pool}
    low = 0.0
    for split in missing:
        high = low + SHARES[split]
        chosen = [number for number in pool if low <= places[number] < high]
        if not chosen and pool:
            middle = (low + high) / 2
            chosen = [min(pool, key=lambda number: abs(places[number] - middle))]
        for number in chosen:
            rows[number] = replace(rows[number], split=split)
        pool = [number for number in pool if number not in set(chosen)]
        low = high


def _place(sha256: str, seed: int) -> float:
    """Return a photo's fixed place in [0, 1), uniform over photos."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
