"""Doubt in words: stated limits, names as they are, and no certainty in numbers."""

from dataclasses import asdict

import pytest

import predict
from app.inference.prediction import Prediction, failed_prediction
from app.inference.wording import in_words, percentage


@pytest.mark.parametrize(
    ("label", "probabilities", "words"),
    [
        ("dog", [0.0, 1.0], "surely dog"),
        ("dog", [0.01, 0.99], "surely dog"),
        ("dog", [0.011, 0.989], "probably dog"),
        ("dog", [0.099, 0.901], "probably dog"),
        ("dog", [0.1, 0.9], "probably dog; could be wild roses"),
        ("dog", [0.34, 0.66], "probably dog; could be wild roses"),
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
    assert in_words("d", classes, [0.02, 0.12, 0.06, 0.8]) == "probably d; could be b"
    assert in_words("d", classes, [0.09, 0.08, 0.09, 0.74]) == "probably d", "each is very unlikely"
    assert in_words("neither", classes, probabilities) == "neither: none of the 4 classes"
    assert failed_prediction("a", "no photo").words is None


def test_the_five_likeliest_classes_are_named_in_their_order(capsys):
    values = {f"class {number}": number / 28 for number in range(8)}
    answer = Prediction("a.jpg", "class 7", values, 0.5, None)
    assert [each.label for each in answer.top] == [f"class {number}" for number in (7, 6, 5, 4, 3)]
    assert answer.top[0].probability == 7 / 28
    assert asdict(answer)["top"][1] == {"label": "class 6", "probability": 6 / 28}
    assert failed_prediction("a", "no photo").top is None
    predict.Output("table", list(values), ["a.jpg"])(answer)
    row = capsys.readouterr().out
    assert row.endswith("25.0 %  class 6 21.4 %, class 5 17.9 %, class 4 14.3 %, class 3 10.7 %\n")
    few = dict(list(values.items())[-5:])
    predict.Output("table", list(few), ["a.jpg"])(Prediction("a.jpg", "class 7", few, 0.5, None))
    assert capsys.readouterr().out.endswith("  25.0 %\n")


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
