"""Features of many numbers → coordinates in the space that the training photos span.

Second-order features have 262,144 numbers, but 2,000 photos span 2,000 directions at most: a head
with L2 regularisation lies in that space, and is solved there exactly ("representer theorem"), in
seconds. Of more photos, 2,048 landmarks span the space (Nyström's method: Williams & Seeger 2001,
"Using the Nyström Method to Speed Up Kernel Machines"); from there on memory grows by 16 kB a
photo, its coordinates in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
# Numbers of photos → their features, float32 (≤ batch, side²), in their order, batch by batch.
FeatureIterator = Callable[[Sequence[int]], Iterator[Float32s]]

LANDMARKS = 2048  # 1.1 GB of features of 512 × 512 symmetric pairs
# Directions with less of the largest one's variance are left out: float32 gives them no meaning.
SMALLEST = 1e-6
TINY = 1e-12


@dataclass(frozen=True)
class NystroemFeatures:
    """Orthonormal directions among the features of the landmarks.

    Attributes:
        landmarks: ``(n, side · (side + 1) / 2)``, centred: each pair once.
        mean: of the landmarks' features, as many numbers.
        directions: ``(n, rank)``: coordinates are ``features @ landmarks.T @ directions``.
        own: ``(n, rank)``, the landmarks' coordinates. Their mean square length is 1.
    """

    landmarks: Float32s
    mean: Float32s
    directions: Floats
    own: Floats

    def coordinates(self, features: Float32s) -> Floats:
        """Return the coordinates ``(n, rank)`` of features ``(n, side²)``."""
        return (_each_once(features) - self.mean) @ self.landmarks.T @ self.directions

    def dense(self, coefficients: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Return a linear answer on the coordinates as one on the features.

        Args:
            coefficients: ``(rank, classes)``.
            intercept: ``(classes,)``.

        Returns:
            Kernel ``(side², classes)``, symmetric in each pair, and bias ``(classes,)``.
        """
        # In float32: NumPy would else copy the landmarks into 2.1 GB of float64.
        once = self.landmarks.T @ (self.directions @ coefficients).astype(np.float32)
        bias = intercept - self.mean @ once
        side = _side_of(len(once))
        kernel = np.zeros((side, side, once.shape[1]))
        rows, columns = np.triu_indices(side)
        kernel[rows, columns] = once * _weights(side)[:, None] / 2
        kernel += kernel.transpose(1, 0, 2)
        return kernel.reshape(side * side, -1), bias


def fit_nystroem(
    walk: FeatureIterator, targets: NDArray[np.integer[Any]]
) -> tuple[NystroemFeatures, NDArray[np.int64]]:
    """Span a basis by all photos, or by evenly many of each class where they are too many.

    Args:
        walk: gives the features of photos.
        targets: ``(n,)``, the number of each photo's class.

    Returns:
        The basis, and the numbers of its landmarks, ascending.
    """
    chosen = choose_landmarks(targets)
    batches = (_each_once(batch) for batch in walk(chosen.tolist()))
    first = next(batches)
    features = np.empty((len(chosen), first.shape[1]), np.float32)
    done = 0
    for rows in chain([first], batches):
        features[done : done + len(rows)] = rows
        done += len(rows)
    mean = features.mean(axis=0)
    features -= mean
    products = features @ features.T
    # Of photos that are all alike one direction stays, and their coordinates in it are 0.
    scale = max(float(np.trace(products)) / len(products), TINY)
    values, vectors = np.linalg.eigh(products.astype(np.float64) / scale)
    kept = values >= max(SMALLEST * values[-1], TINY)
    kept[-1] = True
    roots, vectors = np.sqrt(np.maximum(values[kept], TINY)), vectors[:, kept]
    return NystroemFeatures(features, mean, vectors / roots / scale, vectors * roots), chosen


def choose_landmarks(targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the numbers of at most ``LANDMARKS`` photos, ascending, spread evenly over all.

    Photos come sorted by class and, within one, by name: evenly spread is stratified.
    """
    if len(targets) <= LANDMARKS:
        return np.arange(len(targets))
    order = np.argsort(targets, kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, LANDMARKS).astype(np.int64)])


def _each_once(features: Float32s) -> Float32s:
    """Return each symmetric pair once, such that products of two photos stay the same."""
    side = round(features.shape[1] ** 0.5)
    rows, columns = np.triu_indices(side)
    result: Float32s = features[:, rows * side + columns] * _weights(side)
    return result


def _weights(side: int) -> Float32s:
    rows, columns = np.triu_indices(side)
    return np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)


def _side_of(once: int) -> int:
    return round((math.sqrt(8 * once + 1) - 1) / 2)
