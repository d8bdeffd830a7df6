"""Finished runs side by side: which is right about the same test photos, and what differs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from app.core.config import config_values, flattened
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.sanitise import shown
from app.evaluation.metrics import Floats, wilson_interval
from app.evaluation.paired_tests import (
    Bools,
    Interval,
    McNemar,
    bootstrap_interval,
    holm,
    mcnemar,
    paired_interval,
)
from app.evaluation.prediction_set import PredictionSet
from app.report.results import NAMING, Results, read_results

LEVEL = 0.05  # of McNemar's test: above it no run is called better
# What metrics.json records of how a run computed, besides the versions of libraries.
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
    """A photo whose likeliest class is right in one of two runs only; ``name`` is the first's."""

    name: str
    truth: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on the test photos that both have.

    Attributes:
        names: of the runs.
        trained: how many training photos each has.
        trained_in_common: how many of these are in both, by content.
        asked: how many test photos each has.
        n: how many test photos are compared.
        relabelled: test photos of both that have another class in each; they are not compared.
        first: the first run's scores on the compared photos.
        second: the second's.
        accuracy: the difference, interval by ``paired_interval``.
        log_loss: the difference, interval by ``bootstrap_interval`` over photos.
        mcnemar: the test.
        p_value_holm: its p-value, with Holm's correction where there are several comparisons.
        disagreements: photos whose likeliest class is right in one only, in the order of names.
    """

    names: tuple[str, str]
    trained: tuple[int, int]
    trained_in_common: int
    asked: tuple[int, int]
    n: int
    relabelled: int
    first: Score
    second: Score
    accuracy: Difference
    log_loss: Difference
    mcnemar: McNemar
    p_value_holm: float
    disagreements: tuple[Disagreement, ...]

    @property
    def better(self) -> str | None:
        """The name of the run that is better; None where no difference is shown."""
        if self.p_value_holm >= LEVEL:
            return None
        return self.names[self.mcnemar.second_only > self.mcnemar.first_only]


@dataclass(frozen=True)
class Compared:
    """Two runs or more, each compared with the first.

    Attributes:
        results: what the runs hold; no two have the same name.
        comparisons: of the first with each other one, in their order.
        differing: what differs between the runs, as the function of that name returns it.
    """

    results: tuple[Results, ...]
    comparisons: tuple[Comparison, ...]
    differing: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """Of the runs, in their order."""
        return [each.name for each in self.results]


def read_compared(folders: Sequence[Path]) -> Compared:
    """Read runs and compare each with the first.

    A run has the name of its folder, or its path where two have the same.

    Raises:
        UsageError: for fewer than two, for one given twice, and where two cannot be compared.
        BundleError: when one is unfinished or damaged.
    """
    if len(folders) < 2:
        raise UsageError(
            f"expected two runs or more to compare; received {len(folders)}; "
            "write python -m app compare runs/A runs/B"
        )
    resolved = [folder.resolve() for folder in folders]
    for place, times in Counter(resolved).items():
        if times > 1:
            raise UsageError(
                f"expected runs that are not the same; received {place} {times} times; give each "
                "one once"
            )
    names = [place.name for place in resolved]
    results = [
        dataclasses.replace(
            read_results(Run(folder)), name=shown(name if names.count(name) == 1 else str(folder))
        )
        for name, folder in zip(names, folders, strict=True)
    ]
    found = [compare(results[0], other) for other in results[1:]]
    raised = holm([each.mcnemar.p_value for each in found])
    comparisons = [
        dataclasses.replace(each, p_value_holm=p_value)
        for each, p_value in zip(found, raised, strict=True)
    ]
    return Compared(tuple(results), tuple(comparisons), differing(results))


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
    tests = first.predictions["test"], second.predictions["test"]
    asked = len(tests[0].names), len(tests[1].names)
    there = _places(second)
    common = [(i, there[sha]) for sha, i in _places(first).items() if sha in there]
    same = [(i, j) for i, j in common if tests[0].targets[i] == tests[1].targets[j]]
    if not same:
        raise UsageError(
            f"expected test photos that both runs have; received {asked[0]} of "
            f"{first.name} and {asked[1]} of {second.name}, none of them in both; train both on a "
            "folder with the same test/, or with the same --seed"
        )
    one, two = (
        test.chosen(places) for test, places in zip(tests, zip(*same, strict=True), strict=True)
    )
    tested = mcnemar(right(one), right(two))
    extra = losses(two) - losses(one)
    disagreements = [
        Disagreement(
            one.names[i],
            *(first.classes[each[i]] for each in (one.targets, one.answers, two.answers)),
        )
        for i in np.flatnonzero(right(one) != right(two))
    ]
    trained = _training_photos(first), _training_photos(second)
    return Comparison(
        names=(first.name, second.name),
        trained=(first.metrics.photos["train"], second.metrics.photos["train"]),
        trained_in_common=len(trained[0] & trained[1]),
        asked=asked,
        n=len(same),
        relabelled=len(common) - len(same),
        first=_score(one),
        second=_score(two),
        accuracy=Difference(
            (tested.second_only - tested.first_only) / len(same),
            paired_interval(tested.first_only, tested.second_only, len(same)),
        ),
        log_loss=Difference(float(extra.mean()), bootstrap_interval(extra)),
        mcnemar=tested,
        p_value_holm=tested.p_value,
        disagreements=tuple(sorted(disagreements, key=attrgetter("name"))),
    )


def right(given: PredictionSet) -> Bools:
    """Return ``(n,)``, whether each photo's likeliest class is its true one."""
    found: Bools = given.answers == given.targets
    return found


def losses(given: PredictionSet) -> Floats:
    """Return ``(n,)``, -ln of the probability that each photo's true class was given.

    A probability of 0 is taken for the smallest float64 above it.
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
    stages = [set(each["stages"].split(",")) for each in settings]
    absent = stages[0].union(*stages) - stages[0].intersection(*stages)
    names = dict.fromkeys(name for each in settings for name in each)
    rows = {name: [each.get(name, "–") for each in settings] for name in names}
    return {
        name: texts
        for name, texts in rows.items()
        if len(set(texts)) > 1 and name.partition(".")[0] not in absent
    }


def _settings(results: Results) -> dict[str, str]:
    """Return all that may differ, as text."""
    metrics = results.metrics
    settings = flattened(config_values(results.config))
    found = {name: value for name, value in settings.items() if name not in NAMING}
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


def _training_photos(results: Results) -> set[str]:
    """Return the SHA-256 of each."""
    return {row.sha256 for row in results.used() if row.split == "train"}


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


def _score(given: PredictionSet) -> Score:
    found = right(given)
    interval = wilson_interval(int(found.sum()), len(found))
    return Score(float(found.mean()), interval, float(losses(given).mean()))
