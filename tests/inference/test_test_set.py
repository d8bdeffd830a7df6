"""Test photos worth checking: the surest contradictions of a label, then those answered neither."""

import numpy as np

from app.evaluation.decision import Thresholds
from app.evaluation.prediction_set import PredictionSet
from app.inference.test_set import worth_checking


def test_sure_contradictions_come_first_then_what_is_answered_neither():
    cat = np.array([0.05, 0.89, 0.00001, 0.99, 0.98])  # of the first two the label is dog
    answered = PredictionSet(
        ("right", "in doubt", "wrong", "strange", "stranger"),
        np.array([1, 1, 0, 0, 0]),
        np.stack([cat, 1 - cat], axis=1),
        np.array([0.1, 0.1, 0.1, 0.6, 0.7]),
    )
    found = worth_checking(answered, ("cat", "dog"), Thresholds(0.8))
    assert [(row.name, row.finding, row.rank, row.reason) for row in found] == [
        ("wrong", "label", 1, "labelled cat; the likeliest class is dog (> 99.9 %)"),
        ("stranger", "outlier", 1, "answered neither: its novelty is 0.700"),
        ("strange", "outlier", 2, "answered neither: its novelty is 0.600"),
    ]
