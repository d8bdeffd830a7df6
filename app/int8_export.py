"""The bundle's int8 model: a quarter of the size and of the time, if it says what float32 says.

The layers that stayed frozen are the very ones that computed the features in training
(``app.quantised``), so their answers for validation are in the cache. Only the blocks above them,
which were trained since, are brought to int8 here; on a run of stage ``head`` there are none.
Everything above block5 stays float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper
from onnx.utils import Extractor

from app.bundle import STRANGE
from app.config import Stage
from app.evaluation import probabilities_of, score
from app.export import OUTPUTS, Trained
from app.onnx_graph import output_of
from app.quantised import CALIBRATION_PHOTOS, Feed, QuantisedPrefix, write_int8
from app.sources import Source
from app.training import ViewBatches, targets_of

# The gate, on all validation photos, against what training said of them.
MOST_ACCURACY_LOST = 0.002
MOST_LABELS_CHANGED = 0.005
MOST_CALIBRATION_LOST = 0.005  # of the expected calibration error
MOST_REFUSED_MORE = 0.005  # share of the photos that are answered neither
ROUNDING = 1e-9  # shares that differ by exactly the bar come out a little more


@dataclass(frozen=True)
class Int8Gate:
    """What int8 costs on the validation photos, against what training said of them."""

    photos: int
    accuracy_lost: float
    labels_changed: float
    calibration_lost: float
    refused_more: float

    def fault(self) -> str:
        """Name the bars that are missed; empty when none is."""
        bars = {
            "accuracy lost": (self.accuracy_lost, MOST_ACCURACY_LOST),
            "labels changed": (self.labels_changed, MOST_LABELS_CHANGED),
            "calibration error added": (self.calibration_lost, MOST_CALIBRATION_LOST),
            "refused as neither, more": (self.refused_more, MOST_REFUSED_MORE),
        }
        return "; ".join(
            f"{name}: {value:.4f} of {self.photos} validation photos, more than {most}"
            for name, (value, most) in bars.items()
            if not value <= most + ROUNDING  # a NaN fails as well
        )


@dataclass(frozen=True)
class Int8Model:
    """The model, None where there is none; why; what it costs, None where nothing was measured."""

    model: onnx.ModelProto | None
    why_not: str
    gate: Int8Gate | None = None

    def said(self) -> str:
        """Say what became of it in one line."""
        if self.gate is None or self.why_not:
            return f"no int8 model: {self.why_not}"
        return (
            f"int8 model: {self.gate.labels_changed:.2%} of {self.gate.photos} validation photos "
            "are answered otherwise"
        )


def int8_model(
    exported: onnx.ModelProto, source: Source, stage: Stage, trained: Trained, *, mirror: bool
) -> Int8Model:
    """Return the int8 twin of an exported model, if it passes the gate.

    Args:
        exported: the float32 model, as ``app.export`` writes it.
        source: of the run's activations.
        stage: the last one.
        trained: what training said of the validation photos.
        mirror: whether the model looks at the mirror image too.
    """
    frozen = source.quantised
    if frozen is None:
        return Int8Model(None, "training did not compute the frozen layers in int8")
    if mirror:
        return Int8Model(None, "not for a model that looks at the mirror image too")
    upper = _upper_int8(exported, stage.cut, _calibration(source, stage))
    validation = source.batches(stage, "validation")
    answered = _answers(upper, stage.cut, validation)
    gate = int8_gate(targets_of(validation.photos), trained, answered)
    if fault := gate.fault():
        return Int8Model(None, fault, gate)
    return Int8Model(_joined(frozen, upper, stage.cut), "", gate)


def int8_gate(targets: NDArray[np.int32], trained: Trained, int8: Trained) -> Int8Gate:
    """Compare what int8 says with what training said of photos of classes ``targets`` ``(n,)``."""
    labels, expected = (each.probabilities.argmax(axis=1) for each in (int8, trained))
    before, after = (score(targets, each.probabilities) for each in (trained, int8))
    refused, refused_before = ((each.novelty > STRANGE).mean() for each in (int8, trained))
    return Int8Gate(
        photos=len(targets),
        accuracy_lost=before.accuracy - after.accuracy,
        labels_changed=float((labels != expected).mean()),
        calibration_lost=after.ece - before.ece,
        refused_more=float(refused - refused_before),
    )


def _calibration(source: Source, stage: Stage) -> Iterator[Feed]:
    """Yield the activations at the stage's cut of some training photos, one by one."""
    batches = source.batches(stage, "train")
    count = len(batches.photos)
    chosen = np.unique(np.linspace(0, count - 1, CALIBRATION_PHOTOS).astype(int))
    batches.keep(chosen.tolist())
    for rows in _rows(batches):
        for row in rows:
            yield {output_of(stage.cut): row[None]}


def _rows(batches: ViewBatches) -> Iterator[NDArray[np.float32]]:
    for number in range(len(batches)):
        yield np.asarray(batches[number][0], np.float32)


def _upper_int8(exported: onnx.ModelProto, cut: str, scales: Iterator[Feed]) -> onnx.ModelProto:
    """Return the layers above a cut, from activations ``(batch, height, width, channels)``."""
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
    if not any(node.op_type == "Conv" for node in upper.graph.node):
        return upper  # nothing was trained below the head
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upper.onnx"
        write_int8(upper, path, scales)
        return onnx.load(path)


def _answers(upper: onnx.ModelProto, cut: str, batches: ViewBatches) -> Trained:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        upper.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    asked_for_only = onnxruntime.RunOptions()
    asked_for_only.only_execute_path_to_fetches = True  # not the maps
    parts = [
        session.run(["logits", "novelty"], {output_of(cut): rows}, asked_for_only)
        for rows in _rows(batches)
    ]
    logits, novelty = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return Trained(probabilities_of(logits), novelty[:, 0])


def _joined(frozen: QuantisedPrefix, upper: onnx.ModelProto, cut: str) -> onnx.ModelProto:
    """Put the frozen layers and those above them together: pixels → answers."""
    at_cut = output_of(cut)
    lower = Extractor(frozen.proto()).extract_model(["image"], [at_cut])
    joined = compose.merge_models(lower, upper, io_map=[(at_cut, at_cut)], outputs=list(OUTPUTS))
    onnx.checker.check_model(joined)
    return joined
