"""What the tab Teach learns, on made-up features: right where it can be, honest where it cannot."""

import dataclasses

import numpy as np
import pytest
from photos import picture

from app.core.labels import NEITHER
from app.studio.backbone import Seen
from app.studio.lesson import groups_of, learn
from app.training.nystroem import each_pair_once

CHANNELS = 6
KINDS = ("cup", "pen")


def seen(kind: int, generator: np.random.Generator, spread: float = 0.3) -> Seen:
    """Make up a photo: its strongest channel says its kind."""
    row = np.abs(generator.normal(0, spread, CHANNELS)).astype(np.float32)
    row[kind] += 2
    row /= np.linalg.norm(row)
    pairs = each_pair_once(np.sqrt(np.outer(row, row)).reshape(1, -1))[0]
    return Seen(np.zeros((1, 1, CHANNELS), np.float16), pairs, row)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_what_can_be_learned_is_learned(generator):
    targets = np.repeat([0, 1], 20)
    photos = [seen(kind, generator) for kind in targets]
    lesson = learn(KINDS, targets, np.arange(40), photos)
    assert lesson.score is not None
    assert lesson.score.photos == 40
    assert lesson.score.right >= 36
    assert lesson.score.wrong == 0
    for kind, name in enumerate(KINDS):
        answer = lesson.answer("new", seen(kind, generator, 0.1))
        assert answer.label == name
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert lesson.answer("new", seen(5, generator, 0.1)).label == NEITHER


def test_labels_without_meaning_are_not_called_right(generator):
    """A head learns 40 photos of 6 channels by heart; out of fold it cannot know them."""
    targets = np.arange(40) % 2
    photos = [seen(0, generator) for _ in targets]
    lesson = learn(KINDS, targets, np.arange(40), photos)
    assert lesson.score is not None
    assert lesson.score.right < 30
    counts = lesson.score
    assert counts.right + counts.wrong + counts.unsure + counts.neither == 40


def test_one_moment_proves_nothing(generator):
    """All photos of a class were taken within one second: nothing is left to judge by."""
    targets = np.repeat([0, 1], 6)
    photos = [seen(kind, generator) for kind in targets]
    lesson = learn(KINDS, targets, np.array([0] * 6 + list(range(1, 7))), photos)
    assert lesson.score is None
    assert lesson.answer("new", seen(1, generator, 0.1)).label == "pen"


def test_strangers_are_counted_by_detectors_that_did_not_see_them(generator):
    targets = np.repeat([0, 1], 15)
    photos = [seen(kind, generator) for kind in targets]
    strangers = [seen(3, generator) for _ in range(10)]
    lesson = learn(KINDS, targets, np.arange(30), photos, strangers)
    assert lesson.score is not None
    assert lesson.score.strangers == 10
    assert lesson.score.refused >= 8
    assert lesson.answer("new", seen(3, generator, 0.1)).label == NEITHER


def test_strangers_like_the_classes_are_not_called_refused(generator):
    """In 64 directions ten photos can be learned by heart; out of fold nothing tells them."""
    targets = np.repeat([0, 1], 15)

    def photo(kind: int) -> Seen:
        row = np.abs(generator.normal(1, 0.3, 64)).astype(np.float32)
        return dataclasses.replace(seen(kind, generator), embedding=row / np.linalg.norm(row))

    photos = [photo(kind) for kind in targets]
    lesson = learn(KINDS, targets, np.arange(30), photos, [photo(0) for _ in range(10)])
    assert lesson.score is not None
    assert lesson.score.refused <= 6


def test_photos_of_a_moment_and_near_duplicates_are_one_group():
    images = [np.asarray(picture(seed, (64, 64))) for seed in (1, 2, 3, 4, 1)]
    groups = groups_of(images, ["", "hold 1, second 0", "hold 1, second 0", "", ""])
    assert groups[1] == groups[2]
    assert groups[0] == groups[4]
    assert len({groups[0], groups[1], groups[3]}) == 3
