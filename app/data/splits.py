"""Three disjoint splits, decided by content, and the weights of classes out of balance."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.core.errors import DataError
from app.core.labels import NEITHER
from app.data.folder_layout import SPLITS, Split
from app.data.manifest import ManifestRow

SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
MAX_RATIO = 3  # the largest class may have so many times the photos of the smallest, unweighted


def assign_splits(rows: Sequence[ManifestRow], *, seed: int) -> list[ManifestRow]:
    """Give every usable photo a split.

    Splits that the user gave stay. Those without a photo of a class are taken from the photos of
    the class without a split, or from ``train``: each photo's SHA-256 with the seed decides, so
    that adding photos moves none of the others. Near-duplicates count as one photo and move
    together, those of another class with them. A class so small that a split, or train, would stay
    empty gives the photo whose number is nearest, one without near-duplicates if there is any.

    Args:
        rows: as ``audit`` judged them, at least five usable photos of each class.
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
    given = defaultdict(set)
    for row in rows:
        if row.verdict == "used":
            given[row.label].add(row.split)
    for label in sorted(given):
        pool = Counter(_content(row) for row in rows if _may_move(row) and row.label == label)
        moved = _divide(pool, [split for split in SPLITS if split not in given[label]], seed)
        rows = [
            replace(row, split=moved.get(_content(row), row.split)) if _may_move(row) else row
            for row in rows
        ]
    used = Counter(row.label for row in rows if row.verdict == "used")
    if untrained := used.keys() - {row.label for row in rows if _trains(row)}:
        label = min(untrained)
        raise DataError(
            f"expected photos of {label} to train on; received {used[label]} usable ones, all in "
            "validation and test (a copy in several splits counts as test, and near-duplicates "
            "stay together); add some to train"
        )
    return rows


def imbalance(labels: Iterable[str]) -> float:
    """Return how many times as many photos the largest class has as the smallest."""
    counts = Counter(labels).values()
    return max(counts) / min(counts)


def class_weights(labels: Iterable[str]) -> dict[str, float] | None:
    """Return what each photo of a class counts in the loss; None where all count the same.

    "Balanced" weights, as scikit-learn has them (King & Zeng 2001): inverse to the number of photos
    of the class, 1 on average over photos. Without them a rare class costs so little that it is
    hardly ever answered.

    Args:
        labels: the class of every training photo.
    """
    counts = Counter(labels)
    if imbalance(counts.elements()) <= MAX_RATIO:
        return None
    photos = counts.total()
    return {label: photos / (len(counts) * counts[label]) for label in sorted(counts)}


def _divide(pool: Counter[str], missing: Sequence[Split], seed: int) -> dict[str, Split]:
    """Return the split of those that leave train; the contents of a class are counted in pool."""
    pool = pool.copy()
    places = {content: _place(content, seed) for content in pool}
    moved: dict[str, Split] = {}
    low = 0.0
    for number, split in enumerate(missing):
        high = low + SHARES[split]
        chosen = [content for content in pool if low <= places[content] < high]
        spare = len(pool) - (len(missing) - number)  # one for each later split, and for train
        if pool and not 0 < len(chosen) <= spare:
            middle = (low + high) / 2
            chosen = [min(pool, key=lambda content: (pool[content], abs(places[content] - middle)))]
        for content in chosen:
            moved[content] = split
            del pool[content]
        low = high
    return moved


def _trains(row: ManifestRow) -> bool:
    return row.verdict == "used" and row.split == "train"


def _may_move(row: ManifestRow) -> bool:
    """Say whether a photo may leave train; one that a person called ``neither`` stays there."""
    return _trains(row) and row.corrected != NEITHER


def _content(row: ManifestRow) -> str:
    """Return what decides where a photo goes: its hash, or that of its near-duplicates."""
    return row.group or row.sha256


def _place(sha256: str, seed: int) -> float:
    """Return a photo's fixed place in [0, 1), uniform over photos."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
