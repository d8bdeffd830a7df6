"""Which of many unlabelled photos a person should label first.

While labels are few, typical photos teach most: one out of each large cluster, from where photos
lie closest together (TypiClust: Hacohen, Dekel & Weinshall 2022, "Active Learning on a Budget:
Opposite Strategies Suit High and Low Budgets"). Later those teach most about which the classifier
is unsure, and that are unlike each other: k-means++ draws them (Arthur & Vassilvitskii 2007), each
photo weighted by its margin. Drawn from a seed: the same photos give the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from app.evaluation.metrics import Floats
from app.evaluation.ood import Float32s, similarities, unit_length

Ints = NDArray[np.int64]

FEW_LABELS = 5  # of each class: with fewer, typical photos come first (docs/experiments.md)
NEIGHBOURS = 20  # that say how typical a photo is
MOST_CLUSTERS = 500


def label_next(
    embeddings: Float32s,
    labelled: Ints,
    count: int,
    probabilities: Floats | None = None,
    *,
    seed: int = 0,
) -> Ints:
    """Return the photos to label next, those that teach most first.

    Args:
        embeddings: ``(n, channels)`` of all photos, labelled or not, of any length.
        labelled: the numbers of those that have labels; may be empty.
        count: how many are wanted.
        probabilities: ``(n, classes)`` by a classifier that learned from the labels; None while
            these are too few (``FEW_LABELS`` of each class).
        seed: of what is drawn.

    Returns:
        ``(≤ count,)``, numbers of photos without a label, each once.
    """
    count = min(count, len(embeddings) - len(labelled))
    if count <= 0:
        return np.empty(0, np.int64)
    rows = unit_length(embeddings)
    if probabilities is None:
        return _typical(rows, labelled, count, seed)
    return _unsure_and_diverse(rows, labelled, count, probabilities, seed)


def _typical(rows: Float32s, labelled: Ints, count: int, seed: int) -> Ints:
    """Return the most typical photo of each cluster that has no label, the largest cluster first.

    Once every cluster has one, the next most typical of the clusters with the fewest follow.
    """
    distinct = len(np.unique(rows, axis=0))
    clusters = min(len(labelled) + count, MOST_CLUSTERS, distinct)
    of = KMeans(clusters, n_init=1, random_state=seed).fit_predict(rows)
    typicality = _typicality(rows, of)
    sizes, taken = np.bincount(of, minlength=clusters), np.zeros(clusters, np.int64)
    np.add.at(taken, of[labelled], 1)
    free = np.ones(len(rows), bool)
    free[labelled] = False
    waiting = [
        sorted(np.flatnonzero((of == cluster) & free).tolist(), key=lambda n: -typicality[n])
        for cluster in range(clusters)
    ]
    chosen: list[int] = []
    while len(chosen) < count:
        cluster = min(
            (cluster for cluster in range(clusters) if waiting[cluster]),
            key=lambda cluster: (taken[cluster], -sizes[cluster]),
        )
        chosen.append(waiting[cluster].pop(0))
        taken[cluster] += 1
    return np.array(chosen, np.int64)


def _typicality(rows: Float32s, of: NDArray[np.integer[Any]]) -> Floats:
    """Return the mean cosine of each photo to the nearest others of its cluster ``(n,)``."""
    found = np.zeros(len(rows))
    for cluster in np.unique(of):
        members = np.flatnonzero(of == cluster)
        near = min(NEIGHBOURS + 1, len(members))  # itself among them
        parts = similarities(rows[members], rows[members], near)
        found[members] = np.concatenate([top.mean(axis=1) for top in parts])
    return found


def _unsure_and_diverse(
    rows: Float32s, labelled: Ints, count: int, probabilities: Floats, seed: int
) -> Ints:
    """Draw photos, each with a chance that grows with its doubt and its distance to those drawn."""
    random = np.random.default_rng(seed)
    highest = np.sort(probabilities, axis=1)[:, ::-1]
    doubt = 1 - (highest[:, 0] - highest[:, 1])
    distances: Floats = np.full(len(rows), 2.0)
    if len(labelled):
        nearest = similarities(rows, rows[labelled], 1)
        distances = 1 - np.concatenate([top[:, 0] for top in nearest])
    free = np.ones(len(rows), bool)
    free[labelled] = False
    chosen: list[int] = []
    while len(chosen) < count:
        chances = np.where(free, np.maximum(distances, 0) * doubt, 0.0)
        total = chances.sum()
        chances = chances / total if total > 0 else free / free.sum()
        number = int(random.choice(len(rows), p=chances))
        chosen.append(number)
        free[number] = False
        distances = np.minimum(distances, 1 - rows @ rows[number])
    return np.array(chosen, np.int64)
