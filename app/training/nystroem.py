"""Features of many numbers → coordinates in the space that the training photos span.

Second-order features have 262,144 numbers, but 2,000 photos span 2,000 directions at most: a head
with L2 regularisation lies in that space, and is solved there exactly ("representer theorem"), in
seconds. Of more photos, 2,048 landmarks span the space (Nyström's method: Williams & Seeger 2001,
"Using the Nyström Method to Speed Up Kernel Machines"). Of their directions the 512 in which they
vary most are then enough: that takes a quarter of the time for each further photo, and its
coordinates take 4 kB.

    K  = Z Zᵀ / s = V diag(λ) Vᵀ     Z: the landmarks' centred features, s: their mean square length
    φ(z) = z Zᵀ V diag(λ)^-½ / s     the coordinates of a photo with centred features z
    φ(Z) = V diag(λ)^½               those of the landmarks, whose products are K again
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

LANDMARKS = 2048  # 1.1 GB of features of 512 × 512 symmetric pairs
LEADING = 512  # directions, where there are more photos than landmarks (docs/experiments.md)
# Directions with less of the largest one's variance are left out: float32 gives them no meaning.
SMALLEST = 1e-6
TINY = 1e-12


@dataclass(frozen=True)
class NystroemFeatures:
    """Orthonormal directions among the features of the landmarks.

    Attributes:
        landmarks: Z, ``(n, side · (side + 1) / 2)``: each symmetric pair once; after ``leading``
            the directions themselves.
        mean: of the landmarks' features, as many numbers.
        directions: V diag(λ)^-½ / s, ``(n, rank)``, the leading ones last.
        landmark_coordinates: φ(Z), ``(n, rank)``. Their mean square length is 1.
    """

    landmarks: Float32s
    mean: Float32s
    directions: Floats
    landmark_coordinates: Floats

    @property
    def side(self) -> int:
        """The number of channels whose pairs the features are."""
        return round((math.sqrt(8 * len(self.mean) + 1) - 1) / 2)

    def leading(self, count: int) -> NystroemFeatures:
        """Return the space of the ``count`` directions in which the landmarks vary most.

        They are written out, one row each, so that photos are multiplied by them alone.
        """
        chosen = self.directions[:, -count:]
        return replace(
            self,
            landmarks=chosen.T.astype(np.float32) @ self.landmarks,
            directions=np.eye(chosen.shape[1]),
            landmark_coordinates=self.landmark_coordinates[:, -count:],
        )

    def coordinates(self, features: Float32s) -> Floats:
        """Return the coordinates φ ``(n, rank)`` of features ``(n, side²)``."""
        return self.coordinates_of_pairs(each_pair_once(features))

    def coordinates_of_pairs(self, pairs: Float32s) -> Floats:
        """Return those of features from ``each_pair_once``, which are centred in place."""
        pairs -= self.mean
        return pairs @ self.landmarks.T @ self.directions

    def dense(self, coefficients: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Return a linear answer on the coordinates as one on the features.

        Args:
            coefficients: ``(rank, classes)``.
            intercept: ``(classes,)``.

        Returns:
            Kernel ``(side², classes)``, symmetric in each pair, and bias ``(classes,)``.
        """
        # φ(z) β + b = (z - mean) w + b with w = Zᵀ V diag(λ)^-½ β / s: the bias is b - mean w.
        # A pair i ≠ j stands twice in z, once in w, and counts √2 there: each gets w √2 / 2.
        # In float32: NumPy would else copy the landmarks into 2.1 GB of float64.
        once = self.landmarks.T @ (self.directions @ coefficients).astype(np.float32)
        bias = intercept - self.mean @ once
        side = self.side
        kernel = np.zeros((side, side, once.shape[1]))
        rows, columns = np.triu_indices(side)
        kernel[rows, columns] = once * _weights(side)[:, None] / 2
        kernel += kernel.transpose(1, 0, 2)
        return kernel.reshape(side * side, -1), bias


def fit_nystroem(features: Float32s) -> NystroemFeatures:
    """Span the space by landmarks.

    Args:
        features: of the landmarks, ``(n, side · (side + 1) / 2)``, from ``each_pair_once``. They
            are centred in place and kept: a copy would be another 1.1 GB.
    """
    mean = features.mean(axis=0)
    features -= mean
    products = features @ features.T
    # Of photos that are all alike one direction stays, and their coordinates in it are 0.
    scale = max(float(np.trace(products)) / len(products), TINY)
    values, vectors = np.linalg.eigh(products.astype(np.float64) / scale)
    kept = values >= max(SMALLEST * values[-1], TINY)
    kept[-1] = True
    roots, vectors = np.sqrt(np.maximum(values[kept], TINY)), vectors[:, kept]
    return NystroemFeatures(features, mean, vectors / roots / scale, vectors * roots)


def choose_landmarks(targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the numbers of at most ``LANDMARKS`` photos, ascending, spread evenly over all.

    Photos come sorted by class and, within one, by name: evenly spread is stratified.
    """
    if len(targets) <= LANDMARKS:
        return np.arange(len(targets))
    order = np.argsort(targets, kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, LANDMARKS).astype(np.int64)])


def each_pair_once(features: Float32s, out: Float32s | None = None) -> Float32s:
    """Return each symmetric pair once, such that products of two photos stay the same.

    Args:
        features: ``(n, side²)``, a symmetric matrix a photo.
        out: where the result is written; fresh memory takes longer than the work itself.

    Returns:
        ``(n, side · (side + 1) / 2)``; a pair that stood twice counts √2.
    """
    side = round(features.shape[1] ** 0.5)
    if out is None:
        out = np.empty((len(features), side * (side + 1) // 2), np.float32)
    matrices = features.reshape(len(features), side, side)
    weights = _weights(side)
    start = 0
    for row in range(side):  # in one piece each: a list of places takes nine times as long
        end = start + side - row
        np.multiply(matrices[:, row, row:], weights[start:end], out=out[:, start:end])
        start = end
    return out


@cache
def _weights(side: int) -> Float32s:
    rows, columns = np.triu_indices(side)
    weights = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)
    weights.flags.writeable = False  # the same array for all that ask
    return weights
