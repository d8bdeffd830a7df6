"""One decision for all: the class, unsure, neither."""

import numpy as np
import pytest

from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds, decide, label_of
from app.evaluation.prediction_set import PredictionSet

CLASSES = ("cat", "dog")
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.55, 0.45], [1.0, 0.0]])
NOVELTY = np.array([0.1, 0.5, 0.4, 0.6, 0.51])


def test_each_answer():
    answers = decide(PROBABILITIES, NOVELTY, Thresholds(confidence=0.8))
    assert answers.tolist() == [0, 1, IS_UNSURE, IS_NEITHER, IS_NEITHER]
    assert [label_of(answer, CLASSES) for answer in answers] == [
        "cat",
        "dog",
        "unsure",
        "neither",
        "neither",
    ]


def test_both_lines_belong_to_the_class():
    """At a threshold, not only beyond it, a photo still gets a class."""
    assert decide(np.array([[0.3, 0.7]]), np.array([0.2]), Thresholds(0.7, 0.2)).tolist() == [1]
    assert decide(PROBABILITIES, NOVELTY, Thresholds(0.0, 1.0)).tolist() == [0, 1, 0, 0, 0]
    assert set(decide(PROBABILITIES, NOVELTY, Thresholds(1.1, 1.0))) == {IS_UNSURE}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_is_not_rounded_to_the_networks_float32(kind):
    """0.7 in float32 is a little less than 0.7."""
    probabilities = np.array([[0.3, 0.7]], kind)
    expected = IS_UNSURE if probabilities[0, 1].astype(float) < 0.7 else 1
    assert decide(probabilities, np.zeros(1, kind), Thresholds(0.7)).tolist() == [expected]
    assert (expected == IS_UNSURE) == (kind is np.float32)


def test_some_of_a_set_keep_what_belongs_to_them():
    names = tuple("abcde")
    whole = PredictionSet(names, np.array([0, 0, 1, 1, 0]), PROBABILITIES, NOVELTY)
    some = whole.chosen([3, 1])
    assert some.names == ("d", "b")
    assert (some.targets.tolist(), some.novelty.tolist()) == ([1, 0], [0.6, 0.5])
    assert some.decided(Thresholds(0.8)).tolist() == [IS_NEITHER, 1]
    assert whole.mistakes() == [1, 2, 3]
    assert whole.least_certain() == [2, 3, 1, 0, 4]
