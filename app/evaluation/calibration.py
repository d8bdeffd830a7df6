"""From confident to honest: a temperature that divides the logits, and when to say unsure.

Both are fitted on validation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from app.evaluation.metrics import probabilities_of

MAX_WRONG = 0.01  # share of the answers that are given
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.25, 20.0


def fit_temperature(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], divided_by: float = 1.0
) -> float:
    """Return the temperature that gives the lowest log-loss on validation.

    Dividing by it changes no answer, only how sure it is: above 1 less sure, below 1 surer.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2; with a
    log-normal prior around 1, which weighs as much as one photo: few photos, all answered right,
    would else ask for blind certainty.

    Args:
        logits: ``(n, classes)`` at temperature 1.
        targets: ``(n,)``, the number of each photo's class.
        divided_by: the temperature that the logits were divided by before: the prior is on the
            whole, lest it be weaker each time.

    Returns:
        A temperature between 0.25 and 20.
    """
    classes = np.arange(logits.shape[1])

    def loss(log_temperature: float) -> float:
        probabilities = probabilities_of(logits / math.exp(log_temperature))
        prior = (log_temperature + math.log(divided_by)) ** 2 / 2 / len(targets)
        return float(log_loss(targets, probabilities, labels=classes)) + prior

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def fit_min_confidence(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> float:
    """Return the lowest confidence at which at most 1 % of the answers from there on are wrong.

    Below it an answer is ``unsure``. It is 0 where all answers together are that good, and
    where there are none.

    Args:
        probabilities: of validation, ``(n, classes)``.
        targets: ``(n,)``, the number of each photo's class.

    Returns:
        0 to 1; above 1, so that nothing is ever sure, only where no confidence is enough.
    """
    if not len(targets):
        return 0.0
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    wrong = (probabilities.argmax(axis=1) != targets)[order].cumsum()
    # Answers of equal confidence are given all or none.
    last = np.append(falling[1:] < falling[:-1], True)
    allowed = np.flatnonzero(last & (wrong <= MAX_WRONG * np.arange(1, len(order) + 1)))
    if not len(allowed):
        return float(np.nextafter(1.0, 2.0))
    return 0.0 if allowed[-1] == len(order) - 1 else float(falling[allowed[-1]])
