"""A look at all photos: whose label may be wrong, and which show something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.console import say
from app.core.run_folder import Run
from app.data.folder_layout import SPLITS, Split
from app.data.manifest import Photo, Photos
from app.evaluation.findings import Finding, write_findings
from app.evaluation.label_issues import find_label_issues, out_of_fold
from app.evaluation.metrics import Floats, Ints
from app.evaluation.ood import Descriptors, Float32s, distances_to_others
from app.features.labelled import LabelledFeatures
from app.training.linear_probe import LinearProbe

STRANGERS_SHARE = 0.01  # listed: this share of the photos,
FEWEST_STRANGERS, FEW_SHARE = 20, 0.1  # but at least 20 of 200 or more, and a tenth of fewer


def review(
    photos: Photos,
    classes: Sequence[str],
    run: Run,
    head: LinearProbe,
    labelled: Mapping[Split, LabelledFeatures],
    descriptors: Mapping[Split, Descriptors],
) -> None:
    """List the photos that a person should look at, in ``audit.csv``; nothing else depends on it.

    Test photos are among them: their labels may be wrong as well, and nothing is chosen by it.
    """
    coordinates = [head.train, head.validation, head.coordinates(labelled["test"])]
    found = find(
        [photo for split in SPLITS for photo in photos[split]],
        classes,
        np.concatenate(coordinates),
        np.concatenate([descriptors[split].rows for split in SPLITS]),
        head.solver,
    )
    write_findings(found, run.audit)
    counts = Counter(finding.finding for finding in found)
    say(
        f"worth a look, in {run.audit}: {counts['label']} labels that may be wrong, "
        f"{counts['stranger']} photos unlike all others"
    )


def find(
    photos: Sequence[Photo],
    classes: Sequence[str],
    coordinates: Floats,
    descriptors: Float32s,
    solver: Any,
) -> list[Finding]:
    """Return both lists, each from its first place downwards.

    Args:
        photos: all that are used, of every split; test photos too, since nothing is chosen by it.
        classes: names by number.
        coordinates: of the photos ``(n, rank)`` (``app.training.linear_probe.LinearProbe``).
        descriptors: of the photos ``(n, channels)`` (``app.evaluation.ood``).
        solver: an unfitted scikit-learn classifier.
    """
    targets = np.array([photo.target for photo in photos])
    suspects = _suspects(photos, classes, out_of_fold(solver, coordinates, targets), targets)
    return suspects + _strangers(photos, distances_to_others(descriptors))


def _suspects(
    photos: Sequence[Photo], classes: Sequence[str], probabilities: Floats, targets: Ints
) -> list[Finding]:
    return [
        Finding(
            photos[suspect.number].name,
            "label",
            rank,
            -suspect.margin,
            f"labelled {classes[targets[suspect.number]]}; a model that never saw it says "
            f"{classes[suspect.likely]} ({suspect.probability:.1%})",
        )
        for rank, suspect in enumerate(find_label_issues(probabilities, targets), start=1)
    ]


def _strangers(photos: Sequence[Photo], distances: NDArray[np.floating[Any]]) -> list[Finding]:
    fewest = min(FEWEST_STRANGERS, round(FEW_SHARE * len(photos)))
    count = max(fewest, round(STRANGERS_SHARE * len(photos)))
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
