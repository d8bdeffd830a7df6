"""From confident to honest: a temperature that divides the logits, and when to say unsure.

Both are fitted on photos that the network did not learn from.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax
from scipy.stats import beta

from app.core.run_metrics import ConfidenceLimit, Promise
from app.evaluation.metrics import probabilities_of

MAX_WRONG = 0.01  # share of the answers that are given
CONFIDENCE = 0.9  # of the promise that no more are wrong: at most one run in ten breaks it
# The fewest answers that can prove it: without any mistake 230 of them have an upper bound of 1 %.
FEWEST_ANSWERS = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - MAX_WRONG))
# Fewer validation photos are small: answers to training photos help out, by cross-validation.
SMALL_VALIDATION = FEWEST_ANSWERS
LEAST_GIVEN, STEPS = 0.5, 21  # the shares of the answers that are tried: 50 %, 52.5 %, ... 100 %
DEFAULT_MIN_CONFIDENCE = 0.8  # where nothing can be promised (docs/experiments.md)
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.25, 20.0


def fit_temperature(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], divided_by: float = 1.0
) -> float:
    """Return the temperature that gives the lowest log-loss on photos not learned from.

    Dividing by it changes no answer, only how sure it is: above 1 less sure, below 1 surer.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2; with a
    log-normal prior around 1, which weighs as much as one photo: few photos, all answered right,
    would else ask for blind certainty.

    Args:
        logits: ``(n, classes)``, of a network that was divided by ``divided_by``.
        targets: ``(n,)``, the number of each photo's class.
        divided_by: the product of all temperatures that the network was divided by before. The
            prior is on the product of all, so that it counts once.

    Returns:
        A temperature between 0.25 and 20.
    """
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        divided = np.asarray(logits, np.float64) / math.exp(log_temperature)
        prior = (log_temperature + math.log(divided_by)) ** 2 / 2 / len(targets)
        return prior - float(log_softmax(divided, axis=1)[rows, targets].mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def match_temperature(logits: NDArray[np.floating[Any]], confidence: float) -> float:
    """Return the temperature at which the mean confidence is the one given.

    It makes one network as sure as another was on the same photos. No label is needed, so it is
    exact on few photos, where ``fit_temperature`` follows chance.

    Args:
        logits: ``(n, classes)``.
        confidence: the mean probability of the other network's likeliest classes.

    Returns:
        A temperature between 0.25 and 20.
    """

    def surplus(log_temperature: float) -> float:
        probabilities = probabilities_of(logits / math.exp(log_temperature))
        return float(probabilities.max(axis=1).mean()) - confidence

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    if surplus(low) <= 0:
        return MIN_TEMPERATURE
    if surplus(high) >= 0:
        return MAX_TEMPERATURE
    return math.exp(brentq(surplus, low, high, xtol=1e-9))


def upper_bound(found: int, n: int, confidence: float) -> float:
    """Return the largest share that ``found`` of ``n`` can come from, one-sided.

    Source: Clopper & Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated in the
    Case of the Binomial".

    Args:
        found: how many were counted.
        n: out of how many, at least one.
        confidence: with which the share is no larger, 0 to 1.
    """
    return 1.0 if found == n else float(beta.ppf(confidence, found + 1, n - found))


def fit_min_confidence(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> ConfidenceLimit:
    """Return the confidence below which an answer is ``unsure``, and what that promises.

    The promise: of the answers that are given at most 1 % are wrong, with a confidence of 90 %.
    Method: selective classification with guaranteed risk (Geifman & El-Yaniv 2017). The surest half
    of the answers is tried first, or 230 where these are more; then 52.5 %, ... 100 %, while the
    Clopper-Pearson bound of their mistakes is at most 1 %. Because the order is fixed and the first
    failure ends the search, each step may use the whole confidence (fixed sequence testing;
    Angelopoulos et al. 2021, "Learn then Test"). Their own correction divides it by the number of
    steps, and promises less often (docs/experiments.md).

    Args:
        probabilities: of photos that the network did not learn from, ``(n, classes)``.
        targets: ``(n,)``, the number of each photo's class.

    Returns:
        0 where the promise holds for all answers; ``DEFAULT_MIN_CONFIDENCE`` and no promise where
        it does not even hold for the first step, or where there are fewer than 230 answers.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    wrong = (probabilities.argmax(axis=1) != targets)[order].cumsum()
    # Answers of equal confidence are given all or none.
    last = np.flatnonzero(np.append(falling[1:] < falling[:-1], True)) + 1
    found = ConfidenceLimit(DEFAULT_MIN_CONFIDENCE, None)
    first = max(LEAST_GIVEN * len(order), FEWEST_ANSWERS)
    if first > len(order):
        return found
    for wanted in np.linspace(first, len(order), STEPS):
        given = int(last[np.searchsorted(last, math.ceil(wanted - 1e-9))])
        bound = upper_bound(int(wrong[given - 1]), given, CONFIDENCE)
        if bound > MAX_WRONG:
            break
        limit = 0.0 if given == len(order) else float(falling[given - 1])
        promise = Promise(MAX_WRONG, CONFIDENCE, len(order), given, int(wrong[given - 1]), bound)
        found = ConfidenceLimit(limit, promise)
    return found
