"""The trained network → a bundle, written only if it predicts what the network predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx

from app.core.atomic_files import whole_folder
from app.core.config import Engine
from app.core.console import progress_bar
from app.core.environment import installed_version
from app.core.errors import ExportError
from app.data.augmentation import View, load_batches, load_views
from app.evaluation.decision import Thresholds
from app.evaluation.metrics import Floats, probabilities_of, probability_moved
from app.evaluation.prediction_set import PredictionSet
from app.inference.bundle_format import (
    CONFIDENCE,
    FORMAT_VERSION,
    INT8_FILE,
    KERAS_FILE,
    NOVELTY,
    ONNX_FILE,
    Bundle,
    file_sha256,
)
from app.inference.predictor import Classifier
from app.network.activation_maps import add_activation_maps
from app.network.onnx_graph import to_onnx
from app.network.whole_batches import predict_batch

# A wrong export moves nearly every photo; the float32 networks take 0.3 s for each at 320 pixels.
GATE_PHOTOS = 16
# Two float32 networks at once: the peak of a run's memory, 3.6 GiB with batches of 16.
GATE_BATCH = 4
GATE_TOLERANCE = 1e-3  # of a probability, between model.onnx and classifier.keras
# Between the training's road (float16 activations, computed in int8 or bfloat16) and the bundle's
# (float32 throughout): rounding moves the answers for a photo by a small share of what lies between
# the answers for different photos. Wrong pixels or a wrong order of classes move them by as much.
TRAINING_SHARE = 0.15
TRAINING_TOLERANCE = 0.01  # of probability, moved on average: always allowed
# Novelty is steep: a distance that differs by a thousandth moves it by up to a hundredth.
NOVELTY_TOLERANCE, NOVELTY_TRAINING_TOLERANCE = 1e-2, 0.05
OUTPUTS = ("logits", "probabilities", "novelty", "activation_maps")
LIBRARIES = ("keras", "numpy", "onnx", "onnxruntime", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Answering:
    """What will run a bundle, as far as is known: an engine, on so many photos."""

    engine: Engine = "auto"
    photos: int = 1


@dataclass(frozen=True)
class Parity:
    """What the gate saw: photos compared, and differences of probabilities and of novelty.

    ``…_moved``: the probability that moves to other classes, 0 to 1, on average over photos.
    ``maps_…``: between the probabilities and those that the activation maps of the first few photos
    add up to.
    """

    photos: int
    onnx_against_keras_largest: float
    onnx_against_training_largest: float
    onnx_against_training_moved: float
    maps_against_onnx_largest: float
    novelty_against_keras_largest: float
    novelty_against_training_mean: float


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of the libraries that matter and of Keras's backend."""
    backend = keras.backend.backend()
    return {name: installed_version(name) for name in ("python", *LIBRARIES, backend)}


def export_bundle(
    model: keras.Model,
    graph: onnx.ModelProto,
    folder: Path,
    *,
    classes: Sequence[str],
    image_size: int,
    temperature: float,
    thresholds: Thresholds,
    photos: Sequence[View],
    trained: PredictionSet,
    int8: onnx.ModelProto | None = None,
    why_no_int8: str = "",
    answering: Answering = Answering(),
) -> Parity:
    """Write ``folder`` (model.onnx, classifier.keras, bundle.json), whole or not at all.

    Args:
        model: the float32 classifier with novelty, its logits already divided by ``temperature``.
        graph: the same as ONNX (``classifier_graph``).
        folder: the bundle; must not exist.
        classes: names in the order of the logits.
        image_size: of the model's input, in pixels.
        temperature: to be written down.
        thresholds: likewise.
        photos: view 0 of validation photos for the gate; up to 16 are compared.
        trained: what training predicted for them.
        int8: the same model in int8 (``app.export.int8_export``), for model.int8.onnx.
        why_no_int8: written down where there is none.
        answering: what it will be used for.

    Returns:
        What the parity gate saw.

    Raises:
        ExportError: when the files disagree with each other or with ``trained``.
    """
    # Evenly spaced: photos are sorted by class, the first 16 could all be of one.
    chosen = np.unique(np.linspace(0, len(photos) - 1, GATE_PHOTOS).astype(int))
    photos = [photos[number] for number in chosen]
    trained = trained.chosen(chosen)
    with whole_folder(folder) as temporary:
        model.save(temporary / KERAS_FILE)
        onnx.save(graph, temporary / ONNX_FILE)
        if int8 is not None:
            onnx.save(int8, temporary / INT8_FILE)
        Bundle(
            format_version=FORMAT_VERSION,
            classes=tuple(classes),
            image_size=image_size,
            temperature=temperature,
            thresholds={NOVELTY: thresholds.novelty, CONFIDENCE: thresholds.confidence},
            sha256={path.name: file_sha256(path) for path in sorted(temporary.iterdir())},
            versions=library_versions(),
            why_no_int8=why_no_int8,
        ).write(temporary)
        return check_parity(temporary, photos, trained, answering)


def classifier_graph(
    model: keras.Model, classes: Sequence[str], temperature: float
) -> onnx.ModelProto:
    """Return the served model as ONNX, with the outputs ``OUTPUTS``."""
    metadata = {"classes": json.dumps(list(classes)), "temperature": repr(temperature)}
    return to_onnx(model, ["logits", "novelty"], metadata, also=[add_activation_maps])


def check_parity(
    folder: Path,
    photos: Sequence[View],
    trained: PredictionSet,
    answering: Answering = Answering(),
) -> Parity:
    """Compare the bundle's models, as they lie on disk, with each other and with ``trained``.

    Raises:
        ExportError: when a label differs between the two models, a probability by more than 1e-3
            (also from what the activation maps add up to) or a novelty by more than 1e-2, or when
            they differ from ``trained`` by more than 0.15 of what lies between different photos.
    """
    classifier = Classifier(folder, precision="float32")
    others = _others(folder, classifier, answering)
    saved = keras.saving.load_model(folder / KERAS_FILE, compile=False)
    by_onnx, by_keras = [], []
    by_others: list[list[tuple[Floats, Floats]]] = [[] for _ in others]
    with progress_bar() as bar:
        task = bar.add_task("Comparing the exported models", total=len(photos))
        for images in load_batches(photos, classifier.bundle.image_size, GATE_BATCH):
            by_onnx.append(classifier.outputs(images))
            outputs = predict_batch(saved, images, GATE_BATCH)
            by_keras.append((probabilities_of(outputs["logits"]), outputs["novelty"][:, 0]))
            for other, rows in zip(others, by_others, strict=True):
                rows.append(other.outputs(images))
            bar.advance(task, len(images))
    probabilities, novelty = (np.concatenate(parts) for parts in zip(*by_onnx, strict=True))
    expected, expected_novelty = (np.concatenate(parts) for parts in zip(*by_keras, strict=True))
    few = photos[:GATE_BATCH]
    maps = classifier.activation_maps(load_views(few, classifier.bundle.image_size))
    by_maps = probabilities_of(maps.sum(axis=(1, 2), dtype=np.float64))
    parity = Parity(
        photos=len(photos),
        onnx_against_keras_largest=float(np.abs(probabilities - expected).max()),
        onnx_against_training_largest=float(np.abs(probabilities - trained.probabilities).max()),
        onnx_against_training_moved=probability_moved(probabilities, trained.probabilities),
        maps_against_onnx_largest=float(np.abs(by_maps - probabilities[: len(few)]).max()),
        novelty_against_keras_largest=float(np.abs(novelty - expected_novelty).max()),
        novelty_against_training_mean=float(np.abs(novelty - trained.novelty).mean()),
    )
    changed = int((probabilities.argmax(axis=1) != expected.argmax(axis=1)).sum())
    _refuse_disagreement(parity, changed)
    _refuse_other_than_trained(ONNX_FILE, probabilities, novelty, trained)
    for other, rows in zip(others, by_others, strict=True):
        theirs, their_novelty = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        name = other.file + f" ({other.engine})" * (other.engine != classifier.engine)
        _refuse_other_than_trained(name, theirs, their_novelty, trained)
    return parity


def _others(folder: Path, exact: Classifier, answering: Answering) -> list[Classifier]:
    """Return what will answer besides ``exact``: the int8 model, and the engine that is chosen."""
    others = [Classifier(folder, precision="int8")] if exact.bundle.has_int8 else []
    if answering.engine == exact.engine:
        return others
    chosen = Classifier(folder, engine=answering.engine, photos=answering.photos)
    return others if chosen.engine == exact.engine else [*others, chosen]


def _refuse_disagreement(parity: Parity, changed: int) -> None:
    """Raise ``ExportError`` for more than rounding; ``changed`` labels differ between the files."""
    # Written so that a NaN fails as well.
    if (
        changed
        or not parity.onnx_against_keras_largest <= GATE_TOLERANCE
        or not parity.maps_against_onnx_largest <= GATE_TOLERANCE
        or not parity.novelty_against_keras_largest <= NOVELTY_TOLERANCE
    ):
        raise ExportError(
            f"expected {ONNX_FILE} and {KERAS_FILE} to agree on {parity.photos} photos within "
            f"{GATE_TOLERANCE}, {NOVELTY_TOLERANCE} in novelty; received {changed} other labels, "
            f"differences of {parity.onnx_against_keras_largest:.2g}, "
            f"{parity.maps_against_onnx_largest:.2g} (activation maps) and "
            f"{parity.novelty_against_keras_largest:.2g}; no bundle was written, please report this"
        )


def _refuse_other_than_trained(
    file: str, probabilities: Floats, novelty: Floats, trained: PredictionSet
) -> None:
    """Raise ``ExportError`` when a file's answers are not those of training, but for rounding."""
    moved = probability_moved(probabilities, trained.probabilities)
    most = max(TRAINING_TOLERANCE, TRAINING_SHARE * _spread(trained.probabilities))
    given, before = (np.stack([each, 1 - each], axis=1) for each in (novelty, trained.novelty))
    of_novelty = probability_moved(given, before)
    most_of_novelty = max(NOVELTY_TRAINING_TOLERANCE, TRAINING_SHARE * _spread(before))
    if not (moved <= most and of_novelty <= most_of_novelty):  # a NaN fails as well
        raise ExportError(
            f"expected {file} to predict what training predicted, within {most:.2g} of probability "
            f"on average, {most_of_novelty:.2g} in novelty; received {moved:.2g} and "
            f"{of_novelty:.2g}; no bundle was written, please report this"
        )


def _spread(rows: Floats) -> float:
    """Return how far the answers for different photos lie apart, as ``probability_moved``."""
    pairs = [probability_moved(rows, np.roll(rows, shift, axis=0)) for shift in range(1, len(rows))]
    return float(np.mean(pairs)) if pairs else 0.0
