"""Which training photos a photo is most like: the reason for *neither*.

The exported model compares each photo with the training photos (``app.evaluation.ood``). The same
cosines, asked for by the name of their node, say which of them are the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from app.core.config import read_config
from app.core.errors import AppError, BundleError
from app.core.run_folder import Run
from app.data.decode import Pixels
from app.data.manifest import Photo, class_names, photos_of, read_manifest
from app.inference.bundle_format import ONNX_FILE, Bundle
from app.training.nystroem import choose_landmarks

SHOWN = 5  # photos
# The layer of the cosines: REFERENCE in app.network.classifier, which would bring Keras.
REFERENCE = "similarity"


@dataclass(frozen=True)
class Similar:
    """A training photo that is like the one that was asked about.

    Attributes:
        number: of the photo, by which its picture is asked for.
        name: its path below the data folder.
        label: its class.
        likeness: the cosine of the two embeddings, 0 to 1.
    """

    number: int
    name: str
    label: str
    likeness: float


class SimilarPhotos:
    """Finds the training photos of a run that a photo is most like.

    Args:
        run: a finished run.

    Attributes:
        photos: of training, those that the model compares with.

    Raises:
        AppError: when the run's files do not tell which photos these are.
    """

    def __init__(self, run: Run) -> None:
        rows = read_manifest(run.manifest)
        self.classes = class_names(rows)
        data = read_config(run.config, exact=False).data
        train = photos_of(rows, "train", data)
        numbers = choose_landmarks(np.array([photo.target for photo in train]))
        self.photos: list[Photo] = [train[number] for number in numbers.tolist()]
        path = Bundle.read(run.bundle).check_file(run.bundle, ONNX_FILE)
        self._session = _session(path)
        if self._session.get_outputs()[0].shape[-1] != len(self.photos):
            raise BundleError(
                f"expected a model that compares with the {len(self.photos)} training photos of "
                f"{run.manifest}; received another one; train again"
            )

    def find(self, pixels: Pixels) -> list[Similar]:
        """Return the most similar training photos, the nearest first.

        Args:
            pixels: uint8 ``(size, size, 3)``, as ``app.data.decode.load_image`` makes them.
        """
        (cosines,) = self._session.run(None, {"image": pixels[None]})
        cosines = cosines.mean(axis=0)  # over the photo and its mirror image, where both are seen
        nearest = np.argsort(-cosines, kind="stable")[:SHOWN]
        return [
            Similar(n, photo.name, self.classes[photo.target], float(cosines[n]))
            for n, photo in ((n, self.photos[n]) for n in nearest.tolist())
        ]


def _session(path: Path) -> onnxruntime.InferenceSession:
    """Return the part of a model from the pixels to the cosines with each photo of reference."""
    model = onnx.load(str(path), load_external_data=False)
    producers = {name: node for node in model.graph.node for name in node.output}
    if REFERENCE not in producers:
        raise BundleError(f"expected {path} to compare photos; received one that does not")
    needed, waiting = set(), [REFERENCE]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting.extend(node.input)
    nodes = [node for node in model.graph.node if node.name in needed]
    used = {name for node in nodes for name in node.input}
    weights = [each for each in model.graph.initializer if each.name in used]
    count = next(each.dims[-1] for each in weights if each.name == f"{REFERENCE}/kernel")
    output = onnx.helper.make_tensor_value_info(REFERENCE, onnx.TensorProto.FLOAT, [None, count])
    graph = onnx.helper.make_graph(nodes, "similar", model.graph.input, [output], weights)
    part = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def similar_photos(run: Run) -> SimilarPhotos | None:
    """Return what finds similar photos; None where the run does not tell which these are."""
    try:
        return SimilarPhotos(run)
    except (AppError, OSError, KeyError, ValueError):
        return None
