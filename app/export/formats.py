"""A run's classifier in other formats: ``python -m app export RUN savedmodel,litert,openvino``.

Each is made by the library that it belongs to, loaded again, and compared with the trained model
on real validation photos; what disagrees is not written. Beside it lie ``labels.txt`` and
``model.json``, which say how it is fed and what its outputs mean. ``train.py --export`` does the
same at its end. predict.py needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.atomic_files import open_whole, whole_folder, write_json
from app.core.cli import Parser
from app.core.config import FORMATS
from app.core.console import quiet_native_stderr, say
from app.core.environment import chosen_backend, require_package
from app.core.errors import AppError, ExportError, UsageError
from app.core.run_folder import Run, check_complete
from app.core.sanitise import for_terminal, shown

if TYPE_CHECKING:
    from app.inference.bundle_format import Bundle

PHOTOS = 16  # compared; a wrong export moves nearly all
LABELS_FILE, DESCRIPTION = "labels.txt", "model.json"
OUTPUTS = {  # every format has the first three, by these names
    "logits": "float32 (photos, classes), already divided by the temperature",
    "probabilities": "float32 (photos, classes), calibrated, the softmax of the logits",
    "novelty": "float32 (photos, 1), 0 to 1: how unlike the training photos a photo is",
    "activation_maps": "float32 (photos, height, width, classes): each place's part of the logits",
}

# Pixels, uint8 (n, size, size, 3) → what is in ``OUTPUTS``.
PredictFunction = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Format:
    """A format: the package that it needs, its writer and its reader.

    Attributes:
        package: to be installed.
        backend: of Keras that its writer needs; empty where any will do.
        file: the model's file in the folder; ``.`` for the folder itself.
        dtype: of the model's input.
        outputs: names out of ``OUTPUTS``.
        write: bundle, Keras model, folder → files in the folder.
        read: the folder → what answers for pixels, by the format's own runtime.
    """

    package: str
    backend: str
    file: str
    dtype: str
    outputs: Sequence[str]
    write: Callable[[Path, Any, Path], None]
    read: Callable[[Path], PredictFunction]


def export_formats(run: Run, names: Sequence[str]) -> list[Path]:
    """Write a finished run's classifier in other formats, into ``exports/`` of its folder.

    Args:
        run: a finished run whose photos are still where they were.
        names: out of ``app.core.config.FORMATS``.

    Returns:
        The folders, one for each format.

    Raises:
        UsageError: when a package or a photo is missing.
        ExportError: when what was written does not say what the trained model says; the formats
            that do are there nevertheless.
    """
    require_formats(names)
    check_complete(run)
    if there := [str(run.exports / name) for name in names if exists(run.exports / name)]:
        raise UsageError(
            f"expected formats that are not there yet; received {', '.join(there)}; remove the "
            "folder, or leave the format out"
        )
    from app.inference.bundle_format import KERAS_FILE, Bundle

    bundle = Bundle.read(run.bundle)
    with quiet_native_stderr():
        import keras  # which takes seconds

    saved = keras.saving.load_model(bundle.check_file(run.bundle, KERAS_FILE), compile=False)
    model = _with_probabilities(saved)
    images = _validation_pixels(run, bundle.image_size)
    say(f"comparing {', '.join(names)} with the trained model on {len(images)} validation photos")
    expected = model.predict_on_batch(images)
    written, failed = [], {}
    for name in names:
        try:
            written.append(_export(run, bundle, name, model, images, expected))
        except AppError as error:  # the others are not concerned
            failed[name] = str(error)
    if failed:
        raise ExportError(
            f"{'; '.join(failed.values())}; again: python -m app export {run.folder} "
            f"{','.join(failed)}"
        )
    return written


def _export(
    run: Run, bundle: Bundle, name: str, model: Any, images: Any, expected: dict[str, Any]
) -> Path:
    """Write one format and return its folder."""
    target, kind = run.exports / name, BY_NAME[name]
    with whole_folder(target) as folder, quiet_native_stderr():
        try:
            kind.write(run.bundle, model, folder)
            found = kind.read(folder)(images)
        except Exception as error:  # of a foreign library: it may raise anything
            reason = " ".join(str(error).split())[:200]
            raise ExportError(
                f"expected {kind.package} to write {name}; received {type(error).__name__}: "
                f"{reason}; it was not written"
            ) from error
        _compare(name, found, expected)
        _describe(bundle, kind, folder)
    return target


def _with_probabilities(model: Any) -> Any:
    """Return the model with one more output, so that nobody takes the logits for probabilities."""
    import keras

    softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
    logits, novelty = (model.output[name] for name in ("logits", "novelty"))
    outputs = {"logits": logits, "probabilities": softmax(logits), "novelty": novelty}
    return keras.Model(model.input, outputs)


def _describe(bundle: Bundle, kind: Format, folder: Path) -> None:
    """Write what a program in another language needs to feed the model and to read its answer."""
    with open_whole(folder / LABELS_FILE) as file:  # a name with a newline still is one line
        file.writelines(shown(name).replace("\n", "\\n") + "\n" for name in bundle.classes)
    about = {
        "model": kind.file,
        "classes": bundle.classes,
        "input": {
            "name": "image",
            "dtype": kind.dtype,
            "shape": ["photos", bundle.image_size, bundle.image_size, 3],
            "order": "photos, height, width, channels; the channels are red, green, blue",
            "range": [0, 255],
            "resize": "the whole photo, turned as its EXIF orientation says, squeezed into the "
            "square by an antialiased bilinear filter",
        },
        "outputs": {name: OUTPUTS[name] for name in kind.outputs},
        "temperature": bundle.temperature,
        "temperature_is_inside": True,
        "thresholds": bundle.thresholds,
        "answer": "neither if novelty > thresholds.novelty; else unsure if the highest probability "
        "< thresholds.confidence; else the class of the highest probability",
    }
    write_json(about, folder / DESCRIPTION)


def require_formats(names: Sequence[str]) -> None:
    """Refuse, before anything is computed, formats that cannot be written here.

    Raises:
        UsageError: with the package that is missing, or the backend that is needed.
    """
    if len(set(names)) < len(names):
        raise UsageError(f"expected each format once; received {','.join(names)}")
    for name in names:
        if name not in BY_NAME:
            raise UsageError(
                f"expected formats out of {', '.join(FORMATS)}; received {name!r}; "
                "write for example savedmodel,openvino"
            )
        kind = BY_NAME[name]
        require_package(kind.package, f"the format {name}")
        if kind.backend not in ("", chosen_backend()):
            raise UsageError(
                f"expected Keras's backend {kind.backend} for {name}; received "
                f"{chosen_backend()}; set KERAS_BACKEND={kind.backend}: python -m app export "
                "exports a run of any backend"
            )


def _validation_pixels(run: Run, size: int) -> Any:
    """Return some validation photos of a run as the network sees them."""
    import numpy as np

    from app.core.config import read_config
    from app.data.augmentation import View, load_views
    from app.data.folder_layout import data_folder
    from app.data.manifest import photos_of, read_manifest

    with data_folder(read_config(run.config).data) as root:
        photos = photos_of(read_manifest(run.manifest), "validation", root)
        chosen = np.unique(np.linspace(0, len(photos) - 1, PHOTOS).astype(int))
        return load_views([View(photos[number], 0, 0) for number in chosen], size)


def _compare(name: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ``ExportError`` for more than rounding."""
    import numpy as np

    from app.export.bundle_writer import GATE_TOLERANCE, NOVELTY_TOLERANCE

    off, off_novelty = (
        float(np.abs(np.asarray(found[output]) - np.asarray(expected[output])).max())
        for output in ("probabilities", "novelty")
    )
    # Written so that a NaN fails as well.
    if not (off <= GATE_TOLERANCE and off_novelty <= NOVELTY_TOLERANCE):
        raise ExportError(
            f"expected {name} to say what the trained model says of {len(expected['novelty'])} "
            f"photos, within {GATE_TOLERANCE}, {NOVELTY_TOLERANCE} in novelty; received "
            f"differences of {off:.2g} and {off_novelty:.2g}; it was not written, please report "
            "this"
        )


def _write_savedmodel(bundle: Path, model: Any, folder: Path) -> None:
    model.export(folder, format="tf_saved_model", verbose=False)


def _read_savedmodel(folder: Path) -> PredictFunction:
    import keras

    layer = keras.layers.TFSMLayer(folder, call_endpoint="serve")
    return lambda images: dict(layer(images.astype("float32")))


TFLITE = "model.tflite"


def _write_litert(bundle: Path, model: Any, folder: Path) -> None:
    model.export(folder / TFLITE, format="litert", verbose=False)


def _read_litert(folder: Path) -> PredictFunction:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(folder / TFLITE)).get_signature_runner()
    return lambda images: dict(runner(image=images.astype("float32")))


OPENVINO = "model.xml"


def _write_openvino(bundle: Path, model: Any, folder: Path) -> None:
    """Convert the ONNX file, so that the input is uint8 and the outputs are model.onnx's."""
    from app.inference.bundle_format import ONNX_FILE
    from app.inference.engines import import_openvino

    openvino = import_openvino()
    converted = openvino.convert_model(bundle / ONNX_FILE)
    openvino.save_model(converted, folder / OPENVINO, compress_to_fp16=False)


def _read_openvino(folder: Path) -> PredictFunction:
    from app.inference.engines import import_openvino

    openvino = import_openvino()
    # By itself it takes bfloat16 where the processor has it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / OPENVINO, "CPU", exact)

    def answer(images: Any) -> dict[str, Any]:
        outputs = compiled(images)
        return {name: outputs[name] for name in OUTPUTS}

    return answer


_THREE = ("logits", "probabilities", "novelty")
BY_NAME = {
    "savedmodel": Format(
        "tensorflow", "tensorflow", ".", "float32", _THREE, _write_savedmodel, _read_savedmodel
    ),
    "litert": Format(
        "ai-edge-litert", "tensorflow", TFLITE, "float32", _THREE, _write_litert, _read_litert
    ),
    "openvino": Format(
        "openvino", "", OPENVINO, "uint8", tuple(OUTPUTS), _write_openvino, _read_openvino
    ),
}


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, export, print the folders; return the exit code."""
    parser = Parser(
        description="Write a finished run's classifier in other formats, each compared with the "
        "trained model on validation photos before it appears.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/<name>")
    parser.add_argument(
        "formats", metavar="NAMES", help=f"out of {', '.join(FORMATS)}, separated by commas"
    )
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for folder in export_formats(Run(arguments.run), arguments.formats.split(",")):
        print(for_terminal(str(folder)))
    return 0
