"""The first screen: dots, nine photos and the next step."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from made_up import least_metrics

from app.core.run_metrics import AnswerCounts, Metrics, SplitMetrics
from app.evaluation.prediction_set import PredictionSet
from app.report.first_screen import Waffle, advice, of_so_many, outcomes, refused, waffle, wall
from app.report.html import Parts

# Two classes, right answers first: the truth, the probability of class 1, the novelty.
ANSWERS = [
    *((n % 2, 0.05 + 0.9 * (n % 2), 0.1) for n in range(20)),
    *((0, 0.8 + n / 100, 0.1) for n in range(5)),  # wrong
    *((1, 0.9, 0.6 + n / 100) for n in range(4)),  # neither
    *((1, 0.55, 0.1) for _ in range(2)),  # unsure
]


def answered(rows: list[tuple[int, float, float]]) -> PredictionSet:
    targets, second, novelty = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"photo {number}" for number in range(len(rows)))
    return PredictionSet(names, targets, np.stack([1 - second, second], axis=1), novelty)


def test_each_photo_has_a_dot_and_the_right_ones_come_first() -> None:
    assert waffle(AnswerCounts(right=26, wrong=1, neither=0, unsure=2)) == [
        Waffle("right", 0, 26),
        Waffle("wrong", 26, 1),
        Waffle("unsure", 27, 2),
    ]


@pytest.mark.parametrize(
    ("counts", "dots"),
    [
        ((1954, 16, 30, 0), [977, 8, 15]),
        ((1918, 20, 13, 49), [959, 10, 7, 24]),  # 6.5 and 24.5: the first of equals is raised
        ((3332, 1, 0, 0), [1000]),  # less than half a dot
        ((999, 1, 0, 0), [999, 1]),
    ],
)
def test_of_many_photos_there_are_a_thousand_dots(counts: tuple[int, ...], dots: list[int]) -> None:
    found = waffle(AnswerCounts(*counts))
    assert [each.dots for each in found] == dots
    assert sum(dots) == 1000


@pytest.mark.parametrize("photos", [100, 1000])
def test_what_is_expected_adds_up(photos: int) -> None:
    expected = of_so_many(AnswerCounts(right=1858, wrong=13, neither=36, unsure=93), photos)
    assert sum(expected.values()) == photos
    assert expected["wrong"] == {100: 1, 1000: 7}[photos], "6.5 of 1,000"


@pytest.mark.parametrize("right", [1, 40, 41, 1000])
def test_a_dot_is_drawn_at_every_place(right: int) -> None:
    groups = waffle(AnswerCounts(right=right, wrong=0, neither=0, unsure=0))
    drawn = Parts("parts.html.j2").waffle(groups, 40, "what it shows")
    assert drawn.count("h0") == right
    assert f'viewBox="0 0 400 {10 * -(-right // 40)}"' in drawn
    assert f"M{10 * ((right - 1) % 40) + 5} {10 * ((right - 1) // 40) + 5}h0" in drawn


def test_signs_differ_without_colours() -> None:
    signs = {Parts("parts.html.j2").sign(each, 0, 0).text for each in kinds_of_answers()}
    assert len(signs) == 4


def kinds_of_answers() -> list[str]:
    return [field.name for field in dataclasses.fields(AnswerCounts)]


def test_outcomes_are_those_that_a_user_reads() -> None:
    found = outcomes(answered(ANSWERS), 0.6)
    assert found == ["right"] * 20 + ["wrong"] * 5 + ["neither"] * 4 + ["unsure"] * 2


def test_the_wall_shows_three_of_each_kind() -> None:
    given = answered(ANSWERS)
    found = outcomes(given, 0.6)
    numbers = wall(given, found)
    shown = [found[number] for number in numbers]
    assert shown[:6] == ["right"] * 3 + ["wrong"] * 3
    assert sorted(shown[6:]) == ["neither", "neither", "unsure"]
    assert numbers[3:6] == [24, 23, 22], "the surest mistakes"
    assert len({int(given.targets[number]) for number in numbers[:3]}) == 2, "of both classes"
    assert len(set(numbers)) == 9


def test_where_a_kind_is_lacking_more_right_ones_are_shown() -> None:
    given = answered(ANSWERS[:21])
    found = outcomes(given, 0.6)
    assert [found[number] for number in wall(given, found)] == ["right"] * 8 + ["wrong"]
    few = answered(ANSWERS[:2])
    assert sorted(wall(few, outcomes(few, 0.6))) == [0, 1]


def test_what_is_refused_comes_by_its_novelty() -> None:
    given = answered(ANSWERS)
    assert refused(given, outcomes(given, 0.6)) == [28, 27, 26, 25]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((28, 1, 0, 0), "more_test_photos"),
        ((60, 0, 0, 0), "harder_photos"),
        ((50, 4, 3, 3), "mistakes"),
        ((50, 3, 4, 3), "neither"),
        ((50, 3, 3, 4), "unsure"),
    ],
)
def test_the_next_step_is_where_most_is_lost(counts: tuple[int, ...], expected: str) -> None:
    given = AnswerCounts(*counts)
    values = {"accuracy": 0.9, "accuracy_interval_95": [0.8, 0.95], "log_loss": 0.3}
    metrics: Metrics = msgspec.convert(least_metrics(values, values), Metrics)
    test: SplitMetrics = dataclasses.replace(metrics.test, n=sum(counts), counts=given)
    assert advice(test) == expected
    say = Parts("report.html.j2", metrics=dataclasses.replace(metrics, test=test), classes=[])
    said = say.next_step(advice(test), [("cat", "dog", 3, 30)]).text
    assert said.startswith("Next step: ")
    assert said.endswith(".")
