"""Computes features: pixels → the activations of the frozen layers at the cuts.

``make_extractor`` chooses what computes: Keras or ONNX Runtime, and in which numbers.

On a processor with VNNI instructions ONNX Runtime computes in int8
(``app.features.int8_backbone``): 36 ms a photo of 320 pixels on two Zen 5 cores, against 63 in
bfloat16 by Keras and 155 in float32. Without them, and without bfloat16's, it is the faster engine
for float32 too (185 against 263 ms a photo at 224 pixels on two Zen 3 cores,
``python -m benchmarks.frozen``). Its features are the same under every Keras backend. A GPU, or
bfloat16, is Keras's.

How many photos go through at once changes the time and the memory, never a photo's activations
beyond rounding. On a processor 16 is as fast as any; on a GPU more are tried.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.core.config import Engine, EngineName
from app.core.console import say
from app.core.environment import installed_version
from app.core.errors import out_of_memory
from app.data.augmentation import BATCH
from app.features.int8_backbone import Int8Backbone
from app.features.shards import SHARD_ROWS
from app.inference.engine_choice import USUAL, Task, choose_engine
from app.inference.engines import compile_model
from app.network.batch_memory import halving
from app.network.classifier import prefix
from app.network.device import on_gpu
from app.network.onnx_graph import float16_outputs, output_of, to_onnx

# Of frozen layers: pixels uint8 (n, size, size, 3) → activations (n, ...), one array for each cut:
# float16 from ONNX Runtime, float32 or what its backend has for bfloat16 from Keras.
Forward = Callable[[NDArray[Any]], list[NDArray[Any]]]

MAX_BATCH = SHARD_ROWS  # no more are asked for at once
GAIN = 1.05  # photos a second that a doubled batch must bring at least
NAME = "the frozen layers"  # in what is said of them
REPEAT = 3  # timed runs of each batch size; the best one counts


class FeatureExtractor:
    """Computes features in batches, smaller ones from where on memory does not suffice.

    Args:
        forward: computes the features of all photos that it is given at once.
        batch: photos at once, to begin with.
        name: of the layers, in what is said of them.
    """

    def __init__(self, forward: Forward, batch: int = BATCH, name: str = NAME) -> None:
        self.forward, self.batch, self.name = forward, batch, name

    def __call__(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the features of ``images``, whose number is free."""
        parts: list[list[NDArray[Any]]] = []
        done = 0
        while done < len(images):
            parts.append(halving(partial(self._part, images, done), self.batch, self.name))
            done += len(parts[-1][0])
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def _part(self, images: NDArray[Any], start: int, batch: int) -> list[NDArray[Any]]:
        self.batch = batch
        return self.forward(images[start : start + batch])


def engine(precision: str) -> str:
    """Return what computes the frozen layers: ``onnxruntime``, or Keras's backend and its device.

    Args:
        precision: ``int8``, ``float32`` or ``bfloat16``.
    """
    if precision == "int8" or (precision == "float32" and not on_gpu()):
        return "onnxruntime"
    backend = keras.backend.backend()
    return f"{backend} {installed_version(backend)} on a {'GPU' if on_gpu() else 'processor'}"


def make_extractor(
    model: keras.Model,
    cuts: Sequence[str],
    precision: str,
    photos: int = 0,
    int8: Int8Backbone | None = None,
    engine_of_onnx: Engine = USUAL,
) -> FeatureExtractor:
    """Return what computes the activations at ``cuts``.

    Args:
        model: from ``app.network.classifier.build_classifier``, its backbone's weights set. ONNX
            Runtime copies them, Keras does not: use the function before anything below the cuts is
            trained.
        cuts: names out of ``app.network.classifier.CUTS``.
        precision: ``float32`` or ``bfloat16``, as the model was built.
        photos: how many are to be computed; on a GPU the batch size that is the fastest is found
            by trying, if they are enough to make up for that.
        int8: the same layers in int8 (``app.features.int8_backbone``), which then compute.
        engine_of_onnx: what computes where Keras does not (``onnx_engine``).
    """
    if int8 is not None:
        return FeatureExtractor(_by_engine(onnx_task(model, cuts, int8), engine_of_onnx))
    lower = prefix(model, cuts)
    if engine(precision) != "onnxruntime":
        # With one output Keras gives the array itself.
        extractor = FeatureExtractor(
            lambda images: list(keras.tree.flatten(lower.predict_on_batch(images)))
        )
        if photos > MAX_BATCH and on_gpu():
            shape = model.input.shape[1:]
            extractor.batch = fastest_batch(
                lambda n: seconds_of(extractor.forward, shape, n), photos
            )
        return extractor
    return FeatureExtractor(_by_engine(onnx_task(model, cuts, None), engine_of_onnx))


def onnx_engine(
    model: keras.Model, cuts: Sequence[str], int8: Int8Backbone | None, wanted: Engine, photos: int
) -> EngineName:
    """Return what computes the frozen layers of so many photos where Keras does not.

    ``auto`` measures where that pays (``app.inference.engine_choice``).
    """
    return choose_engine(lambda: onnx_task(model, cuts, int8), wanted, photos)


def onnx_task(model: keras.Model, cuts: Sequence[str], int8: Int8Backbone | None) -> Task:
    """Return the frozen layers as ONNX, with the activations at ``cuts`` as float16."""
    names = [output_of(cut) for cut in cuts]
    proto = to_onnx(prefix(model, cuts), names) if int8 is None else int8.proto()
    float16_outputs(proto, names)
    data = proto.SerializeToString()
    names = [output.name for output in proto.graph.output]
    return Task(data, hashlib.sha256(data).hexdigest(), names, int(model.input.shape[1]))


def _by_engine(task: Task, engine: Engine) -> Forward:
    compiled = compile_model(choose_engine(lambda: task, engine), task.model)
    return lambda images: compiled.run(images, task.names)


def fastest_batch(seconds: Callable[[int], float], photos: float = math.inf) -> int:
    """Double the batch from 16 while it pays, and say what is taken.

    It ends when photos a second grow by less than 5 %, when memory does not suffice, at 128, or
    when trying (a GPU compiles for every size) has taken longer than all photos will.

    Args:
        seconds: of a batch of so many photos; raises as the backend does when memory is short.
        photos: how many are to be computed afterwards.
    """
    started = time.perf_counter()
    best, rate, batch = BATCH, 0.0, BATCH
    while batch <= MAX_BATCH:
        try:
            now = batch / seconds(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            break
        if now < GAIN * rate:
            break
        best, rate, batch = batch, now, 2 * batch
        if time.perf_counter() - started > photos / rate:
            break
    if rate:
        say(f"{NAME}: batches of {best}, {rate:.0f} photos a second")
    return best


def seconds_of(forward: Forward, shape: tuple[int, ...], batch: int) -> float:
    """Return the seconds of one batch of random photos, at its best of some runs."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    forward(images)  # compiles
    times = []
    for _ in range(REPEAT):
        started = time.perf_counter()
        forward(images)
        times.append(time.perf_counter() - started)
    return min(times)
