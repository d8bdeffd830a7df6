"""Predictions in batches of one size, where the backend compiles anew for each size.

XLA, with which JAX computes, compiles a network for each number of photos: up to 3 seconds a time
on a GPU (docs/experiments.md). A last batch that is not full is filled up, and what the filling
gave is cut off.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def compiles_for_each_size() -> bool:
    """Say whether the backend compiles anew for each number of photos in a batch."""
    return bool(keras.backend.backend() == "jax")


def filled(inputs: NDArray[Any], batch: int) -> NDArray[Any]:
    """Return ``inputs`` with its last row repeated up to ``batch`` rows, where that saves time."""
    lacking = batch - len(inputs)
    if lacking <= 0 or not len(inputs) or not compiles_for_each_size():
        return inputs
    return np.concatenate([inputs, np.repeat(inputs[-1:], lacking, axis=0)])


def predict_batch(model: keras.Model, inputs: NDArray[Any], batch: int) -> Any:
    """Return what ``model.predict_on_batch`` gives for ``inputs``, at most ``batch`` rows.

    Args:
        model: with one input; its outputs have any structure.
        inputs: ``(n, ...)``, n from 1 to ``batch``.
        batch: the number of rows that other calls have.

    Returns:
        Arrays ``(n, ...)`` in the structure of the outputs.
    """
    outputs = model.predict_on_batch(filled(inputs, batch))
    return keras.tree.map_structure(lambda rows: rows[: len(inputs)], outputs)
