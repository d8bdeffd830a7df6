"""Two classifiers on the same photos: is one of them better, and by how much?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, norm

from app.core.run_metrics import StageGain
from app.evaluation.metrics import Floats, Ints

RESAMPLES = 10_000
TINY = 1e-12  # the lowest probability

Interval = tuple[float, float]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two classifiers on the same photos.

    Attributes:
        first_only: photos that only the first answers rightly.
        second_only: photos that only the second answers rightly.
        both_wrong: photos that neither does.
        p_value: of "both are equally good", two-sided, exact.
    """

    first_only: int
    second_only: int
    both_wrong: int
    p_value: float


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """Test whether two classifiers are equally good.

    Args:
        first: ``(n,)``, whether the first answers each photo rightly.
        second: the same of the second, in the same order.

    Source: McNemar 1947, in its exact form: if both were equally good, each would be as likely to
    be the one that is right where only one is, a binomial distribution.
    """
    only = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(binomtest(only[0], sum(only), 0.5).pvalue) if sum(only) else 1.0
    return McNemar(*only, int((~first & ~second).sum()), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of several tests, raised so that any false finding at all is as rare as told.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    raised, least = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[number]))
        raised[number] = least
    return raised


def bootstrap_interval(values: Floats) -> Interval:
    """Return the percentile bootstrap's 95 % interval of the mean of ``values``, one a photo.

    Of two classifiers' differences photo by photo it is the paired bootstrap.
    Source: Efron & Tibshirani 1993, chapter 13.
    """
    if len(values) < 2:  # which SciPy refuses
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=100,  # of the resamples, each as long as values, at once in memory
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def paired_interval(first_only: int, second_only: int, n: int) -> Interval:
    """Return the 95 % interval of the second's accuracy less the first's on the same ``n`` photos.

    Wald's interval with one photo more in each of the cells where the two differ: it has width
    where no photo tells them apart, as a bootstrap would not.
    Source: Bonett & Price 2012, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data".
    """
    one, two = (first_only + 1) / (n + 2), (second_only + 1) / (n + 2)
    middle = two - one
    half = float(norm.ppf(0.975)) * float(np.sqrt((one + two - middle**2) / (n + 2)))
    return max(-1.0, middle - half), min(1.0, middle + half)


def stage_gain(before: Floats, after: Floats, targets: Ints) -> StageGain:
    """Compare the answers before a stage of training and after it, photo by photo.

    Args:
        before: probabilities ``(n, classes)``.
        after: likewise.
        targets: ``(n,)``, the number of each photo's class.
    """
    first, second = (each.argmax(axis=1) == targets for each in (before, after))
    pair = mcnemar(first, second)
    lower = np.log(np.maximum(after, TINY)) - np.log(np.maximum(before, TINY))
    lower = lower[np.arange(len(targets)), targets]
    return StageGain(
        accuracy=float(second.mean() - first.mean()),
        accuracy_interval_95=paired_interval(pair.first_only, pair.second_only, len(targets)),
        log_loss=float(lower.mean()),
        log_loss_interval_95=bootstrap_interval(lower),
    )
