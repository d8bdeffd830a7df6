"""Doubt in words: stated limits, names as they are, and no certainty in numbers."""

from dataclasses import asdict

import pytest

from app.inference.prediction import Prediction, failed_prediction
from app.inference.wording import in_words, percentage


@pytest.mark.parametrize(
    ("label", "probabilities", "words"),
    [
        ("dog", [0.0, 1.0], "surely dog"),
        ("dog", [0.01, 0.99], "surely dog"),
        ("dog", [0.011, 0.989], "probably dog"),
        ("dog", [0.34, 0.66], "probably dog"),
        ("dog", [0.341, 0.659], "perhaps dog, or wild roses"),
        ("wild roses", [0.519, 0.481], "perhaps wild roses, or dog"),
        ("unsure", [0.2, 0.8], "unsure: perhaps dog, or wild roses"),
        ("neither", [0.0, 1.0], "neither wild roses nor dog"),
    ],
)
def test_answers_of_two_classes(label, probabilities, words):
    assert in_words(label, ["wild roses", "dog"], probabilities) == words
    values = dict(zip(["wild roses", "dog"], probabilities, strict=True))
    assert asdict(Prediction("a", label, values, 0.5, None))["words"] == words


def test_answers_of_many_classes_name_the_two_likeliest():
    classes, probabilities = ["a", "b", "c", "d"], [0.1, 0.25, 0.2, 0.45]
    assert in_words("d", classes, probabilities) == "perhaps d, or b"
    assert in_words("neither", classes, probabilities) == "neither: none of the 4 classes"
    assert failed_prediction("a", "no photo").words is None


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "> 99.9 %"),
        (0.99951, "> 99.9 %"),
        (0.9994, "99.9 %"),
        (0.519, "51.9 %"),
        (0.0006, "0.1 %"),
        (0.0004, "< 0.1 %"),
        (0.0, "< 0.1 %"),
    ],
)
def test_no_probability_is_written_as_certain(probability, text):
    assert percentage(probability) == text
