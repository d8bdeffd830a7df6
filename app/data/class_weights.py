"""Classes out of balance: the weight of each, where the largest would drown the smallest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MAX_RATIO = 3  # the largest class may have so many times the photos of the smallest, unweighted


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
