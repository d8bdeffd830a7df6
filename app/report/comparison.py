"""Finished runs side by side: who is right on the same test photos, and what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.core.config import config_values, flattened
from app.core.errors import UsageError
from app.evaluation.metrics import Floats, wilson_interval
from app.evaluation.paired_tests import (
    Bools,
    Interval,
    McNemar,
    bootstrap_interval,
    mcnemar,
    paired_interval,
)
from app.report.results import Predictions, Results

# A run's name and place always differ; a report or a log changes no figure.
NAMING = ("run", "runs", "report", "log")
# What metrics.json says of how a run computed; the versions of libraries besides.
COMPUTING = ("device", "backend", "precision", "frozen_precision", "cache", "views")


@dataclass(frozen=True)
class Score:
    """One run on the common photos: accuracy with Wilson's 95 % interval (1927), and log-loss."""

    accuracy: float
    accuracy_interval_95: Interval
    log_loss: float


@dataclass(frozen=True)
class Difference:
    """The second run's figure less the first's, and its 95 % interval over photos."""

    value: float
    interval_95: Interval


@dataclass(frozen=True)
class Disagreement:
    """A photo that one run answers rightly and the other does not; ``name`` is the first run's."""

    name: str
    truth: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on the test photos that both have.

    Attributes:
        n: the number of common photos.
        asked: how many test photos each run has.
        relabelled: photos of both that have another class in each; they are not compared.
        first: the first run's scores on the common photos.
        second: the second's.
        accuracy: the difference, interval by ``paired_interval``.
        log_loss: the difference, interval by ``bootstrap_interval`` over photos.
        mcnemar: the test.
        disagreements: photos that one of them answers rightly, in the order of their names.
    """

    n: int
    asked: tuple[int, int]
    relabelled: int
    first: Score
    second: Score
    accuracy: Difference
    log_loss: Difference
    mcnemar: McNemar
    disagreements: tuple[Disagreement, ...]


def compare(first: Results, second: Results) -> Comparison:
    """Compare two runs on the test photos of the same content (SHA-256 in ``manifest.csv``).

    The name of a photo does not count: the same folder may lie elsewhere for another run.

    Raises:
        UsageError: when the classes differ, or no test photo is in both.
    """
    if first.classes != second.classes:
        raise UsageError(
            f"expected runs of the same classes; received {first.name} with "
            f"{', '.join(first.classes)} and {second.name} with {', '.join(second.classes)}; "
            "compare runs that answer the same question"
        )
    pairs, relabelled = _common(first, second)
    asked = tuple(len(each.predictions["test"].names) for each in (first, second))
    if not pairs:
        raise UsageError(
            f"expected test photos that both runs have; received {asked[0]} of "
            f"{first.name} and {asked[1]} of {second.name}, none of them in both; train both on a "
            "folder with the same test/, or with the same --seed"
        )
    one, two = (
        _chosen(each.predictions["test"], [pair[k] for pair in pairs])
        for k, each in enumerate((first, second))
    )
    right_one, right_two, n = right(one), right(two), len(pairs)
    tested = mcnemar(right_one, right_two)
    extra = losses(two) - losses(one)
    return Comparison(
        n=n,
        asked=(asked[0], asked[1]),
        relabelled=relabelled,
        first=_score(one),
        second=_score(two),
        accuracy=Difference(
            (tested.second_only - tested.first_only) / n,
            paired_interval(tested.first_only, tested.second_only, n),
        ),
        log_loss=Difference(float(extra.mean()), bootstrap_interval(extra)),
        mcnemar=tested,
        disagreements=tuple(_disagreements(one, two, first.classes)),
    )


def right(given: Predictions) -> Bools:
    """Return ``(n,)``, whether each photo's answer is right."""
    found: Bools = given.probabilities.argmax(axis=1) == given.targets
    return found


def losses(given: Predictions) -> Floats:
    """Return ``(n,)``, -ln of the probability that each photo's true class was given.

    ``predictions.csv`` has six digits; 0 there is taken for the smallest float64 above it.
    """
    own = given.probabilities[np.arange(len(given.targets)), given.targets]
    found: Floats = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return found


def differing(results: Sequence[Results]) -> dict[str, list[str]]:
    """Return what differs: each setting, version or circumstance → its text by run.

    Settings come from ``config.json``, a stage's as ``block5.epochs``; those of a stage that a run
    lacks are left to ``stages``.
    """
    settings = [_settings(each) for each in results]
    absent = {
        stage
        for each in settings
        for other in settings
        for stage in each["stages"].split(",")
        if stage not in other["stages"].split(",")
    }
    names = dict.fromkeys(name for each in settings for name in each)
    rows = {name: [each.get(name, "–") for each in settings] for name in names}
    return {
        name: texts
        for name, texts in rows.items()
        if len(set(texts)) > 1 and name.partition(".")[0] not in absent
    }


def photos_in_common(first: Results, second: Results) -> int:
    """Return how many training photos are in both, by content."""
    one, two = (
        {r.sha256 for r in each.manifest if (r.split, r.verdict) == ("train", "used")}
        for each in (first, second)
    )
    return len(one & two)


def _settings(results: Results) -> dict[str, str]:
    """Return all that may differ, as text."""
    config, metrics = results.config, results.metrics
    found = {
        name: value
        for name, value in flattened(config_values(config)).items()
        if name not in NAMING
    }
    found |= {f"{split} photos": n for split, n in metrics.photos.items()}
    # "cache" of config.json is what was wanted, that of metrics.json what was used.
    found |= {f"{name} in use": getattr(metrics, name) for name in COMPUTING}
    found |= {f"version of {name}": v for name, v in metrics.versions.items()}
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _common(first: Results, second: Results) -> tuple[list[tuple[int, int]], int]:
    """Return the places of common test photos in both predictions, and how many are relabelled."""
    there = _places(second)
    found = [(i, there[sha]) for sha, i in _places(first).items() if sha in there]
    targets = first.predictions["test"].targets, second.predictions["test"].targets
    same = [(i, j) for i, j in found if targets[0][i] == targets[1][j]]
    return same, len(found) - len(same)


def _places(results: Results) -> dict[str, int]:
    """Return SHA-256 → place among the test predictions; used photos have each their own."""
    contents: Mapping[str, str] = {row.name: row.sha256 for row in results.manifest}
    names = results.predictions["test"].names
    try:
        return {contents[name]: i for i, name in enumerate(names)}
    except KeyError as error:
        raise UsageError(
            f"expected the photos of predictions.csv in manifest.csv of {results.name}; received "
            f"{error.args[0]!r}, which is not there; use the files of one run"
        ) from error


def _chosen(given: Predictions, places: Sequence[int]) -> Predictions:
    index = np.array(places, np.int64)
    return dataclasses.replace(
        given,
        names=tuple(given.names[i] for i in places),
        targets=given.targets[index],
        probabilities=given.probabilities[index],
    )


def _score(given: Predictions) -> Score:
    found = right(given)
    interval = wilson_interval(int(found.sum()), len(found))
    return Score(float(found.mean()), interval, float(losses(given).mean()))


def _disagreements(
    one: Predictions, two: Predictions, classes: Sequence[str]
) -> list[Disagreement]:
    answers = [each.probabilities.argmax(axis=1) for each in (one, two)]
    found = [
        Disagreement(
            one.names[i], classes[one.targets[i]], classes[answers[0][i]], classes[answers[1][i]]
        )
        for i in np.flatnonzero(right(one) != right(two))
    ]
    return sorted(found, key=lambda photo: photo.name)


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each run: its folder's, or its path's where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
