"""How unlike the training photos something is: the distance to the most similar of them.

A photo's embedding is the largest activation of each of block5's 512 channels, brought to unit
length; its distance is 1 less the mean cosine to the ten most similar photos of reference. Source:
Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors". Maxima told other
things, and dogs from cats where only cats were known, apart better than averages, square roots or
both side by side (docs/experiments.md).

The same distance, each photo against all others, finds the outliers among the user's own photos.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from app.evaluation.outlier_classifier import (
    OutlierClassifier,
    fit_outlier_weights,
    out_of_fold_scores,
)

Float32s = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

NEIGHBOURS = 10  # 1, 5 and 30 did about as well
REFUSED = 0.02  # share of the validation photos that lie beyond the threshold
MEDIAN_NOVELTY = 0.05  # what the photo in the middle of validation gets
FEW = 100  # of fewer validation photos alone, 2 % are none; the training photos help out
# The scale is at least this share of the threshold, and this much: few photos, or photos that are
# all alike, would make it next to nothing, and rounding would decide.
NARROWEST_SHARE, NARROWEST = 0.02, 1e-3
ROWS = 1024  # photos compared at once


@dataclass(frozen=True)
class KnnOodDetector:
    """What a classifier needs to tell photos that show none of its classes (out of distribution).

    Attributes:
        reference: float32 ``(n, channels)``, embeddings of training photos at unit length.
        neighbours: how many of them are looked at.
        threshold: the distance that gives 0.5.
        scale: how much more distance moves the logit of the answer by 1.
    """

    reference: Float32s
    neighbours: int
    threshold: float
    scale: float

    def of(self, distances: Floats) -> Floats:
        """Return novelties ``(n,)``, 0 to 1, of distances: above 0.5 it shows no class."""
        result: Floats = expit((np.asarray(distances, np.float64) - self.threshold) / self.scale)
        return result

    def distances(self, tta_views: Sequence[Float32s]) -> Floats:
        """Return the distances ``(n,)`` of photos, the mean over some views of each.

        Args:
            tta_views: for each view embeddings ``(n, channels)``, of any length.
        """
        means = [
            np.concatenate([top.mean(axis=1) for top in self._similarities(embeddings)])
            for embeddings in tta_views
        ]
        result: Floats = 1 - np.mean(means, axis=0)
        return result

    def _similarities(self, embeddings: Float32s) -> Iterator[Float32s]:
        return similarities(unit_length(embeddings), self.reference, self.neighbours)


def fit_ood_detector(train: Float32s, validation: Sequence[Float32s]) -> KnnOodDetector:
    """Return the novelty by which 2 % of the validation photos are refused.

    Of fewer than 100 the largest distance would decide alone, and new photos of the same kind would
    be refused far more often. The distances of the training photos to each other, which are spread
    alike, then count as well.

    Args:
        train: embeddings ``(n, channels)`` of the photos of reference.
        validation: for each view of them the embeddings of photos that are none of those.
    """
    reference = unit_length(train)
    unscaled = KnnOodDetector(reference, min(NEIGHBOURS, len(reference)), threshold=0.0, scale=1.0)
    distances = unscaled.distances(validation)
    method: Literal["linear", "higher"] = "linear"
    if len(distances) < FEW:
        distances, method = np.concatenate([distances, distances_to_others(train)]), "higher"
    median, threshold = np.quantile(distances, [0.5, 1 - REFUSED], method=method)
    scale = (threshold - median) / np.log((1 - MEDIAN_NOVELTY) / MEDIAN_NOVELTY)
    scale = max(scale, NARROWEST_SHARE * threshold, NARROWEST)
    return KnnOodDetector(reference, unscaled.neighbours, float(threshold), float(scale))


def distances_to_others(embeddings: Float32s) -> Floats:
    """Return how unlike all others each photo is, ``(n,)``, from embeddings ``(n, channels)``."""
    rows = unit_length(embeddings)
    # The most similar one is the photo itself.
    parts = similarities(rows, rows, min(NEIGHBOURS + 1, len(rows)))
    return 1 - np.concatenate([top[:, 1:].mean(axis=1) for top in parts])


def similarities(rows: Float32s, others: Float32s, count: int) -> Iterator[Float32s]:
    """Yield the ``count`` largest cosines of each row with the others, falling, in batches."""
    for start in range(0, len(rows), ROWS):
        cosines = rows[start : start + ROWS] @ others.T
        top = np.partition(cosines, -count, axis=1)[:, -count:]
        yield np.sort(top, axis=1)[:, ::-1]


def embeddings_of(maps: Float32s) -> Float32s:
    """Return the embeddings ``(n, channels)`` of photos from their maps of block5.

    Args:
        maps: float32 ``(n, height, width, channels)``.
    """
    result: Float32s = maps.max(axis=(1, 2))
    return result


def unit_length(rows: Float32s) -> Float32s:
    """Bring rows to length 1; those of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: Float32s = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return result
