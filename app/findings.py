"""What a person should look at: labels that may be wrong, and strangers (``audit.csv``).

Nothing is changed or left out for it: a person cuts from the list, and ``train.py --exclude`` takes
what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.evaluation import Floats, Ints
from app.novelty import Float32s, distances_to_others
from app.photos import Photo
from app.suspects import find_suspects, out_of_fold
from app.tables import read_rows, write_rows

STRANGERS_SHARE, FEWEST_STRANGERS = 0.01, 20  # listed: this share of the photos, at least so many

Kind = Literal["label", "stranger"]


@dataclass(frozen=True)
class Finding:
    """One photo that a person should look at.

    Attributes:
        name: path relative to the data folder.
        finding: ``label`` for one that may be wrong, ``stranger`` for a photo unlike all others.
        rank: place in its list, from 1.
        score: the higher the surer; for ``label`` the probability of another class less that of its
            own, 0 to 1; for ``stranger`` the cosine distance to the ten most similar photos.
        reason: in words.
    """

    name: str
    finding: Kind
    rank: int
    score: float
    reason: str


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
        coordinates: of the photos ``(n, rank)`` (``app.head.SolvedHead``).
        descriptors: of the photos ``(n, channels)`` (``app.novelty``).
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
        for rank, suspect in enumerate(find_suspects(probabilities, targets), start=1)
    ]


def _strangers(photos: Sequence[Photo], distances: NDArray[np.floating[Any]]) -> list[Finding]:
    count = max(FEWEST_STRANGERS, round(STRANGERS_SHARE * len(photos)))
    usual = float(np.median(distances))
    return [
        Finding(
            photos[number].name,
            "stranger",
            rank,
            float(distances[number]),
            f"unlike all others: distance {distances[number]:.3f} to the most similar photos, "
            f"where {usual:.3f} is usual",
        )
        for rank, number in enumerate(np.argsort(-distances, kind="stable")[:count], start=1)
    ]


def write_findings(found: Sequence[Finding], path: Path) -> None:
    """Write the lists as CSV, one below the other."""
    rows = ({**asdict(row), "score": f"{row.score:.4f}"} for row in found)
    write_rows(rows, [field.name for field in fields(Finding)], path)


def read_findings(path: Path) -> list[Finding]:
    """Read what ``write_findings`` wrote."""
    return [
        Finding(**{**row, "rank": int(row["rank"]), "score": float(row["score"])})
        for row in read_rows(path)
    ]
