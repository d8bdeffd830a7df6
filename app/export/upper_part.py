"""The exported model above a cut: activations of the frozen layers → answers.

A head run leaves the backbone as it is, so what that gives for a photo stays the same from run to
run: the cache keeps it, and only what lies above is computed (``from_kept_activations``). The
activations are those of the exported model's own frozen layers, in its numbers and by its engine,
rounded to float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeGuard

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.utils import Extractor

from app.core.config import EngineName, Stage
from app.core.console import say
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import View
from app.data.manifest import Photo
from app.evaluation.metrics import probabilities_of
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import OUTPUTS
from app.features.batches import targets_of
from app.features.dataset import HEAD_CUT, CachedDataset, FeatureDataset
from app.features.extractor import engine, make_extractor
from app.features.store import FeatureStore, kept_rows
from app.inference.engine_choice import USUAL
from app.inference.engines import compile_model
from app.network.classifier import prefix
from app.network.device import on_gpu
from app.network.onnx_graph import output_of, to_onnx


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


def keeps_activations(source: FeatureDataset, stage: Stage) -> TypeGuard[CachedDataset]:
    """Say whether the cache keeps what the backbone gives after the last stage.

    It does not where the backbone was trained, on a GPU, whose activations are not the bundle's,
    and with ``--cache off``.
    """
    return not stage.opens and not on_gpu() and isinstance(source, CachedDataset)


def from_kept_activations(
    graph: onnx.ModelProto,
    source: FeatureDataset,
    stage: Stage,
    photos: Sequence[Photo],
    precision: Literal["int8", "float32"],
    engine_name: EngineName = USUAL,
) -> PredictionSet | None:
    """Return what an exported model predicts for photos, each looked at once (no mirror image).

    Activations that the cache does not keep yet are computed, and kept.

    Args:
        graph: the float32 model; what lies above the backbone is the same in int8.
        source: of the run's features.
        stage: the last one.
        photos: to be answered; those that are kept are not read.
        precision: of the frozen layers.
        engine_name: that computes.

    Returns:
        None where nothing is kept (``keeps_activations``) or there is no room for it, and where
        the backbone is another one in ``graph``.
    """
    if not keeps_activations(source, stage):
        return None
    int8 = source.int8_twin if precision == "int8" else None
    if int8 is None and not _has_backbone_of(source.spec.model, graph):
        return None
    spec = replace(
        source.stores[HEAD_CUT].spec,
        precision="float32" if int8 is None else int8.precision,
        engine=engine(precision, engine_name),
    )
    store = FeatureStore(source.quota.folder, spec, source.quota)
    model, size = source.spec.model, source.spec.image_size
    make = partial(make_extractor, model, [HEAD_CUT], "float32", int8, engine_name)
    rows = kept_rows(store, [View(photo, 0, 0) for photo in photos], size, make)
    try:
        return predictions_of(upper_part(graph, HEAD_CUT), rows, photos, engine_name)
    except (UsageError, CacheEvictedError) as error:  # the run goes on without the cache
        say(f"the activations of {len(photos)} photos are not kept: {error}")
        return None


def _has_backbone_of(model: keras.Model, graph: onnx.ModelProto) -> bool:
    """Say whether an exported model has, node by node, the layers that compute the features."""
    known = onnx.shape_inference.infer_shapes(graph)
    lower = Extractor(known).extract_model([graph.graph.input[0].name], [HEAD_CUT]).graph
    expected = to_onnx(prefix(model, [HEAD_CUT]), [output_of(HEAD_CUT)]).graph
    constants, expected_constants = (
        {each.name: each.raw_data for each in some.initializer} for some in (lower, expected)
    )
    # The last node brings the channels to the end, for the cache.
    return list(lower.node) == list(expected.node)[:-1] and constants == expected_constants
