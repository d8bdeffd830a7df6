"""The test photos worth checking, told from their answers: nothing looked at them before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.evaluation.decision import Thresholds
from app.evaluation.findings import Finding
from app.evaluation.label_issues import find_label_issues
from app.evaluation.prediction_set import PredictionSet


def findings_of_test(
    predicted: PredictionSet, classes: Sequence[str], thresholds: Thresholds
) -> list[Finding]:
    """Return the test photos worth checking, from the answers that they were given at the end.

    Args:
        predicted: for the test photos.
        classes: names by number.
        thresholds: of the answers.
    """
    labels = find_label_issues(predicted.probabilities, predicted.targets)
    falling = np.argsort(-predicted.novelty, kind="stable")
    strangers = falling[predicted.novelty[falling] > thresholds.novelty].tolist()
    return [
        *(
            Finding(
                predicted.names[issue.number],
                "label",
                rank,
                -issue.margin,
                f"labelled {classes[predicted.targets[issue.number]]}; the likeliest class is "
                f"{classes[issue.likely]} ({issue.probability:.1%})",
            )
            for rank, issue in enumerate(labels, start=1)
        ),
        *(
            Finding(
                predicted.names[number],
                "stranger",
                rank,
                float(predicted.novelty[number]),
                f"answered neither: its novelty is {predicted.novelty[number]:.3f}",
            )
            for rank, number in enumerate(strangers, start=1)
        ),
    ]
