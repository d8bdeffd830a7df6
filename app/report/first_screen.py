"""What the first screen of a report shows: dots, nine photos, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, zip_longest
from typing import Literal

import numpy as np

from app.core.run_metrics import AnswerCounts, SplitMetrics
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds
from app.evaluation.prediction_set import PredictionSet
from app.report.verdict import too_few

Outcome = Literal["right", "wrong", "neither", "unsure"]
Advice = Literal["more_test_photos", "harder_photos", "neither", "unsure", "mistakes"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "neither", "unsure")
DOTS = 1000  # of more test photos not each has a dot
DOTS_A_ROW = 40
A_KIND = 3  # photos of the wall that are right, wrong, refused


@dataclass(frozen=True)
class Waffle:
    """How many dots an outcome has, and which place is its first; places count from 0.

    Attributes:
        outcome: of all its dots.
        first: the place of its first dot; the others follow it.
        dots: their number.
    """

    outcome: Outcome
    first: int
    dots: int


def waffle(counts: AnswerCounts) -> list[Waffle]:
    """Return the dots of a test: one a photo, or of more photos than 1,000 that many in all.

    What is right comes first.
    """
    photos = sum(getattr(counts, outcome) for outcome in OUTCOMES)
    dots = of_so_many(counts, min(photos, DOTS))
    firsts = np.cumsum(list(dots.values())) - list(dots.values())
    pairs = zip(dots.items(), firsts.tolist(), strict=True)
    return [Waffle(outcome, first, number) for (outcome, number), first in pairs if number]


def of_so_many(counts: AnswerCounts, photos: int) -> dict[Outcome, int]:
    """Return how many of so many photos have each outcome, if the shares are those of a test.

    They are rounded by their largest remainders (Hamilton's method), so that their sum is right.
    """
    numbers = photos * np.array([getattr(counts, outcome) for outcome in OUTCOMES])
    total = max(int(numbers.sum()) // photos, 1)
    whole, rest = numbers // total, numbers % total
    whole[np.argsort(-rest, kind="stable")[: photos - whole.sum()]] += 1
    return dict(zip(OUTCOMES, whole.tolist(), strict=True))


def outcomes(answered: PredictionSet, min_confidence: float) -> list[Outcome]:
    """Return what became of each photo, by the answers that a user reads."""
    decided = answered.decided(Thresholds(min_confidence))
    right: dict[bool, Outcome] = {True: "right", False: "wrong"}
    no_class: dict[int, Outcome] = {IS_NEITHER: "neither", IS_UNSURE: "unsure"}
    pairs = zip(decided.tolist(), answered.targets.tolist(), strict=True)
    return [no_class.get(answer) or right[answer == target] for answer, target in pairs]


def refused(answered: PredictionSet, found: Sequence[Outcome]) -> list[int]:
    """Return the numbers of the photos that are answered ``neither``, the most unlike first."""
    numbers = [number for number, outcome in enumerate(found) if outcome == "neither"]
    return sorted(numbers, key=lambda n: (-answered.novelty[n], answered.names[n]))


def wall(answered: PredictionSet, found: Sequence[Outcome]) -> list[int]:
    """Return the numbers of nine photos: three right, three wrong, three without a class.

    Of those that are right and those without a class any, of all classes in turn; of those that are
    wrong the surest. Where there are too few of a kind, more that are right stand for them.
    """
    right, neither, unsure = (
        _any_of(answered, found, outcome) for outcome in ("right", "neither", "unsure")
    )
    wrong = [n for n in answered.mistakes() if found[n] == "wrong"][:A_KIND]
    doubtful = _in_turn([neither, unsure])[:A_KIND]
    room = 3 * A_KIND - len(wrong) - len(doubtful)
    return [*right[:room], *wrong, *doubtful]


def advice(test: SplitMetrics) -> Advice:
    """Return what helps the most as the next step: where most photos without a right answer are."""
    if too_few(test):
        return "more_test_photos"
    counts = test.counts
    lost: dict[Advice, int] = {
        "mistakes": counts.wrong,
        "neither": counts.neither,
        "unsure": counts.unsure,
    }
    most = max(lost, key=lost.__getitem__)
    return most if lost[most] else "harder_photos"


def _any_of(answered: PredictionSet, found: Sequence[Outcome], outcome: str) -> list[int]:
    """Return the numbers of the photos with an outcome, of all classes in turn.

    Chosen by the hash of their names, so neither the best nor the worst.
    """
    numbers = [number for number, each in enumerate(found) if each == outcome]
    numbers.sort(key=lambda n: sha256(answered.names[n].encode(errors="replace")).digest())
    classes = dict.fromkeys(answered.targets[numbers].tolist())
    return _in_turn([[n for n in numbers if answered.targets[n] == each] for each in classes])


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    return [n for n in chain.from_iterable(zip_longest(*lists)) if n is not None]
