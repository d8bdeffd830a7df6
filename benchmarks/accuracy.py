"""How accurate the default stages and the head alone are: the seeds, their mean, and a test.

    python -m benchmarks.accuracy --data cats_vs_dogs_small --weights vgg16_..._notop.h5

For each seed two runs under ``--runs``: ``seed0`` with the default stages and ``seed0-head`` with
``--stages head``, which finds the cache of the first. Runs that are there are read if they were
trained with the same settings on the same photos, the others are made by ``train.py``. What follows
a lone ``--`` goes to ``train.py``.

Two intervals stand beside a mean, since two things could have been otherwise. *Over seeds*:
Student's t on the seeds' values, for another seed on the same test photos; where every seed gives
the same answers, as it does for the solved head, there is none. *Over photos*:
percentile bootstrap (Efron & Tibshirani 1993, chapter 13), for other test photos; a photo is drawn
with its answers from all seeds, because the seeds answer the same photos and are not independent.
A single seed's accuracy has Wilson's interval (Wilson 1927). Head and staged are compared on the
same photos by McNemar's test (McNemar 1947) in its exact form: if both were equally good, each
would be as likely to be the one that is right where only one is.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from app.core.cli import run
from app.core.errors import UsageError
from app.core.records import values_of
from app.evaluation.metrics import Floats
from app.evaluation.paired_tests import McNemar, bootstrap_interval, mcnemar
from app.evaluation.prediction_set import PredictionSet
from app.report.comparison import losses, right
from app.report.results import Results
from benchmarks.command import answer, parser_of, train_flags
from benchmarks.markdown import markdown_table, verdict
from benchmarks.runs import results_of
from train import parse

METRICS = {"accuracy": "accuracy", "log_loss": "log-loss", "ece": "calibration error"}
# (metric, at least or at most, bar) for the mean over seeds on the test photos.
BARS = {
    "head": (("accuracy", ">=", 0.986), ("log_loss", "<=", 0.045)),
    "staged": (("accuracy", ">=", 0.990), ("log_loss", "<=", 0.035), ("ece", "<=", 0.010)),
}
ROUNDING = 1e-4  # of a probability


@dataclass(frozen=True)
class Mean:
    """A metric's mean over seeds.

    Attributes:
        value: the mean.
        over_seeds: 95 % interval for other seeds; None with a single one, or where every seed gives
            the same answers.
        over_photos: 95 % interval for other photos; None for the calibration error, which is not a
            mean over photos, and whose upward bias resampling would double.
    """

    value: float
    over_seeds: tuple[float, float] | None
    over_photos: tuple[float, float] | None


def main(argv: Sequence[str]) -> int:
    """Train what is missing, print the tables; return 0 when the bars are met."""
    arguments = _parser().parse_args(argv)
    runs = _runs_of(arguments)
    means = {name: means_of(results) for name, results in runs.items()}
    compared = [compare(head, staged) for head, staged in zip(*runs.values(), strict=True)]
    text = "\n\n".join(
        [
            _seeds_table(runs, arguments.seeds),
            _means_table(means),
            *_notes(means, arguments.seeds),
            _comparison_table(compared, arguments.seeds),
            "\n".join(f"{told}, {verdict(met)}." for told, met in bars(means)),
        ]
    )
    answer(arguments, text, _values(runs, means, compared, arguments.seeds))
    return 0 if all(met for _, met in bars(means)) else 1


def _runs_of(arguments: argparse.Namespace) -> dict[str, list[Results]]:
    """Return the runs of all seeds, head and staged; train those that are missing."""
    flags = train_flags(arguments)
    if len(parse(["--data", "any", *flags]).stages) == 1:
        raise UsageError(
            "expected train flags that open a block, to compare with the head alone; received "
            "--stages head; leave it out"
        )
    flags_of: dict[str, list[str]] = {}
    for seed in arguments.seeds:
        seeded = [*flags, "--seed", str(seed)]
        # Staged first: it computes the activations of both.
        flags_of[f"seed{seed}"] = seeded
        flags_of[f"seed{seed}-head"] = [*seeded, "--stages", "head"]
    results = results_of(arguments.data, arguments.runs, flags_of)
    return {
        "head": [results[f"seed{seed}-head"] for seed in arguments.seeds],
        "staged": [results[f"seed{seed}"] for seed in arguments.seeds],
    }


def means_of(results: Sequence[Results]) -> dict[str, Mean]:
    """Return the mean of each metric over seeds, on the test photos, with its intervals."""
    given = [result.predictions["test"] for result in results]
    photos = {
        "accuracy": np.mean([right(each) for each in given], axis=0),
        "log_loss": np.mean([losses(each) for each in given], axis=0),
    }
    seedless = same_answers(given)
    means = {}
    for metric in METRICS:
        values = np.array([getattr(result.metrics.test, metric) for result in results])
        highest = math.inf if metric == "log_loss" else 1.0
        resampled = bootstrap_interval(photos[metric]) if metric in photos else None
        over_seeds = None if seedless else seed_interval(values, highest)
        means[metric] = Mean(float(values.mean()), over_seeds, resampled)
    return means


def same_answers(given: Sequence[PredictionSet]) -> bool:
    """Say whether all runs give each photo the same probabilities, up to rounding."""
    first = given[0].probabilities
    return all(np.abs(each.probabilities - first).max() < ROUNDING for each in given)


def seed_interval(values: Floats, highest: float) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean of ``values``; None for a single one.

    With three seeds it is wide; what lies below 0 or above ``highest`` is cut off.
    """
    if len(values) < 2:
        return None
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return max(0.0, float(values.mean() - half)), min(highest, float(values.mean() + half))


def compare(first: Results, second: Results) -> McNemar:
    """Compare two runs on their test photos, which are the same, by McNemar's exact test."""
    return mcnemar(*(right(result.predictions["test"]) for result in (first, second)))


def bars(means: dict[str, dict[str, Mean]]) -> list[tuple[str, bool]]:
    """Return each mean beside its bar, and whether that is met."""
    found = []
    for name, rules in BARS.items():
        for metric, sign, bar in rules:
            value = means[name][metric].value
            told = f"{name}, mean test {METRICS[metric]}: {value:.4f} (bar {sign} {bar:.3f})"
            found.append((told, value >= bar if sign == ">=" else value <= bar))
    return found


def _seeds_table(runs: dict[str, list[Results]], seeds: Sequence[int]) -> str:
    header = ["stages", "seed", *(f"val. {title}" for title in METRICS.values())]
    header += ["test accuracy", "Wilson 95 %", *(f"test {METRICS[m]}" for m in ("log_loss", "ece"))]
    rows = []
    for name, results in runs.items():
        for seed, result in zip(seeds, results, strict=True):
            validation, test = result.metrics.validation, result.metrics.test
            low, high = test.accuracy_interval_95
            rows.append(
                [
                    name,
                    str(seed),
                    *(f"{getattr(validation, metric):.4f}" for metric in METRICS),
                    f"{test.accuracy:.4f}",
                    f"{low:.4f}–{high:.4f}",
                    f"{test.log_loss:.4f}",
                    f"{test.ece:.4f}",
                ]
            )
    return markdown_table(header, rows)


def _means_table(means: dict[str, dict[str, Mean]]) -> str:
    header = ["stages", "on test", "mean", "95 % over seeds (t)", "95 % over photos (bootstrap)"]
    rows = [
        [
            name,
            METRICS[metric],
            f"{mean.value:.4f}",
            _told(mean.over_seeds),
            _told(mean.over_photos),
        ]
        for name, found in means.items()
        for metric, mean in found.items()
    ]
    return markdown_table(header, rows)


def _notes(means: dict[str, dict[str, Mean]], seeds: Sequence[int]) -> list[str]:
    """Return in words why an interval over several seeds is missing."""
    seedless = [name for name, found in means.items() if found["accuracy"].over_seeds is None]
    return [
        f"{name}: no interval over seeds, because every seed gives the same answers; nothing in it "
        "is left to chance, so its figures could be otherwise only for other photos."
        for name in (seedless if len(seeds) > 1 else [])
    ]


def _told(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.4f}–{interval[1]:.4f}"


def _comparison_table(compared: Sequence[McNemar], seeds: Sequence[int]) -> str:
    header = ["seed", "only head right", "only staged right", "both wrong", "McNemar's p"]
    rows = [
        [str(seed), str(c.first_only), str(c.second_only), str(c.both_wrong), f"{c.p_value:.3g}"]
        for seed, c in zip(seeds, compared, strict=True)
    ]
    return markdown_table(header, rows)


def _values(
    runs: dict[str, list[Results]],
    means: dict[str, dict[str, Mean]],
    compared: Sequence[McNemar],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return everything that the tables show, as JSON knows it."""
    return {
        "seeds": [
            {
                "seed": seed,
                **{
                    name: {
                        "validation": values_of(results[i].metrics.validation),
                        "test": values_of(results[i].metrics.test),
                    }
                    for name, results in runs.items()
                },
                "mcnemar": asdict(compared[i]),
            }
            for i, seed in enumerate(seeds)
        ],
        "means": {
            name: {metric: asdict(mean) for metric, mean in found.items()}
            for name, found in means.items()
        },
        "bars": [{"bar": told, "met": met} for told, met in bars(means)],
    }


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "accuracy", "Accuracy of the default stages and of the head alone, over seeds."
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the photos; not needed when all runs are there"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="holds seed0, seed0-head, ... or gets them (default: runs)",
    )
    parser.add_argument(
        "--seeds",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[0, 1, 2],
        metavar="N,N",
        help="default: 0,1,2",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
