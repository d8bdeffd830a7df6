"""The frozen layers in int8: weights and activations as 8-bit numbers with a scale.

On a processor with VNNI instructions it takes a quarter of float32's time and half of bfloat16's;
the head learned as well from its activations as from bfloat16's (docs/experiments.md). Static
quantisation by ONNX Runtime: a scale for each channel of a kernel, and one for each activation,
wide enough for all that some training photos give. Source: Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".

The scales depend on the photos. The model is therefore kept beside the cache that it fills, and a
later run on other photos goes on with it: else every new photo would make the cache worthless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from app.atomic import whole
from app.console import progress_bar, say
from app.device import has_vnni
from app.model import CUTS, prefix
from app.onnx_graph import output_of, to_onnx
from app.photos import Photo
from app.views import View, load_batches

CALIBRATION_PHOTOS = 32
VERSION = 1  # raise it when the same photos give other scales
QUANTISED = ["Conv", "Relu", "MaxPool"]


def quantised_prefix(
    folder: Path, model: keras.Model, digest: str, photos: Sequence[Photo]
) -> tuple[Path, str]:
    """Return the int8 model of all frozen layers, and its SHA-256; make it where it is not there.

    Args:
        folder: where it is kept.
        model: from ``app.model.build_classifier``, its backbone's weights set.
        digest: of these weights.
        photos: of training; up to 32, spread evenly, give the scales.
    """
    size = model.input.shape[1]
    key = f"{model.name} {digest} {size} {VERSION} {has_vnni()}"
    path = folder / f"int8-{hashlib.sha256(key.encode()).hexdigest()[:16]}.onnx"
    if not path.exists():
        chosen = np.unique(np.linspace(0, len(photos) - 1, CALIBRATION_PHOTOS).astype(int))
        say(f"int8 for the frozen layers: {len(chosen)} training photos give the scales")
        with whole(path) as temporary:
            quantise(model, [photos[number] for number in chosen], temporary)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def quantise(model: keras.Model, photos: Sequence[Photo], path: Path) -> None:
    """Write the int8 model of the layers up to the highest cut, an output for each cut."""
    proto = to_onnx(prefix(model, CUTS), [output_of(cut) for cut in CUTS])
    # Else it recommends on stderr a preparation that this graph does not need.
    onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})
    quantize_static(
        proto,
        path,
        _Photos(photos, model.input.shape[1]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=QUANTISED,
        nodes_to_exclude=["preprocessing"],  # whole pixels less a mean: exact in float32
        per_channel=True,
        # Without VNNI two products are added up in 16 bits, which 8-bit weights would overflow.
        reduce_range=not has_vnni(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def read_outputs(path: Path, cuts: Sequence[str]) -> bytes:
    """Return the model at ``path`` with the outputs of ``cuts`` alone, in their order."""
    proto = onnx.load(path)
    outputs = {output.name: output for output in proto.graph.output}
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[output_of(cut)] for cut in cuts)
    result: bytes = proto.SerializeToString()
    return result


class _Photos(CalibrationDataReader):  # type: ignore[misc]
    """Hands the photos to ONNX Runtime, one by one."""

    def __init__(self, photos: Sequence[Photo], size: int) -> None:
        self._inputs = self._walk([View(photo, 0, 0) for photo in photos], size)

    def _walk(self, views: Sequence[View], size: int) -> Iterator[dict[str, NDArray[Any]]]:
        with progress_bar() as bar:
            task = bar.add_task("Calibrating int8", total=len(views))
            for images in load_batches(views, size, batch=1):
                yield {"image": images}
                bar.advance(task)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next input, None after the last."""
        return next(self._inputs, None)
