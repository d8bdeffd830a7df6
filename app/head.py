"""Stage head: softmax regression on the pooled features, a convex problem: solved, not trained.

No rate, no epochs, no noise: one strength of regularisation after the other, from strong to weak,
until validation says that it is enough. The same features give the same head, whatever the seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.calibration import fit_temperature
from app.config import Stage
from app.console import progress_bar, say
from app.evaluation import Floats, Ints, Scores, probabilities_of, score
from app.history import HistoryRow
from app.model import head_inputs, set_head, set_standardisation
from app.training import StageResult

# scikit-learn's C, the inverse strength, where the losses of the photos are added up. On 2,000
# photos 0.01 was best (docs/experiments.md); the more photos, the weaker.
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-8, 3))
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class Labelled:
    """Pooled features ``(n, 1024)`` of photos and their class numbers ``(n,)``."""

    features: NDArray[np.float32]
    targets: Ints


@dataclass(frozen=True)
class Solution:
    """The dense layer ``x @ kernel + bias`` for one strength, and how it does."""

    kernel: Floats
    bias: Floats
    temperature: float
    row: HistoryRow
    validation: Scores


def solve_head(
    model: keras.Model, stage: Stage, train: Labelled, validation: Labelled
) -> StageResult:
    """Set standardisation and dense layer of ``model`` to the solution that validates best.

    Method: L2-regularised multinomial logistic regression by L-BFGS (scikit-learn), its logits
    divided by the temperature that validation asks for: a strongly regularised head answers right
    and too modestly, and the stages that follow should begin from calibrated answers.

    Args:
        model: a classifier; its backbone is not changed.
        stage: its ``patience`` ends the search, counted in strengths.
        train: features of the training photos themselves; random views of them did not help
            (docs/experiments.md).
        validation: features of the validation photos.

    Returns:
        The scores; the history has a row for each strength tried, in place of an epoch.
    """
    started = time.monotonic()
    set_standardisation(model, train.features)
    tried: list[Solution] = []
    with progress_bar() as bar:
        task = bar.add_task("Stage head", total=len(STRENGTHS))
        for solution in _path(model, stage, train, validation):
            tried.append(solution)
            bar.advance(task)
            if len(tried) - _best(tried) >= stage.patience:
                break
        bar.update(task, completed=len(STRENGTHS))
    best = tried[_best(tried) - 1]
    set_head(model, best.kernel, best.bias)
    return StageResult(
        name=stage.name,
        trainable_parameters=best.kernel.size + best.bias.size,
        epochs=len(tried),
        kept_epoch=_best(tried),
        seconds=time.monotonic() - started,
        validation=best.validation,
        history=tuple(solution.row for solution in tried),
        temperature=best.temperature,
    )


def _path(
    model: keras.Model, stage: Stage, train: Labelled, validation: Labelled
) -> Iterator[Solution]:
    """Yield the solutions from the strongest regularisation to the weakest."""
    x, seen = head_inputs(model, train.features), head_inputs(model, validation.features)
    solver = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)
    for number, strength in enumerate(STRENGTHS, start=1):
        started = time.monotonic()
        solver.set_params(C=strength).fit(x, train.targets)
        kernel, bias = _dense(solver)
        temperature = fit_temperature(seen @ kernel + bias, validation.targets)
        kernel, bias = kernel / temperature, bias / temperature
        fitted = score(train.targets, probabilities_of(x @ kernel + bias))
        scores = score(validation.targets, probabilities_of(seen @ kernel + bias))
        row = HistoryRow(
            stage=stage.name,
            epoch=number,
            loss=fitted.log_loss,
            accuracy=fitted.accuracy,
            validation_loss=scores.log_loss,
            validation_accuracy=scores.accuracy,
            learning_rate=0.0,
            seconds=time.monotonic() - started,
        )
        say(
            f"head, C {strength:.1g}: loss {row.loss:.4f}, validation log-loss "
            f"{row.validation_loss:.4f}, accuracy {row.validation_accuracy:.4f}"
        )
        yield Solution(kernel, bias, temperature, row, scores)


def _dense(solver: LogisticRegression) -> tuple[Floats, Floats]:
    """Return scikit-learn's coefficients as a dense layer; for two classes it keeps one row."""
    coefficients, intercept = solver.coef_, solver.intercept_
    if len(coefficients) == 1:
        half, offset = coefficients[0] / 2, intercept[0] / 2
        return np.stack([-half, half], axis=1), np.array([-offset, offset])
    return coefficients.T, intercept


def _best(tried: list[Solution]) -> int:
    """Return the number (from 1) of the solution with the lowest validation log-loss."""
    return 1 + int(np.argmin([solution.row.validation_loss for solution in tried]))
