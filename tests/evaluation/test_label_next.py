"""Which photo to label next: typical ones while labels are few, then doubtful and diverse ones."""

from __future__ import annotations

import numpy as np
import pytest

from app.evaluation.label_next import label_next

NONE = np.empty(0, np.int64)


def clusters(sizes: list[int], spread: float = 0.05, seed: int = 0) -> np.ndarray:
    """Return photos around directions that are at right angles, cluster by cluster."""
    random = np.random.default_rng(seed)
    rows = []
    for number, size in enumerate(sizes):
        centre = np.zeros(16)
        centre[number] = 1
        rows.append(centre + random.normal(0, spread, (size, 16)))
    return np.concatenate(rows).astype(np.float32)


def test_one_typical_photo_of_each_cluster_comes_first_the_largest_first():
    rows = clusters([40, 20, 30])
    of = np.repeat([0, 1, 2], [40, 20, 30])
    chosen = label_next(rows, NONE, 3)
    assert of[chosen].tolist() == [0, 2, 1]
    for number in chosen:  # it lies nearer to the middle than most of its cluster
        members = np.flatnonzero(of == of[number])
        middle = rows[members].mean(axis=0)
        distances = np.linalg.norm(rows[members] - middle, axis=1)
        assert np.linalg.norm(rows[number] - middle) < np.median(distances)


def test_a_cluster_that_has_a_label_waits():
    rows = clusters([40, 20, 30])
    chosen = label_next(rows, np.array([0]), 2)  # three clusters, the first has one
    assert sorted(np.repeat([0, 1, 2], [40, 20, 30])[chosen].tolist()) == [1, 2]


def test_doubtful_photos_are_drawn_and_no_two_that_are_alike():
    rows = clusters([50, 50, 50], spread=0.01)
    probabilities = np.tile([1.0, 0.0], (150, 1))
    probabilities[50:] = [0.5, 0.5]  # the first cluster is known
    for seed in range(10):
        chosen = label_next(rows, np.array([0]), 2, probabilities, seed=seed)
        assert sorted((chosen // 50).tolist()) == [1, 2]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_each_photo_is_asked_for_once_and_no_labelled_one(given, count):
    rows = clusters([10, 10])
    rows[3] = rows[4] = rows[5]  # copies
    labelled = np.array([0, 11, 12])
    probabilities = np.full((20, 2), 0.5) if given else None
    chosen = label_next(rows, labelled, count, probabilities)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, 17)
    assert not set(chosen.tolist()) & set(labelled.tolist())
    assert chosen.tolist() == label_next(rows, labelled, count, probabilities).tolist()


def test_nothing_is_left_to_ask_for():
    assert label_next(clusters([3]), np.arange(3), 5).tolist() == []


def test_photos_of_which_nothing_is_in_doubt_are_drawn_all_the_same():
    probabilities = np.tile([1.0, 0.0], (9, 1))
    assert len(label_next(clusters([9]), NONE, 4, probabilities)) == 4
