"""The exported model above a cut: activations of the frozen layers → answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.utils import Extractor

from app.core.config import EngineName
from app.data.manifest import Photo
from app.evaluation.metrics import probabilities_of
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import OUTPUTS
from app.features.batches import targets_of
from app.inference.engine_choice import USUAL
from app.inference.engines import compile_model
from app.network.onnx_graph import output_of


def upper_part(exported: onnx.ModelProto, cut: str) -> onnx.ModelProto:
    """Return the layers above a cut, from activations ``(batch, height, width, channels)``.

    Args:
        exported: the float32 model, from ``app.export.bundle_writer.classifier_graph``.
        cut: out of ``app.network.classifier.CUTS``; the input is called ``output_of(cut)``.
    """
    known = onnx.shape_inference.infer_shapes(exported)
    upper = Extractor(known).extract_model([cut], list(OUTPUTS))
    (given,) = upper.graph.input
    _, channels, height, width = given.type.tensor_type.shape.dim
    shape = ["batch", height.dim_value, width.dim_value, channels.dim_value]
    name = output_of(cut)
    upper.graph.input[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    turned = f"{cut}/turned"  # a name that the frozen layers do not have, which are put below
    for node in upper.graph.node:
        node.input[:] = [turned if tensor == cut else tensor for tensor in node.input]
    transpose = helper.make_node("Transpose", [name], [turned], name=turned, perm=[0, 3, 1, 2])
    upper.graph.node.insert(0, transpose)
    del upper.graph.value_info[:]
    return upper


def predictions_of(
    graph: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    photos: Sequence[Photo],
    engine: EngineName = USUAL,
) -> PredictionSet:
    """Return what a model predicts for photos, given as batches of its input."""
    compiled = compile_model(engine, graph.SerializeToString())
    classes = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    logits, novelty = [np.empty((0, classes), np.float32)], [np.empty((0, 1), np.float32)]
    for batch in batches:
        some_logits, some_novelty = compiled.run(batch, ("logits", "novelty"))
        logits.append(some_logits)
        novelty.append(some_novelty)
    return PredictionSet(
        tuple(photo.name for photo in photos),
        targets_of(photos),
        probabilities_of(np.concatenate(logits)),
        np.concatenate(novelty)[:, 0],
    )
