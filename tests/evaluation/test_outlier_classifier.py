"""What was shown as ``neither`` is refused, near strangers too, and photos of the classes are not.

Embeddings are drawn: known photos, near strangers that differ from them in two channels of 32, far
ones whose channels are others.
"""

from __future__ import annotations

import numpy as np
import pytest

from app.evaluation.ood import KnnOodDetector, fit_ood_detector, unit_length
from app.evaluation.outlier_classifier import fit_outlier_classifier, out_of_fold_logits

CHANNELS = 32


def photos(n: int, seed: int, kind: str = "known") -> np.ndarray:
    generator = np.random.default_rng([seed, len(kind)])
    rows = generator.gamma(1, 0.3, (n, CHANNELS))
    strong = slice(16, 32) if kind == "far" else slice(0, 16)
    rows[:, strong] += generator.gamma(4, 0.5, (n, 16))
    if kind == "near":
        rows[:, 20:22] += 1.5
    return rows.astype(np.float32)


def refused(detector: KnnOodDetector, rows: np.ndarray) -> float:
    return float((detector.novelty([rows]) > 0.5).mean())


@pytest.fixture(scope="module")
def validation() -> np.ndarray:
    return photos(400, 1)


@pytest.fixture(scope="module")
def taught(validation) -> KnnOodDetector:
    shown = np.concatenate([photos(10, 2, "near"), photos(60, 2, "far")])
    return fit_ood_detector(photos(400, 0), [validation], shown)


@pytest.fixture(scope="module")
def untaught(validation) -> KnnOodDetector:
    return fit_ood_detector(photos(400, 0), [validation])


def test_ten_photos_of_near_strangers_are_enough_to_refuse_others(taught, untaught):
    near, far = photos(400, 3, "near"), photos(400, 3, "far")
    assert refused(untaught, near) < 0.4
    assert refused(taught, near) > 0.9
    assert refused(untaught, far) == refused(taught, far) == 1


def test_what_was_never_shown_is_refused_by_its_distance(validation):
    only_near = fit_ood_detector(photos(400, 0), [validation], photos(20, 2, "near"))
    assert refused(only_near, photos(400, 3, "far")) > 0.98


def test_both_together_refuse_two_percent_of_validation(taught, untaught, validation):
    for detector in (taught, untaught):
        assert (detector.novelty([validation]) > 0.5).sum() == 8
    assert (taught.distances([validation]) > taught.threshold).sum() == 6
    assert refused(taught, photos(4000, 4)) == pytest.approx(0.02, abs=0.015)
    middle = np.median(taught.novelty([validation]))
    assert 0.05 <= middle < 0.12  # the larger one of two, each with 0.05 in its middle


def test_without_such_photos_the_detector_is_what_it_was(untaught, validation):
    train = photos(400, 0)
    none = fit_ood_detector(train, [validation], np.empty((0, CHANNELS), np.float32))
    for detector in (none, untaught):
        distances = detector.distances([validation])
        assert detector.outliers is None
        assert detector.threshold == np.quantile(distances, 0.98)
        spread = detector.threshold - np.median(distances)
        assert detector.scale == pytest.approx(spread / np.log(19), rel=1e-6)


def test_few_validation_photos_do_not_refuse_their_own_kind():
    """Training photos help out, each judged by a classifier that did not see it.

    What was shown is like them here: a photo that was seen then looks more known than it is.
    """
    shares = []
    for seed in range(5):
        shown = photos(40, 300 + seed)
        small = fit_ood_detector(photos(80, seed), [photos(10, 100 + seed)], shown)
        shares.append(refused(small, photos(200, 200 + seed)))
    assert np.mean(shares) < 0.03


def test_out_of_fold_logits_are_those_of_photos_not_seen():
    """Of pure noise, photos that were seen are told from the outliers and others are not."""
    noise = np.random.default_rng(0).normal(size=(60, CHANNELS)).astype(np.float32)
    known, outliers = unit_length(noise[:40]), unit_length(noise[40:])
    seen = fit_outlier_classifier(known, outliers).logits(known)
    left_out = out_of_fold_logits(known, outliers)
    assert (seen < 0).mean() > 0.95
    assert (left_out < 0).mean() < 0.85


def test_one_photo_of_neither_and_photos_that_are_all_alike_give_numbers(validation):
    one = fit_ood_detector(photos(40, 0), [validation[:5]], photos(1, 2, "far"))
    assert np.isfinite(one.novelty([validation])).all()
    same = np.ones((6, CHANNELS), np.float32)
    alike = fit_ood_detector(same, [same], same[:2])
    np.testing.assert_allclose(alike.novelty([same]), 0.5, atol=0.01)


def test_views_are_averaged(taught):
    """An unsure view and a sure one are together as sure as their mean."""
    one, other = photos(5, 5), photos(5, 6, "near")
    logits = [taught.outliers.logits(unit_length(view)) for view in (one, other)]
    novelty = taught.novelty([one, other])
    expected = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    learned = expected > 0.5
    assert learned.any()
    np.testing.assert_allclose(novelty[learned], expected[learned], rtol=1e-4)
