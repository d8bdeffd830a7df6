"""One temperature: found again where it is known, never changing an answer; and a kept promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.run_metrics import ConfidenceLimit
from app.evaluation.calibration import (
    DEFAULT_MIN_CONFIDENCE,
    MAX_TEMPERATURE,
    MAX_WRONG,
    MIN_TEMPERATURE,
    fit_min_confidence,
    fit_temperature,
    match_temperature,
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


def test_min_confidence_is_0_where_the_promise_holds_for_all_answers() -> None:
    """5 of 1,000 are wrong: the bound is 9.27 of 1,000 (Poisson's quantile), 6 have 10.53."""
    probabilities = confident(*np.linspace(0.6, 0.99, 1000))
    found = fit_min_confidence(probabilities, np.array([1] * 5 + [0] * 995))
    assert found.value == 0
    assert found.promise is not None
    assert (found.promise.photos, found.promise.given, found.promise.wrong) == (1000, 1000, 5)
    assert found.promise.bound == pytest.approx(0.00927, abs=1e-4)
    less = fit_min_confidence(probabilities, np.array([1] * 6 + [0] * 994))
    assert less.value > 0.6
    assert less.promise is not None
    assert less.promise.given == 975


def test_the_search_ends_at_the_first_failure() -> None:
    """The 500 surest hold no mistake, the next 100 ten, all others none: 500 may be given."""
    confidences = np.linspace(0.99, 0.6, 1000)
    targets = np.zeros(1000, int)
    targets[510:520] = 1
    found = fit_min_confidence(confident(*confidences), targets)
    assert found.value == confidences[499]
    targets[:3] = 1
    nothing = fit_min_confidence(confident(*confidences), targets)
    assert nothing == ConfidenceLimit(DEFAULT_MIN_CONFIDENCE, None)


def test_answers_of_one_confidence_are_given_all_or_none() -> None:
    probabilities = confident(*[0.9] * 700, *[0.7] * 300)
    assert fit_min_confidence(probabilities, np.zeros(1000, int)).value == 0
    found = fit_min_confidence(probabilities, np.array([0] * 700 + [1] * 10 + [0] * 290))
    assert found.value == 0.9
    assert found.promise is not None
    assert found.promise.given == 700


def test_229_answers_without_a_mistake_promise_nothing_and_230_do() -> None:
    for count in (0, 1, 229):
        found = fit_min_confidence(confident(*[0.9] * count), np.zeros(count, int))
        assert found == ConfidenceLimit(DEFAULT_MIN_CONFIDENCE, None)
    assert fit_min_confidence(confident(*[0.9] * 230), np.zeros(230, int)).promise is not None


def runs(
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], photos: int
) -> tuple[float, float]:
    """Return in how many of 150 simulated runs something was promised, and not kept."""
    generator = np.random.default_rng(0)
    confidences, mistaken = draw(generator, 200_000)
    made = broken = 0
    for _ in range(150):
        some, wrong = draw(generator, photos)
        found = fit_min_confidence(confident(*some), wrong.astype(int))
        made += found.promise is not None
        given = confidences >= found.value
        broken += found.promise is not None and mistaken[given].mean() > MAX_WRONG
    return made / 150, broken / 150


@pytest.mark.parametrize("photos", [20, 100, 300, 1000])
@pytest.mark.parametrize("mean", [4.2, 6.5, None], ids=["6 % wrong", "2 %", "1.1 %, by chance"])
def test_the_promise_is_kept_in_nine_runs_of_ten(mean: float | None, photos: int) -> None:
    """Of calibrated answers, and of answers whose confidence says nothing."""

    def draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        if mean is None:
            return generator.uniform(0.5, 1, n), generator.random(n) < 0.011
        confidences = 1 / (1 + np.exp(-np.abs(generator.normal(mean, 2.4, n))))
        return confidences, generator.random(n) > confidences

    made, broken = runs(draw, photos)
    assert broken <= 0.1
    assert made == 0 or photos >= 230
    if mean == 6.5:
        assert made > {20: -1, 100: -1, 300: 0.4, 1000: 0.9}[photos]


def test_a_network_is_made_as_sure_as_another() -> None:
    logits, _ = drawn(2.5, classes=3, n=50)
    sure = probabilities_of(logits / 2.5).max(axis=1).mean()
    assert match_temperature(logits, float(sure)) == pytest.approx(2.5, rel=1e-3)
    assert match_temperature(logits, 0.0) == MAX_TEMPERATURE
    assert match_temperature(logits, 1.0) == MIN_TEMPERATURE
