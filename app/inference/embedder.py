"""A bundle and photos → embeddings: where a photo lies among others, by which novelty is measured.

The exported model computes them on its way (``app.evaluation.ood``); here they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.core.errors import BundleError, ImageError
from app.data.decode import DECODERS, Pixels, load_image
from app.data.photo_file import read_bytes
from app.evaluation.ood import unit_length
from app.inference.bundle_format import ONNX_FILE, Bundle
from app.inference.engines import compile_model

REFERENCE = "similarity"  # the layer that compares with training photos (app.network.classifier)

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddedPhoto:
    """What a model says of one file.

    Attributes:
        path: of the file.
        sha256: of its bytes, hexadecimal.
        embedding: float32 ``(channels,)``, of unit length.
        probabilities: float32 ``(classes,)``; None where no classes are known.
        novelty: 0 to 1; None likewise.
    """

    path: Path
    sha256: str
    embedding: Float32s
    probabilities: Float32s | None = None
    novelty: float | None = None


class Embedder:
    """The exported model, in float32, with its embeddings as one more output.

    Args:
        folder: a run's ``bundle/``.

    Attributes:
        bundle: what the bundle says of itself.
        reference: ``(n, channels)``, embeddings of the training photos that novelty is measured by.

    Raises:
        BundleError: when the bundle is missing or changed, or its model compares no photos.
    """

    def __init__(self, folder: Path) -> None:
        self.bundle = Bundle.read(folder)
        path = self.bundle.check_file(folder, ONNX_FILE)
        model = onnx.load(str(path), load_external_data=False)
        weights = {each.name: each for each in model.graph.initializer}
        found = [node for node in model.graph.node if REFERENCE in node.output]
        if len(found) != 1 or f"{REFERENCE}/kernel" not in weights:
            raise BundleError(
                f"expected {path} to compare photos with those of training; received a model that "
                "does not; train again"
            )
        name = found[0].input[0]
        self.reference: Float32s = numpy_helper.to_array(weights[f"{REFERENCE}/kernel"]).T
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        self._outputs = [name, "probabilities", "novelty"]
        self._model = compile_model("onnxruntime", model.SerializeToString())

    def look(self, paths: Iterable[Path]) -> Iterator[EmbeddedPhoto | ImageError]:
        """Yield what the model says of files, in their order; for one that is no photo the reason.

        One at a time: of a model that also sees the mirror image, the mean of both is taken.
        """
        for path, loaded in load_photos(paths, self.bundle.image_size):
            yield loaded if isinstance(loaded, ImageError) else self._look(path, *loaded)

    def embedding_of(self, pixels: Pixels) -> Float32s:
        """Return the embedding ``(channels,)`` of a photo, uint8 ``(size, size, 3)``."""
        (embedding,) = self._model.run(pixels[None], self._outputs[:1])
        return _mean(embedding)

    def _look(self, path: Path, sha256: str, pixels: Pixels) -> EmbeddedPhoto:
        embedding, probabilities, novelty = self._model.run(pixels[None], self._outputs)
        novel = float(novelty.ravel()[0])
        return EmbeddedPhoto(path, sha256, _mean(embedding), probabilities[0], novel)


def _mean(embeddings: Float32s) -> Float32s:
    """Return the mean of a photo's views at unit length."""
    mean: Float32s = unit_length(embeddings.mean(axis=0, keepdims=True))[0]
    return mean


def load_photos(
    paths: Iterable[Path], image_size: int
) -> Iterator[tuple[Path, tuple[str, Pixels] | ImageError]]:
    """Yield files with their SHA-256 and pixels, or with the reason why they are no photo."""

    def load(path: Path) -> tuple[str, Pixels] | ImageError:
        try:
            data = read_bytes(path)
            return hashlib.sha256(data).hexdigest(), load_image(data, image_size)
        except ImageError as error:
            return error

    remaining = iter(paths)
    with ThreadPoolExecutor(DECODERS) as pool:
        while some := list(islice(remaining, DECODERS)):
            yield from zip(some, pool.map(load, some), strict=True)
