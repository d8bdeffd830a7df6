"""A review of training and validation photos: which of them are worth checking by a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.core.console import say
from app.data.folder_layout import Split
from app.data.manifest import Photo, Photos
from app.evaluation.findings import Finding, write_findings
from app.evaluation.label_issues import find_label_issues, out_of_fold
from app.evaluation.metrics import Floats, Ints
from app.evaluation.ood import distances_to_others
from app.training.linear_probe import Projection

OUTLIERS_SHARE = 0.01  # listed: this share of the photos,
FEWEST_OUTLIERS, FEW_SHARE = 20, 0.1  # but at least 20 of 200 or more, and a tenth of fewer


def review(
    photos: Photos,
    classes: Sequence[str],
    projections: Mapping[Split, Projection],
    solver: Any,
    path: Path,
) -> None:
    """List the photos worth checking in ``audit.csv``; nothing else depends on it.

    Args:
        photos: of the splits that have projections.
        classes: names by number.
        projections: of training and validation photos (``app.training.linear_probe``).
        solver: an unfitted scikit-learn classifier, as the head was solved with.
        path: of the list.
    """
    found = find(
        [photo for split in projections for photo in photos[split]],
        classes,
        Projection(
            np.concatenate([each.coordinates for each in projections.values()]),
            np.concatenate([each.embeddings for each in projections.values()]),
        ),
        solver,
    )
    write_findings(found, path)
    counts = Counter(finding.finding for finding in found)
    say(
        f"photos worth checking, in {path}: {counts['label']} look like another class, "
        f"{counts['stranger']} are unlike all others; most are hard, not wrong"
    )


def find(
    photos: Sequence[Photo], classes: Sequence[str], projection: Projection, solver: Any
) -> list[Finding]:
    """Return both lists, each from its first place downwards.

    Args:
        photos: of training and validation.
        classes: names by number.
        projection: of these photos.
        solver: an unfitted scikit-learn classifier.
    """
    targets = np.array([photo.target for photo in photos])
    probabilities = out_of_fold(solver, projection.coordinates, targets)
    outliers = _outliers(photos, distances_to_others(projection.embeddings))
    return _label_issues(photos, classes, probabilities, targets) + outliers


def _label_issues(
    photos: Sequence[Photo], classes: Sequence[str], probabilities: Floats, targets: Ints
) -> list[Finding]:
    return [
        Finding(
            photos[issue.number].name,
            "label",
            rank,
            -issue.margin,
            f"labelled {classes[targets[issue.number]]}; a model that never saw it says "
            f"{classes[issue.likely]} ({issue.probability:.1%})",
        )
        for rank, issue in enumerate(find_label_issues(probabilities, targets), start=1)
    ]


def _outliers(photos: Sequence[Photo], distances: Floats) -> list[Finding]:
    fewest = min(FEWEST_OUTLIERS, round(FEW_SHARE * len(photos)))
    count = max(fewest, round(OUTLIERS_SHARE * len(photos)))
    usual = float(np.median(distances))
    return [
        Finding(
            photos[number].name,
            "stranger",
            rank,
            float(distances[number]),
            f"distance {distances[number]:.3f} to the most similar photos; {usual:.3f} is usual",
        )
        for rank, number in enumerate(np.argsort(-distances, kind="stable")[:count], start=1)
    ]
