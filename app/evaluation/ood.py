"""Novelty: how unlike the training photos something is, by the distance to the most similar ones.

A photo's embedding is the largest activation of each of block5's 512 channels, brought to unit
length; its distance is 1 less the mean cosine to the ten most similar photos of reference. Source:
Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors". Maxima told other
things, and dogs from cats where only cats were known, apart better than averages, square roots or
both side by side (docs/experiments.md).

Where photos were shown as ``neither``, the likeness to them refuses as well
(``app.evaluation.outlier_classifier``).

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
    fit_outlier_classifier,
    out_of_fold_logits,
)

Float32s = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

NEIGHBOURS = 10  # 1, 5 and 30 did about as well
REFUSED = 0.02  # share of the validation photos that lie beyond the threshold
REFUSED_BY_DISTANCE = 0.015  # of them, where photos were shown as neither (docs/experiments.md)
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
        scale: how much more distance moves the logit of the novelty by 1.
        outliers: what was learned from photos shown as ``neither``, its logit 0 where it gives 0.5;
            None where none were shown.
    """

    reference: Float32s
    neighbours: int
    threshold: float
    scale: float
    outliers: OutlierClassifier | None = None

    def novelty(self, tta_views: Sequence[Float32s]) -> Floats:
        """Return novelties ``(n,)``, 0 to 1: above 0.5 a photo shows none of the classes.

        The larger one counts of two: the distance, and the likeness to what was shown.

        Args:
            tta_views: for each view embeddings ``(n, channels)``, of any length.
        """
        distances = np.asarray(self.distances(tta_views), np.float64)
        logits = (distances - self.threshold) / self.scale
        if self.outliers is not None:
            logits = np.maximum(logits, _mean_logits(self.outliers, tta_views))
        result: Floats = expit(logits)
        return result

    def distances(self, tta_views: Sequence[Float32s]) -> Floats:
        """Return the distances ``(n,)`` of photos, the mean over some views of each.

        Args:
            tta_views: as for ``novelty``.
        """
        means = [
            np.concatenate([top.mean(axis=1) for top in self._similarities(embeddings)])
            for embeddings in tta_views
        ]
        result: Floats = 1 - np.mean(means, axis=0)
        return result

    def _similarities(self, embeddings: Float32s) -> Iterator[Float32s]:
        return similarities(unit_length(embeddings), self.reference, self.neighbours)


def fit_ood_detector(
    train: Float32s, validation: Sequence[Float32s], outliers: Float32s | None = None
) -> KnnOodDetector:
    """Return the novelty by which 2 % of the validation photos are refused.

    Where photos were shown as ``neither``, the distance refuses 1.5 %, and what was learned from
    them so many more that the two together refuse 2 %.

    Of fewer than 100 the largest distance would decide alone, and new photos of the same kind would
    be refused far more often. The distances of the training photos to each other, which are spread
    alike, then count as well.

    Args:
        train: embeddings ``(n, channels)`` of the photos of reference.
        validation: for each view of them the embeddings of photos that are none of those.
        outliers: embeddings of training photos that were shown as ``neither``; None or empty where
            there are none.
    """
    reference = unit_length(train)
    unscaled = KnnOodDetector(reference, min(NEIGHBOURS, len(reference)), threshold=0.0, scale=1.0)
    distances = unscaled.distances(validation)
    few = len(distances) < FEW
    if few:
        distances = np.concatenate([distances, distances_to_others(train)])
    shown = outliers is not None and len(outliers) > 0
    refused = REFUSED_BY_DISTANCE if shown else REFUSED
    threshold, scale = _threshold_and_scale(distances, distances, refused, few=few)
    scale = max(scale, NARROWEST_SHARE * threshold)
    detector = replace(unscaled, threshold=threshold, scale=scale)
    if outliers is None or not shown:
        return detector
    rows = unit_length(outliers)
    classifier = fit_outlier_classifier(reference, rows)
    logits = _mean_logits(classifier, validation)
    if few:
        logits = np.concatenate([logits, out_of_fold_logits(reference, rows)])
    left = logits[distances <= threshold]
    share = max(REFUSED * len(logits) - (len(logits) - len(left)), 0) / len(left)
    return replace(
        detector, outliers=classifier.rescaled(*_threshold_and_scale(logits, left, share, few=few))
    )


def _threshold_and_scale(
    values: Floats, left: Floats, refused: float, *, few: bool
) -> tuple[float, float]:
    """Return what is subtracted from values, and what they are divided by, for logits of novelty.

    Args:
        values: of photos of the classes; the one in the middle gets a novelty of 0.05.
        left: those out of which the threshold refuses a share.
        refused: this share.
        few: whether the threshold is one of the values; else it may lie between two.
    """
    method: Literal["linear", "higher"] = "higher" if few else "linear"
    median = np.quantile(values, 0.5, method=method)
    threshold = np.quantile(left, 1 - refused, method=method)
    scale = (threshold - median) / np.log((1 - MEDIAN_NOVELTY) / MEDIAN_NOVELTY)
    return float(threshold), float(max(scale, NARROWEST))


def _mean_logits(classifier: OutlierClassifier, tta_views: Sequence[Float32s]) -> Floats:
    result: Floats = np.mean([classifier.logits(unit_length(view)) for view in tta_views], axis=0)
    return result


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
