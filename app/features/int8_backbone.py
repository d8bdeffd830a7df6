"""The frozen layers in int8: weights and activations as 8-bit numbers with a scale.

On a processor with VNNI instructions it takes a quarter of float32's time and six tenths of
bfloat16's; a head learned as well from its activations (docs/experiments.md). Static
quantisation by ONNX Runtime: a scale for each channel of a kernel, and one for each activation,
wide enough for all that some training photos give. Source: Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".

The scales depend on the photos. The model is therefore kept beside the cache that it fills, and a
later run goes on with it while half of the photos that gave the scales are still among its own:
else every new photo would make the cache worthless. Its name holds its digest, which proves it
whole.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
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

from app.core.atomic_files import whole, write_json
from app.core.console import progress_bar, say
from app.core.processor import has_vnni
from app.data.augmentation import View, load_batches
from app.data.photo import Photo
from app.features.shards import SPEC_FILE, is_ours, is_store, store_name
from app.network.classifier import CUTS, prefix
from app.network.onnx_graph import output_of, to_onnx

CALIBRATION_PHOTOS = 32
VERSION = 1  # raise it when the same photos give other scales
QUANTISED = ["Conv", "Relu", "MaxPool"]
Feed = dict[str, NDArray[Any]]  # what ONNX Runtime takes
SCALED_BY = "scaled_by"  # the entry of the model's metadata that names the photos


@dataclass(frozen=True)
class QuantisedPrefix:
    """All frozen layers in int8, as an ONNX model; ``digest`` is the SHA-256 of its bytes."""

    model: bytes
    digest: str

    def proto(self) -> onnx.ModelProto:
        """Return the model, with an output for each of ``app.network.classifier.CUTS``."""
        return onnx.load_from_string(self.model)


def quantised_prefix(
    folder: Path, model: keras.Model, digest: str, photos: Sequence[Photo]
) -> QuantisedPrefix:
    """Return the int8 model of all frozen layers that fits these photos; make it if there is none.

    Args:
        folder: where it is kept.
        model: from ``app.network.classifier.build_classifier``, its backbone's weights set.
        digest: of these weights.
        photos: of training; up to 32, spread evenly, give the scales.
    """
    spec = {
        "backbone": model.name,
        "weights": digest,
        "image_size": model.input.shape[1],
        "precision": "int8",
        "version": VERSION,
        "vnni": has_vnni(),
    }
    store = folder / store_name("int8", spec)
    own = {photo.content for photo in photos}
    for path in sorted(store.glob("*.onnx")) if is_store(store) else []:
        found = _read(path)
        if found is not None and _share_of(found, own) >= 0.5:
            return found
    chosen = np.unique(np.linspace(0, len(photos) - 1, CALIBRATION_PHOTOS).astype(int))
    say(f"int8 for the frozen layers: {len(chosen)} training photos give the scales")
    with tempfile.TemporaryDirectory() as name:
        quantise(model, [photos[number] for number in chosen], Path(name) / "int8.onnx")
        data = (Path(name) / "int8.onnx").read_bytes()
    made = QuantisedPrefix(data, hashlib.sha256(data).hexdigest())
    if not is_store(store):
        write_json(spec, store / SPEC_FILE)
    with whole(store / f"{made.digest}.onnx") as temporary:
        temporary.write_bytes(data)
    return made


def _read(path: Path) -> QuantisedPrefix | None:
    """Return the model of a file; None when it is gone, or damaged, which removes it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest = hashlib.sha256(data).hexdigest()
    if path.stem == digest:
        return QuantisedPrefix(data, digest)
    if is_ours(path):
        path.unlink(missing_ok=True)
    return None


def _share_of(found: QuantisedPrefix, photos: Collection[str]) -> float:
    """Return the share of the photos that gave the scales which is among ``photos``."""
    metadata = {p.key: p.value for p in onnx.load_from_string(found.model).metadata_props}
    scaled_by = json.loads(metadata[SCALED_BY])
    return sum(content in photos for content in scaled_by) / len(scaled_by)


def quantise(model: keras.Model, photos: Sequence[Photo], path: Path) -> None:
    """Write the int8 model of the layers up to the highest cut, an output for each cut."""
    proto = to_onnx(prefix(model, CUTS), [output_of(cut) for cut in CUTS])
    scaled_by = {SCALED_BY: json.dumps([photo.content for photo in photos])}
    onnx.helper.set_model_props(proto, scaled_by)
    write_int8(proto, path, _images(photos, model.input.shape[1]))


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
