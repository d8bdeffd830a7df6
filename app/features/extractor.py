"""Computes features: pixels → the activations of the frozen layers at the cuts.

``make_extractor`` chooses what computes, Keras or an engine (ONNX Runtime or OpenVINO,
``app.inference.engine_choice``), and in which numbers.

On a processor with VNNI instructions ONNX Runtime computes in int8
(``app.features.int8_backbone``): 36 ms a photo of 320 pixels on two Zen 5 cores, against 63 in
bfloat16 by Keras and 155 in float32. Without them, and without bfloat16's, it is the faster engine
for float32 too (185 against 263 ms a photo at 224 pixels on two Zen 3 cores,
``python -m benchmarks.frozen``). Its features are the same under every Keras backend. A GPU, or
bfloat16, is Keras's.

How many photos go through at once changes the time and the memory, never a photo's activations
beyond rounding. On a processor 16 is as fast as any, on a GPU 32.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.core.config import Engine, EngineName
from app.core.environment import installed_version
from app.core.errors import out_of_memory
from app.data.augmentation import BATCH
from app.features.int8_backbone import Int8Backbone
from app.features.ray_features import KerasLayers, OnnxLayers
from app.inference.engine_choice import USUAL, Task, choose_engine
from app.inference.engines import compile_model
from app.network.batch_memory import halving
from app.network.classifier import prefix
from app.network.device import on_gpu
from app.network.onnx_graph import float16_outputs, output_of, to_onnx
from app.network.whole_batches import compute_of, filled

# Of frozen layers: pixels uint8 (n, size, size, 3) → activations float16 (n, ...), one array for
# each cut; of a GPU they may be on their way yet.
Forward = Callable[[NDArray[Any]], list[Any]]

# An H100 computes 7,200 photos of 320 pixels a second in batches of 32, and 8,100 in those of 256;
# with sending and fetching 5,100 and 3,100 (docs/experiments.md).
GPU_BATCH = 32
AHEAD = 2  # batches that are begun before one is fetched
MOST = 65_504.0  # float16's; activations of photos stay below it by far, and clipping keeps it so
NAME = "the frozen layers"  # in what is said of them


class FeatureExtractor:
    """Computes features in batches, smaller ones from where on memory does not suffice.

    Args:
        forward: computes the features of all photos that it is given at once.
        batch: photos at once, to begin with.
        name: of the layers, in what is said of them.
        by_keras: ``forward`` is Keras's, which may compile anew for each number of photos: batches
            are filled up (``app.network.whole_batches``).
    """

    def __init__(
        self, forward: Forward, batch: int = BATCH, name: str = NAME, *, by_keras: bool = True
    ) -> None:
        self.forward, self.batch, self.name, self.by_keras = forward, batch, name, by_keras

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

    def stream(self, batches: Iterable[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
        """Yield the features of each batch; the next two are computed before one is fetched.

        So a GPU computes while the processor fetches and uses what it computed before.
        """
        begun: deque[tuple[NDArray[Any], list[Any] | None]] = deque()
        for images in batches:
            begun.append((images, self._begin(images)))
            if len(begun) > AHEAD:
                yield self._end(*begun.popleft())
        while begun:
            yield self._end(*begun.popleft())

    def _begin(self, images: NDArray[Any]) -> list[Any] | None:
        """Begin to compute; None where it must be done in smaller batches."""
        if len(images) > self.batch:
            return None
        return self._try(lambda: self.forward(self._filled(images)))

    def _end(self, images: NDArray[Any], outputs: list[Any] | None) -> list[NDArray[Any]]:
        rows = None if outputs is None else self._try(lambda: _fetched(outputs, len(images)))
        return self(images) if rows is None else rows

    def _try(self, work: Callable[[], list[Any]]) -> list[Any] | None:
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error):
                raise
        return None

    def _part(self, images: NDArray[Any], start: int, batch: int) -> list[NDArray[Any]]:
        self.batch = batch
        some = images[start : start + batch]
        return _fetched(self.forward(self._filled(some)), len(some))

    def _filled(self, images: NDArray[Any]) -> NDArray[Any]:
        return filled(images, self.batch) if self.by_keras else images


def _fetched(outputs: list[Any], count: int) -> list[NDArray[Any]]:
    """Wait for what a device computes; return its first rows in the processor's memory."""
    numpy = keras.ops.convert_to_numpy
    return [(each if isinstance(each, np.ndarray) else numpy(each))[:count] for each in outputs]


def engine(precision: str, chosen: Engine = USUAL) -> str:
    """Return what computes the frozen layers.

    That is ``onnxruntime``, whose version is in every key of the cache, another engine with its
    version, or Keras's backend with its version and device.

    Args:
        precision: ``int8``, ``float32`` or ``bfloat16``.
        chosen: what computes where Keras does not; ``auto``: not chosen yet, or by few photos.
    """
    if precision == "int8" or (precision == "float32" and not on_gpu()):
        return USUAL if chosen in ("auto", USUAL) else f"{chosen} {installed_version(chosen)}"
    return made_by_keras()


def made_by_keras() -> str:
    """Return Keras's backend, its version, and the kind of device that it computes on."""
    backend = keras.backend.backend()
    return f"{backend} {installed_version(backend)} on a {'GPU' if on_gpu() else 'processor'}"


def make_extractor(
    model: keras.Model,
    cuts: Sequence[str],
    precision: str,
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
        int8: the same layers in int8 (``app.features.int8_backbone``), which then compute.
        engine_of_onnx: what computes where Keras does not (``onnx_engine``).
    """
    if int8 is None and by_keras(precision):
        return keras_extractor(prefix(model, cuts))
    task = onnx_task(model, cuts, int8)
    compiled = compile_model(choose_engine(lambda: task, engine_of_onnx), task.model)
    return FeatureExtractor(lambda images: compiled.run(images, task.names), by_keras=False)


def by_keras(precision: str) -> bool:
    """Say whether Keras computes frozen layers, rather than an engine."""
    return engine(precision) != USUAL


def keras_extractor(lower: keras.Model) -> FeatureExtractor:
    """Return what computes the outputs of the frozen layers by Keras."""
    return FeatureExtractor(_by_keras(lower), GPU_BATCH if on_gpu() else BATCH)


def travelling_layers(
    model: keras.Model,
    cuts: Sequence[str],
    precision: str,
    int8: Int8Backbone | None,
    engine_of_onnx: EngineName,
) -> OnnxLayers | KerasLayers:
    """Return the layers of ``make_extractor`` for other processes, which compute as it does.

    Args:
        model: as there, like the others.
        cuts: names.
        precision: of the frozen layers; ``int8`` where ``int8`` computes.
        int8: the layers in int8, or None.
        engine_of_onnx: what computes where Keras does not; chosen here, for all of them.
    """
    if int8 is None and by_keras(precision):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "layers.keras"
            prefix(model, cuts).save(file)
            return KerasLayers(file.read_bytes(), keras.backend.backend(), made_by_keras())
    task = onnx_task(model, cuts, int8)
    return OnnxLayers(task, engine_of_onnx, int8 is not None)


def _by_keras(lower: keras.Model) -> Forward:
    """Compute on Keras's device and round to float16 there: a processor takes 1.6 ms a photo."""
    ops, outputs = keras.ops, keras.tree.flatten(lower.output)
    halves = [ops.cast(ops.clip(each, -MOST, MOST), "float16") for each in outputs]
    rounded = keras.Model(lower.input, halves)
    compute = compute_of(rounded)
    return lambda images: keras.tree.flatten(compute(images))  # with one output it is no list


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
