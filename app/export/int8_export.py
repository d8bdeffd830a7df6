"""The bundle's int8 model: a third of the size and of the time, if it answers alike.

The layers that stayed frozen are the very ones that computed the features in training
(``app.features.int8_backbone``), so their answers for validation are in the cache; where a GPU
computed the features, they are computed here. Only the blocks above them, which were trained since,
are brought to int8 here; on a run of stage ``head`` there are none.
Everything above block5 stays float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose
from onnx.utils import Extractor

from app.core.config import Engine, Stage
from app.core.console import percent, progress_bar
from app.data.augmentation import View, load_batches
from app.data.manifest import Photo
from app.evaluation.decision import Thresholds
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import GATE_BATCH, OUTPUTS
from app.export.int8_gate import (
    COMPARED,
    CONFIDENCE,
    Int8Gate,
    changed_far_from_lines,
    in_doubt,
    int8_gate,
)
from app.export.upper_part import from_kept_activations, predictions_of, upper_part
from app.features.batches import ViewBatches
from app.features.dataset import DatasetSpec, FeatureDataset
from app.features.extractor import make_extractor, onnx_engine
from app.features.int8_backbone import CALIBRATION_PHOTOS, Feed, Int8Backbone, write_int8
from app.inference.engine_choice import OTHER, USUAL
from app.network.onnx_graph import output_of


@dataclass(frozen=True)
class Int8Model:
    """The model, None where there is none; why; what it costs, None where nothing was measured."""

    model: onnx.ModelProto | None
    why_not: str
    gate: Int8Gate | None = None

    def summary(self) -> str:
        """Return in one line what became of it."""
        if self.gate is None or self.why_not:
            return f"no int8 model: {self.why_not}"
        return (
            f"int8 model: {percent(self.gate.labels_changed, 2)} of {self.gate.photos} photos "
            f"answered otherwise than by float32, which answered {self.gate.asked} in doubt; of "
            f"new photos at most {percent(self.gate.changed_at_most, 1)} (with "
            f"{percent(CONFIDENCE)} confidence)"
        )


def int8_model(
    graph: onnx.ModelProto,
    source: FeatureDataset,
    stage: Stage,
    thresholds: Thresholds,
    *,
    mirror: bool,
) -> Int8Model:
    """Return the int8 twin of an exported model, if it passes the gate.

    Args:
        graph: the float32 model, from ``app.export.bundle_writer.classifier_graph``.
        source: of the run's activations.
        stage: the last one.
        thresholds: of the answers.
        mirror: whether the model looks at the mirror image too.
    """
    frozen = source.int8_twin
    if frozen is None:
        return Int8Model(None, "the frozen layers were not computed in int8")
    if mirror:
        return Int8Model(None, "not for a model that looks at the mirror image too")
    upper = _upper_int8(graph, stage.cut, _calibration(source, stage))
    compared = [source.batches(stage, "validation")]
    if (lacking := COMPARED - len(compared[0].photos)) > 0:
        compared.append(_some_training(source, stage, lacking))
    photos = [photo for batches in compared for photo in batches.photos]
    if source.int8:
        engine = source.spec.engine
        rows: Iterator[NDArray[Any]] = (row for each in compared for row in _rows(each))
    else:
        engine = onnx_engine(
            source.spec.model, [stage.cut], frozen, source.spec.engine, len(photos)
        )
        rows = _computed(frozen, stage.cut, source.spec, photos, engine)
    int8 = predictions_of(upper, rows, photos, OTHER if engine == OTHER else USUAL)

    def by_float32(some: Sequence[Photo]) -> PredictionSet:
        kept = from_kept_activations(graph, source, stage, some, "float32")
        return _by_float32(graph, some) if kept is None else kept

    gate = _compare(int8, by_float32, photos, thresholds)
    if fault := gate.fault():
        return Int8Model(None, fault, gate if gate.measured else None)
    return Int8Model(_joined(frozen, upper, stage.cut, graph), "", gate)


def _compare(
    int8: PredictionSet,
    by_float32: Callable[[Sequence[Photo]], PredictionSet],
    photos: Sequence[Photo],
    thresholds: Thresholds,
) -> Int8Gate:
    """Let float32 answer the photos in doubt, or all of them, and compare."""
    asked = in_doubt(int8, thresholds)
    float32 = int8.replaced(asked, by_float32([photos[n] for n in asked]))
    if changed_far_from_lines(int8, float32, thresholds):
        asked = np.arange(len(photos))
        float32 = int8.replaced(asked, by_float32(photos))
    return int8_gate(int8, float32, len(asked), thresholds)


def _by_float32(graph: onnx.ModelProto, photos: Sequence[Photo]) -> PredictionSet:
    """Return the float32 model's predictions for photos."""
    size = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    views = [View(photo, 0, 0) for photo in photos]
    with progress_bar() as bar:
        task = bar.add_task("Comparing int8 with float32", total=len(views))
        batches = bar.track(load_batches(views, size, GATE_BATCH), task_id=task)
        return predictions_of(graph, batches, photos)


def _calibration(source: FeatureDataset, stage: Stage) -> Iterator[Feed]:
    """Yield the activations at the stage's cut of some training photos, one by one."""
    for rows in _rows(_some_training(source, stage, CALIBRATION_PHOTOS)):
        for row in rows:
            yield {output_of(stage.cut): row[None]}


def _some_training(source: FeatureDataset, stage: Stage, count: int) -> ViewBatches:
    """Return the batches of at most so many training photos, spread evenly over all."""
    batches = source.batches(stage, "train")
    chosen = np.unique(np.linspace(0, len(batches.photos) - 1, count).astype(int))
    batches.keep(chosen.tolist())
    return batches


def _rows(batches: ViewBatches) -> Iterator[NDArray[np.float32]]:
    for number in range(len(batches)):
        yield np.asarray(batches[number][0], np.float32)


def _computed(
    frozen: Int8Backbone, cut: str, spec: DatasetSpec, photos: Sequence[Photo], engine: Engine
) -> Iterator[NDArray[Any]]:
    """Yield what the frozen layers in int8 give for photos."""
    extractor = make_extractor(spec.model, [cut], "float32", frozen, engine)
    views = [View(photo, 0, 0) for photo in photos]
    with progress_bar() as bar:
        task = bar.add_task("Computing in int8", total=len(views))
        for (rows,) in extractor.stream(load_batches(views, spec.image_size, extractor.batch)):
            yield rows.astype(np.float32)
            bar.advance(task, len(rows))


def _upper_int8(exported: onnx.ModelProto, cut: str, scales: Iterator[Feed]) -> onnx.ModelProto:
    """Return the layers above a cut (``upper_part``), their convolutions in int8."""
    upper = upper_part(exported, cut)
    if not any(node.op_type == "Conv" for node in upper.graph.node):
        return upper  # nothing was trained below the head
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upper.onnx"
        write_int8(upper, path, scales)
        return onnx.load(path)


def _joined(
    frozen: Int8Backbone, upper: onnx.ModelProto, cut: str, exported: onnx.ModelProto
) -> onnx.ModelProto:
    """Put the frozen layers and those above them together: pixels → answers.

    What describes the float32 model describes this one.
    """
    at_cut = output_of(cut)
    lower = Extractor(frozen.proto()).extract_model(["image"], [at_cut])
    joined = compose.merge_models(lower, upper, io_map=[(at_cut, at_cut)], outputs=list(OUTPUTS))
    joined.graph.name = f"{exported.graph.name}_int8"
    joined.producer_name = exported.producer_name
    del joined.metadata_props[:], joined.opset_import[:]
    joined.metadata_props.extend(exported.metadata_props)
    # Quantisation lists its own operators' set and, once more, the usual one.
    joined.opset_import.extend({each.domain: each for each in upper.opset_import}.values())
    onnx.checker.check_model(joined)
    return joined
