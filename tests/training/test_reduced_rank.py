"""Many classes in few shared directions: as good as without a limit where these are enough."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.training.reduced_rank import ReducedRankRegression, in_two_steps, shared_directions

CLASSES, INSIDE, FEATURES = 30, 5, 40


@pytest.fixture(scope="module")
def photos() -> tuple[np.ndarray, np.ndarray]:
    """Classes that differ in 5 directions; what varies most tells nothing."""
    generator = np.random.default_rng(0)
    targets = np.arange(600) % CLASSES
    means = generator.normal(size=(CLASSES, INSIDE))
    x = 0.3 * generator.normal(size=(600, FEATURES))
    x[:, :INSIDE] += means[targets]
    x[:, -10:] *= 20
    turned = np.linalg.qr(generator.normal(size=(FEATURES, FEATURES)))[0]
    return x @ turned, targets


class FewDirections(ReducedRankRegression):
    rank = INSIDE


def test_shared_directions_are_those_that_tell_classes_apart(photos):
    x, targets = photos
    directions = shared_directions(x, targets, INSIDE)
    np.testing.assert_allclose(directions.T @ directions, np.eye(INSIDE), atol=1e-10)
    full = LogisticRegression(C=1.0, max_iter=1000).fit(x[:300], targets[:300])
    few = FewDirections(C=1.0, max_iter=1000).fit(x[:300], targets[:300])
    right, right_of_few = (each.score(x[300:], targets[300:]) for each in (full, few))
    assert np.linalg.matrix_rank(few.coef_, tol=1e-5) == INSIDE
    assert right_of_few >= right > 0.7


def test_a_second_fit_begins_from_the_first_and_ends_where_a_fresh_one_does(photos):
    x, targets = photos
    again = FewDirections(C=0.1, max_iter=1000, warm_start=True).fit(x, targets)
    again.set_params(C=1.0).fit(x, targets)
    fresh = FewDirections(C=1.0, max_iter=1000).fit(x, targets)
    np.testing.assert_allclose(again.predict_proba(x), fresh.predict_proba(x), atol=0.01)


def test_coefficients_of_low_rank_are_a_product_of_two():
    generator = np.random.default_rng(1)
    coefficients = generator.normal(size=(20, 3)) @ generator.normal(size=(3, 9))
    first, then = in_two_steps(coefficients, 4)
    assert first.shape == (20, 4)
    assert then.shape == (4, 9)
    np.testing.assert_allclose(first @ then, coefficients, atol=1e-9)
