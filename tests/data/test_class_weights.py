"""Classes out of balance: when weights begin, and that they are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from app.data.splits import MAX_RATIO, class_weights, imbalance


def labels(**counts: int) -> list[str]:
    return [label for label, count in counts.items() for _ in range(count)]


def test_up_to_one_to_three_nothing_is_weighted() -> None:
    assert MAX_RATIO == 3
    assert class_weights(labels(cat=30, dog=10)) is None
    assert class_weights(labels(cat=30, dog=20, bird=10)) is None
    assert class_weights(labels(cat=31, dog=10)) is not None
    assert class_weights(labels(cat=31, dog=20, bird=10)) is not None


@pytest.mark.parametrize("counts", [{"dog": 90, "cat": 10}, {"cat": 5, "wolf": 17, "dog": 200}])
def test_the_weights_are_the_balanced_ones(counts: dict[str, int]) -> None:
    names = np.array(sorted(counts))
    expected = compute_class_weight("balanced", classes=names, y=labels(**counts))
    weights = class_weights(labels(**counts))
    assert weights is not None
    assert list(weights) == names.tolist()
    np.testing.assert_allclose(list(weights.values()), expected)


def test_the_imbalance_is_that_of_the_largest_and_the_smallest() -> None:
    assert imbalance(labels(cat=12, dog=8, bird=4)) == 3
    assert imbalance(labels(cat=4, dog=4)) == 1
