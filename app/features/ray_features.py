"""Features computed by workers of Ray (``train.py --ray``): views go out, rows come back.

A worker has one span of views at a time, which becomes one shard of the cache, and the cache is
written by the run's own process: it has the same shards as without Ray, and training reads them
from its own disk. Only photos must be readable on all machines, under the same paths.

Nothing here imports Keras by itself: where an engine computes, a worker does without.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from app.core.config import EngineName
from app.core.environment import has_vnni, installed_version, require_engine
from app.core.errors import AppError, out_of_memory
from app.core.ray_workers import RayCluster, RayWorkers
from app.data.augmentation import BATCH, View, load_batches
from app.data.decode import Pixels
from app.features.shards import SHARD_ROWS, Float16s
from app.features.store import (
    FeatureStore,
    features_progress,
    rows_of,
    spans,
    versions,
    write_spans,
)
from app.inference.engine_choice import Task
from app.inference.engines import compile_model

# Batches of pixels → the activations at each cut of each batch.
Stream = Callable[[Iterable[Pixels]], Iterable[list[NDArray[Any]]]]


@dataclass(frozen=True)
class OnnxLayers:
    """Frozen layers that an engine computes, as they travel to a worker.

    Attributes:
        task: the layers as ONNX, and the names of the cuts' outputs.
        engine: that computes.
        int8: whether the layers are in int8, whose numbers depend on the processor's instructions.
    """

    task: Task
    engine: EngineName
    int8: bool

    @property
    def made_by(self) -> str:
        """What computes in this process, which must be the same everywhere."""
        vnni = f" {'with' if has_vnni() else 'without'} VNNI" if self.int8 else ""
        return f"{self.engine} {installed_version(self.engine)}{vnni}"

    def environment(self, cluster: RayCluster) -> dict[str, str]:
        """Return the variables of a worker's process; an engine needs none."""
        return {}

    def load(self, threads: int) -> tuple[Stream, int, str]:
        """Return what computes with so many threads, in batches of how many, and its name."""
        require_engine(self.engine)
        compiled = compile_model(self.engine, self.task.model, threads)
        names = self.task.names
        return lambda batches: (compiled.run(b, names) for b in batches), BATCH, self.made_by


@dataclass(frozen=True)
class KerasLayers:
    """Frozen layers that Keras computes, as they travel to a worker.

    Attributes:
        file: what Keras writes as ``.keras``.
        backend: Keras's.
        made_by: what computes, with its version and the kind of device.
    """

    file: bytes
    backend: str
    made_by: str

    def environment(self, cluster: RayCluster) -> dict[str, str]:
        """Return the variables of a worker's process, which Keras reads when it is imported."""
        variables = {"KERAS_BACKEND": self.backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if not cluster.gpus:  # of PyTorch Ray itself limits the threads
            variables |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": str(cluster.cpus)}
        return variables

    def load(self, threads: int) -> tuple[Stream, int, str]:
        """Return what computes, in batches of how many, and its name."""
        import keras

        from app.features.extractor import keras_extractor, made_by_keras

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "layers.keras"
            file.write_bytes(self.file)
            extractor = keras_extractor(keras.saving.load_model(file, compile=False))
        return extractor.stream, extractor.batch, made_by_keras()


class FeatureWorker:
    """Computes the rows of spans of views, having loaded the frozen layers once.

    Args:
        layers: as they travel.
        made_by: what computes them in the run's own process.
        expected: the versions of what else makes activations there (``app.features.store``).
        image_size: height and width of a view in pixels.
        threads: that decode, and that an engine computes with.

    Raises:
        AppError: when another version, or another kind of device, would compute here: the cache
            would then hold rows that are computed in two ways.
    """

    def __init__(
        self,
        layers: OnnxLayers | KerasLayers,
        made_by: str,
        expected: str,
        image_size: int,
        threads: int,
    ) -> None:
        self._compute, self._batch, here = layers.load(threads)
        if (received := f"{versions()}, {here}") != f"{expected}, {made_by}":
            raise AppError(
                f"expected {expected}, {made_by} on every machine of the cluster, since features "
                f"depend on it; received {received} on {socket.gethostname()}; install the same "
                "versions there"
            )
        self._size, self._threads = image_size, threads

    def __call__(self, views: Sequence[View]) -> list[Float16s]:
        """Return the rows of some views, an array ``(n, ...)`` for each cut."""
        batches = load_batches(views, self._size, self._batch, threads=self._threads)
        try:
            return rows_of(self._compute(batches))
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise AppError(
                f"expected memory for {self._batch} views at once; received too little on "
                f"{socket.gethostname()}; choose fewer --workers"
            ) from error


def compute_features_by_ray(
    cluster: RayCluster,
    layers: OnnxLayers | KerasLayers,
    stores: Sequence[FeatureStore],
    missing: Sequence[View],
    image_size: int,
    row_bytes: int,
) -> None:
    """Fill the stores with the rows of ``missing``, as ``app.features.store.compute_features``.

    Args:
        cluster: where the workers are.
        layers: give one array for each store, in their order.
        stores: one for each cut.
        missing: views, each of which is computed.
        image_size: height and width of a view in pixels.
        row_bytes: of a view, in all stores.

    Raises:
        AppError: as ``compute_features``, or when a worker cannot do it.
        UsageError: when there is no such cluster, or a shard has no room.
    """
    make = partial(FeatureWorker, layers, layers.made_by, versions(), image_size, cluster.cpus)
    workers = RayWorkers[Sequence[View], list[Float16s]](
        cluster,
        make,
        environment=layers.environment(cluster),
        result_bytes=SHARD_ROWS * row_bytes,
    )
    with workers, features_progress(len(missing)) as advance:

        def computed() -> Iterator[tuple[Sequence[View], list[Float16s]]]:
            tasks = (list(map(_everywhere, span)) for span in spans(missing))
            for views, rows, _ in workers.results(tasks, _named):
                advance(len(views))
                yield views, rows

        write_spans(stores, computed())


def _everywhere(view: View) -> View:
    """Return a view whose photo is found from any folder."""
    return replace(view, photo=replace(view.photo, path=view.photo.path.absolute()))


def _named(views: Sequence[View]) -> str:
    return f"the {len(views)} views from {views[0].photo.path} on"
