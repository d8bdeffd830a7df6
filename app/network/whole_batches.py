"""Answers in batches of one size, where the backend compiles anew for each size.

XLA, with which JAX computes, compiles a network for each number of photos: up to 3 seconds a time
on a GPU (docs/experiments.md). A last batch that is not full is filled up, and what the filling
gave is cut off.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Compute = Callable[[NDArray[Any]], Any]
_COMPILED: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()


def compiles_for_each_size() -> bool:
    """Say whether the backend compiles anew for each number of photos in a batch."""
    return bool(keras.backend.backend() == "jax")


def sharing() -> int:
    """Return how many devices share each batch (``app.network.device.share_batches``).

    To be asked by the thread that called that: Keras tells no other.
    """
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.shape[0])


def filled(inputs: NDArray[Any], batch: int) -> NDArray[Any]:
    """Return ``inputs`` with its last row repeated up to ``batch`` rows, where that saves time."""
    lacking = batch - len(inputs)
    if lacking <= 0 or not len(inputs) or not compiles_for_each_size():
        return inputs
    return np.concatenate([inputs, np.repeat(inputs[-1:], lacking, axis=0)])


def predict_batch(model: keras.Model, inputs: NDArray[Any], batch: int) -> Any:
    """Return a model's outputs for ``inputs``, at most ``batch`` rows.

    Args:
        model: with one input; its outputs have any structure.
        inputs: ``(n, ...)``, n from 1 to ``batch``.
        batch: the number of rows that other calls have.

    Returns:
        Arrays ``(n, ...)`` in the structure of the outputs.
    """
    outputs = compute_of(model)(filled(inputs, batch))
    return keras.tree.map_structure(lambda rows: np.asarray(rows)[: len(inputs)], outputs)


def compute_of(model: keras.Model) -> Compute:
    """Return what computes a model's outputs from a batch; JAX begins, and does not wait for them.

    Under JAX it is no ``predict_on_batch``: that one waits, and it may not be called between the
    epochs of ``fit`` (Keras 3.15.1 deletes the weights).
    """
    if not compiles_for_each_size():
        return lambda inputs: model.predict_on_batch(inputs)
    if model not in _COMPILED:
        itself = weakref.ref(model)

        def answer(trainable: list[Any], others: list[Any], inputs: Any) -> Any:
            alive: Any = itself()
            return alive.stateless_call(trainable, others, inputs, training=False)[0]

        _COMPILED[model] = importlib.import_module("jax").jit(answer)
    compiled = _COMPILED[model]

    def begin(inputs: NDArray[Any]) -> Any:
        inputs = _spread(inputs)
        trainable = [each.value for each in model.trainable_variables]
        others = [each.value for each in model.non_trainable_variables]
        outputs = compiled(trainable, others, inputs)
        for each in keras.tree.flatten(outputs):
            each.copy_to_host_async()  # while the next batch is computed
        return outputs

    return begin


def _spread(inputs: NDArray[Any]) -> Any:
    """Give each device its part of a batch, where several share it (``share_batches``)."""
    distribution = keras.distribution.distribution()
    if distribution is None or len(inputs) % sharing():
        return inputs
    layout = distribution.get_data_layout(inputs.shape)
    return keras.distribution.distribute_tensor(keras.ops.convert_to_tensor(inputs), layout)
