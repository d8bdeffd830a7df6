"""The frozen layers in int8: weights and activations as 8-bit numbers with a scale.

On a processor with VNNI instructions it takes a quarter of float32's time and six tenths of
bfloat16's; a head learned as well from its activations (docs/experiments.md). Static
quantisation by ONNX Runtime: a scale for each channel of a kernel, and one for each activation,
wide enough for all that some training photos give. Source: Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".

The scales depend on the photos. They come from training photos of the run itself, chosen by
content: the same photos give the same scales, whatever other runs, file names and the order of
files are, and one photo more among thousands seldom changes them. The model is kept beside the
cache that it fills, so that the same photos find it again. Its name holds its digest, which proves
it whole. ``app.features.dataset.open_dataset`` decides whether a run computes in int8.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from app.core.atomic_files import whole, write_json
from app.core.console import progress_bar, say
from app.core.environment import has_vnni
from app.data.augmentation import View, load_batches
from app.data.manifest import Photo
from app.features.shards import SPEC_FILE, is_store, remove, store_name, touch
from app.features.store import versions
from app.network.classifier import CUTS, prefix
from app.network.onnx_graph import output_of, to_onnx

CALIBRATION_PHOTOS = 32
VERSION = 1  # raise it when the same photos give other scales
QUANTISED = ["Conv", "Relu", "MaxPool"]
Feed = dict[str, NDArray[Any]]  # what ONNX Runtime takes


@dataclass(frozen=True)
class Int8Backbone:
    """All frozen layers in int8.

    Attributes:
        model: as ONNX, serialised.
        digest: of all that the scales depend on: weights, photos, versions; 16 hex digits.
    """

    model: bytes
    digest: str

    @property
    def precision(self) -> str:
        """The number format with the digest of its scales, as ``FeatureSpec`` has it."""
        return f"int8-{self.digest[:8]}"

    def proto(self) -> onnx.ModelProto:
        """Return the model, with an output for each of ``app.network.classifier.CUTS``."""
        return onnx.load_from_string(self.model)


def make_int8_backbone(
    folder: Path, model: keras.Model, weights: str, photos: Sequence[Photo]
) -> Int8Backbone:
    """Return all frozen layers in int8, out of ``folder`` where they were made before.

    Args:
        folder: of all stores.
        model: from ``app.network.classifier.build_classifier``, its backbone's weights set.
        weights: their digest.
        photos: of training; the 32 with the lowest SHA-256, a random choice, give the scales.
    """
    chosen = sorted(photos, key=lambda photo: photo.content)[:CALIBRATION_PHOTOS]
    contents = "".join(photo.content for photo in chosen)
    spec = {
        "backbone": model.name,
        "weights": weights,
        "image_size": model.input.shape[1],
        "precision": "int8",
        "photos": hashlib.sha256(contents.encode()).hexdigest(),
        "versions": f"{VERSION}, {versions()}",
        "vnni": has_vnni(),
    }
    store = folder / store_name("int8", spec)
    digest = store.name.rpartition("-")[2]
    for path in sorted(store.glob("*.onnx")) if is_store(store) else []:
        if found := _read(path):
            return Int8Backbone(found, digest)
    say(f"int8 for the frozen layers: {len(chosen)} training photos give the scales")
    data = _quantise(model, chosen)
    if not is_store(store):
        write_json(spec, store / SPEC_FILE)
    with whole(store / f"{hashlib.sha256(data).hexdigest()}.onnx") as temporary:
        temporary.write_bytes(data)
    return Int8Backbone(data, digest)


def _read(path: Path) -> bytes | None:
    """Return a file's bytes and note the use; None when it is gone, or damaged and so removed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if path.stem != hashlib.sha256(data).hexdigest():
        remove(path)
        return None
    touch(path)
    return data


def _quantise(model: keras.Model, photos: Sequence[Photo]) -> bytes:
    """Return the layers up to the highest cut in int8, as ONNX with an output for each cut."""
    proto = to_onnx(prefix(model, CUTS), [output_of(cut) for cut in CUTS])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        write_int8(proto, path, _images(photos, model.input.shape[1]))
        return path.read_bytes()


def write_int8(proto: onnx.ModelProto, path: Path, inputs: Iterator[Feed]) -> None:
    """Write a model of ``app.network.onnx_graph`` with its convolutions and poolings in int8.

    Args:
        proto: float32; its metadata is kept.
        path: of the file.
        inputs: of the model, which give the scales.
    """
    # Else it recommends on stderr a preparation that this graph does not need.
    entry = proto.metadata_props.add()
    entry.key, entry.value = "onnx.quant.pre_process", "onnxruntime.quant"
    quantize_static(
        proto,
        path,
        _Inputs(inputs),
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


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    """Hands inputs to ONNX Runtime, one by one."""

    def __init__(self, inputs: Iterator[Feed]) -> None:
        self._inputs = inputs

    def get_next(self) -> Feed | None:
        """Return the next input, None after the last."""
        return next(self._inputs, None)


def _images(photos: Sequence[Photo], size: int) -> Iterator[Feed]:
    views = [View(photo, 0, 0) for photo in photos]
    with progress_bar() as bar:
        task = bar.add_task("Calibrating int8", total=len(views))
        for images in load_batches(views, size, batch=1):
            yield {"image": images}
            bar.advance(task)
