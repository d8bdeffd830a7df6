"""One temperature: found again where it is known, and never changing an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_min_confidence,
    fit_temperature,
)
from app.evaluation.metrics import probabilities_of, score


def drawn(temperature: float, classes: int, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are ``temperature`` times too sure, and targets drawn from the truth."""
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(n, classes)) * 2
    edges = probabilities_of(honest).cumsum(axis=1)
    targets = (generator.uniform(size=(n, 1)) > edges).sum(axis=1).clip(max=classes - 1)
    return honest * temperature, targets


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5, 10.0])
def test_a_known_temperature_is_found_again(temperature: float, classes: int) -> None:
    logits, targets = drawn(temperature, classes)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_log_loss_and_calibration_error_fall(temperature: float) -> None:
    logits, targets = drawn(temperature, classes=3)
    fitted = fit_temperature(logits, targets)
    before = score(targets, probabilities_of(logits))
    after = score(targets, probabilities_of(logits / fitted))
    assert after.log_loss < before.log_loss
    assert after.ece < before.ece
    assert after.confusion == before.confusion


@settings(max_examples=15, deadline=None, database=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 4), scale=st.floats(0.01, 100))
def test_no_answer_is_changed_and_the_bounds_hold(seed: int, classes: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(30, classes)).astype(np.float32) * np.float32(scale)
    fitted = fit_temperature(logits, generator.integers(0, classes, 30))
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    answers = probabilities_of(logits / fitted).argmax(axis=1)
    np.testing.assert_array_equal(answers, logits.argmax(axis=1))


def test_no_mistake_does_not_end_in_blind_certainty() -> None:
    targets = np.arange(40) % 2
    logits = np.where(np.eye(2, dtype=bool)[targets], 3.0, -3.0)
    probability = probabilities_of(logits[:1] / fit_temperature(logits, targets)).max()
    assert 0.998 < probability < 0.9999  # 0.9975 before; without the prior 1 - 1e-10
    many = np.tile(logits, (100, 1)), np.tile(targets, 100)
    assert probabilities_of(logits[:1] / fit_temperature(*many)).max() > probability


def test_to_fit_again_changes_nothing() -> None:
    """The prior counts once: logits divided by their temperature ask for no other."""
    targets = np.arange(40) % 2
    logits = np.where(np.eye(2, dtype=bool)[targets], 3.0, -3.0)
    first = fit_temperature(logits, targets)
    assert fit_temperature(logits / first, targets, divided_by=first) == pytest.approx(1, abs=1e-3)
    assert fit_temperature(logits / first, targets) < 0.95


def test_only_mistakes_end_in_the_least_certainty() -> None:
    targets = np.arange(40) % 2
    logits = np.where(np.eye(2, dtype=bool)[targets], -3.0, 3.0)
    assert fit_temperature(logits, targets) == pytest.approx(MAX_TEMPERATURE, rel=0.01)


def test_a_class_without_a_photo() -> None:
    logits, targets = drawn(2.0, classes=3, n=500)
    seen = targets != 2
    assert MIN_TEMPERATURE < fit_temperature(logits[seen], targets[seen]) < MAX_TEMPERATURE


def confident(*confidences: float) -> np.ndarray:
    """Return probabilities of two classes that answer 0 with these confidences."""
    return np.stack([confidences, 1 - np.array(confidences)], axis=1)


def test_min_confidence_is_0_where_one_answer_in_a_hundred_is_wrong() -> None:
    probabilities = confident(*np.linspace(0.6, 0.99, 100))
    assert fit_min_confidence(probabilities, np.array([1] + [0] * 99)) == 0


def test_min_confidence_leaves_out_just_enough() -> None:
    """Of 200 answers the 5 least sure are wrong, and one of the surest: two may stay."""
    confidences = np.linspace(0.6, 0.99, 200)
    targets = np.zeros(200, int)
    targets[[0, 1, 2, 3, 4, 195]] = 1
    limit = fit_min_confidence(confident(*confidences), targets)
    given = confidences >= limit
    assert (given.sum(), targets[given].sum()) == (195, 1)


def test_answers_of_one_confidence_are_given_all_or_none() -> None:
    probabilities = confident(*[0.9] * 150, *[0.7] * 50)
    targets = np.array([0] * 150 + [1] * 2 + [0] * 48)
    assert fit_min_confidence(probabilities, targets) == 0  # 2 of 200
    targets[-1] = 1
    assert fit_min_confidence(probabilities, targets) == 0.9


def test_where_the_surest_answers_are_wrong_none_is_sure() -> None:
    assert fit_min_confidence(confident(0.9, 0.8), np.array([1, 0])) > 1
