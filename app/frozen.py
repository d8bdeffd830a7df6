"""Runs the frozen lower part of the network: pixels → activations at the cuts.

On a processor without bfloat16 instructions ONNX Runtime is the faster engine (185 against 263 ms
a photo at 224 pixels on two Zen 3 cores, ``python -m benchmarks.frozen``), and the one that serves;
the features are then the same under every Keras backend. A GPU, or bfloat16, is Keras's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import onnxruntime
from numpy.typing import NDArray

from app.device import device_name
from app.images import Pixels
from app.model import prefix
from app.onnx_graph import to_onnx

# Pixels uint8 (n, size, size, 3) → activations (n, ...), one array for each cut.
Frozen = Callable[[Pixels], list[NDArray[Any]]]


def frozen_prefix(model: keras.Model, cuts: Sequence[str], precision: str) -> Frozen:
    """Return the function that computes the activations at ``cuts``.

    Args:
        model: from ``app.model.build_classifier``, its backbone's weights set. ONNX Runtime copies
            them, Keras does not: use the function before anything below the cuts is trained.
        cuts: names out of ``app.model.CUTS``.
        precision: ``float32`` or ``bfloat16``, as the model was built.
    """
    lower = prefix(model, cuts)
    if precision != "float32" or device_name().startswith("gpu"):
        # With one output Keras gives the array itself.
        return lambda images: list(keras.tree.flatten(lower.predict_on_batch(images)))
    names = [f"at_{cut}" for cut in cuts]
    session = onnxruntime.InferenceSession(
        to_onnx(lower, names).SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(images: Pixels) -> list[NDArray[Any]]:
        return list(session.run(names, {"image": images}))

    return run
