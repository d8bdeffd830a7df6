"""Scores against cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from app.evaluation.metrics import (
    brier_score,
    calibration_bias,
    expected_calibration_error,
    probabilities_of,
    reliability_bins,
    score,
)

TARGETS = np.array([0, 0, 1, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.5, 0.5]])
# Answers: 0, 1, 1, 1, 0 (of equals the first). Right: the first, third and fourth.


def certain(answers: list[int], classes: int, confidence: float = 1.0) -> np.ndarray:
    rest = (1 - confidence) / (classes - 1)
    return np.where(np.eye(classes, dtype=bool)[answers], confidence, rest)


def test_two_classes_by_hand() -> None:
    scores = score(TARGETS, PROBABILITIES)
    assert scores.n == 5
    assert scores.accuracy == 3 / 5
    assert scores.confusion == [[1, 1], [1, 2]]
    expected = -sum(map(math.log, (0.9, 0.4, 0.8, 0.7, 0.5))) / 5
    assert scores.log_loss == pytest.approx(expected)
    # Of the 6 pairs (cat, dog) all but (0.6, 0.5) have the higher number on the dog.
    assert scores.roc_auc == pytest.approx(5 / 6)


def test_three_classes_by_hand() -> None:
    targets = np.array([0, 0, 1, 2, 2, 2])
    probabilities = certain([0, 1, 1, 2, 2, 0], 3, confidence=0.8)
    scores = score(targets, probabilities)
    assert scores.accuracy == 4 / 6
    assert scores.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert scores.log_loss == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)
    assert scores.ece == pytest.approx(0.8 - 4 / 6)
    # One class against the rest, ties counting half: 5/8, 9/10 and 5/6.
    assert scores.roc_auc == pytest.approx((5 / 8 + 9 / 10 + 5 / 6) / 3)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same
        (0, 20, 0.0, 0.1611),  # the same
        (1, 29, 0.0061, 0.1718),  # the same
        (29, 29, 0.8830, 1.0),  # n / (n + 1.96²)
    ],
)
def test_wilsons_interval_against_published_values(
    right: int, n: int, low: float, high: float
) -> None:
    targets = np.array([0, 1] * n)[:n]
    answers = np.where(np.arange(n) < right, targets, 1 - targets)
    scores = score(targets, certain(answers.tolist(), 2))
    assert scores.accuracy == right / n
    assert scores.accuracy_interval_95 == pytest.approx((low, high), abs=6e-5)


def test_a_class_without_a_photo() -> None:
    scores = score(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert scores.roc_auc is None
    assert scores.confusion == [[1, 1], [0, 0]]
    assert scores.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.2)) / 2)
    three = score(np.array([0, 2]), certain([0, 2], 3, 0.8))
    assert three.roc_auc is None
    assert three.confusion == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_blind_certainty_costs_much_but_not_infinitely_much() -> None:
    scores = score(np.array([0, 1]), certain([1, 0], 2))
    assert 30 < scores.log_loss < math.inf
    assert scores.accuracy == 0
    assert scores.roc_auc == 0
    assert scores.ece == 1


def test_perfect_answers() -> None:
    scores = score(np.array([0, 1]), certain([0, 1], 2))
    assert (scores.accuracy, scores.ece, scores.roc_auc) == (1, 0, 1)
    assert scores.log_loss == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_either_precision_gives_plain_numbers_and_no_warning(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    scores = score(np.arange(50) % 3, probabilities_of(logits))
    for value in (scores.accuracy, scores.log_loss, scores.ece, scores.roc_auc):
        assert type(value) is float
    assert all(type(count) is int for row in scores.confusion for count in row)


def test_expected_calibration_error_by_hand() -> None:
    # Five bins. [0.4, 0.6): 0.5 wrong. [0.6, 0.8): 0.6 wrong and 0.7 right. [0.8, 1]: 0.9 and 0.8
    # right. So (|0 - 0.5| * 1 + |0.5 - 0.65| * 2 + |1 - 0.85| * 2) / 5.
    error = expected_calibration_error(TARGETS, PROBABILITIES, bins=5)
    assert error == pytest.approx((0.5 + 0.3 + 0.3) / 5)


def test_expected_calibration_error_of_honest_answers_is_near_0() -> None:
    generator = np.random.default_rng(0)
    second = generator.uniform(size=50_000)
    targets = (generator.uniform(size=50_000) < second).astype(int)
    probabilities = np.stack([1 - second, second], axis=1)
    assert expected_calibration_error(targets, probabilities) < 0.01
    assert expected_calibration_error(1 - targets, probabilities) > 0.4


def test_brier_score_of_two_classes_is_the_error_of_one_probability() -> None:
    by_hand = (0.1**2 + 0.6**2 + 0.2**2 + 0.3**2 + 0.5**2) / 5
    assert brier_score(TARGETS, PROBABILITIES) == pytest.approx(by_hand)
    assert brier_score(TARGETS, PROBABILITIES) == pytest.approx(
        brier_score_loss(TARGETS, PROBABILITIES[:, 1])
    )
    assert score(TARGETS, PROBABILITIES).brier == pytest.approx(by_hand)


def test_brier_score_of_three_classes_is_summed_over_them() -> None:
    assert brier_score(np.array([0]), np.array([[0.5, 0.3, 0.2]])) == pytest.approx(0.38)


@pytest.mark.parametrize("n", [50, 2000])
def test_the_bias_is_the_error_that_honest_answers_show(n: int) -> None:
    """Fewer photos show more of it; certain answers show none."""
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, n)
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    errors = [
        expected_calibration_error((generator.random(n) < confidence).astype(int), probabilities)
        for _ in range(100)
    ]
    assert calibration_bias(probabilities) == pytest.approx(np.mean(errors), rel=0.1)
    assert calibration_bias(certain([0, 1, 0], 2)) == 0


def test_reliability_bins_by_hand() -> None:
    bins = reliability_bins(TARGETS, PROBABILITIES, bins=5)
    assert [(b.low, b.high, b.count, b.right) for b in bins] == [
        (0.4, 0.6, 1, 0),
        (0.6, 0.8, 2, 1),
        (0.8, 1.0, 2, 2),
    ]
    assert [b.confidence for b in bins] == pytest.approx([0.5, 0.65, 0.85])
    assert [b.accuracy for b in bins] == [0, 0.5, 1]


def test_reliability_bins_hold_every_answer_once() -> None:
    probabilities = probabilities_of(np.random.default_rng(0).normal(size=(200, 4)) * 3)
    probabilities[0] = (1, 0, 0, 0)
    bins = reliability_bins(np.arange(200) % 4, probabilities)
    assert sum(b.count for b in bins) == 200
    assert bins[-1].high == 1
    assert all(b.low <= b.confidence <= b.high for b in bins)


def test_probabilities_by_hand() -> None:
    logits = np.array([[0, math.log(3)], [1000.0, 0], [-5, -5]])
    np.testing.assert_allclose(
        probabilities_of(logits), [[0.25, 0.75], [1, 0], [0.5, 0.5]], atol=1e-12
    )
    assert probabilities_of(logits.astype(np.float32)).dtype == np.float64
