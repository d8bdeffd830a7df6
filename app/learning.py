"""Used photos → a trained, calibrated, exported classifier and every number about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.calibration import fit_temperature
from app.class_weights import class_weights
from app.clock import Clock
from app.config import TrainConfig
from app.console import say
from app.device import device_name, resolve_frozen_precision, resolve_precision
from app.evaluation import probabilities_of, score
from app.export import Parity, export_bundle, library_versions
from app.files import SPLITS, Split
from app.head import STRENGTHS, solve_head
from app.history import write_history
from app.manifest import ManifestRow
from app.model import build_classifier, copy_weights, open_layers
from app.photos import Photo, Photos, class_names, photos_of
from app.runs import Run
from app.sources import Source, open_source
from app.tables import write_rows
from app.training import Float32s, Int32s, StageResult, logits_of, targets_of, train_stage
from app.views import View, looks
from app.weights import RANDOM_WEIGHTS_WARNING, load_weights, set_weights, tensor_digest


@dataclass(frozen=True)
class Answers:
    """Calibrated probabilities ``(n, classes)`` of a split's photos, and the temperature."""

    temperature: float
    probabilities: dict[Split, NDArray[np.floating[Any]]]


def learn(
    config: TrainConfig, rows: Sequence[ManifestRow], root: Path, run: Run, clock: Clock
) -> dict[str, Any]:
    """Train as ``config`` says, export the bundle and return the contents of ``metrics.json``."""
    classes = class_names(rows)
    photos: Photos = {split: photos_of(rows, split, root) for split in SPLITS}
    trained, frozen = arithmetic(config)
    say(f"computing on {device_name()}, frozen layers in {frozen}, trained ones in {trained}")
    model, digest = load_classifier(config, len(classes))
    with clock.phase("features"):
        source = open_source(config, model, digest, photos)
    with clock.phase("training"):
        weights = class_weights(classes[photo.target] for photo in photos["train"])
        results = train_stages(config, model, source, by_number(weights, classes))
        write_history((row for result in results for row in result.history), run.history)
        answers = calibrated_answers(config, source, divided_by=results[-1].temperature)
    with clock.phase("export"):
        parity = export(config, model, classes, photos["validation"], answers, run.bundle)
    write_predictions(answers, photos, classes, run.predictions)
    return {
        "classes": list(classes),
        "photos": {split: len(photos[split]) for split in SPLITS},
        "class_weights": weights,
        "stages": [stage_values(result) for result in results],
        **{
            split: dataclasses.asdict(score(targets_of(photos[split]), probabilities))
            for split, probabilities in answers.probabilities.items()
        },
        "temperature": answers.temperature,
        "parity": dataclasses.asdict(parity),
        "seconds": clock.total(),
        "device": device_name(),
        "backend": keras.backend.backend(),
        "precision": trained,
        "frozen_precision": frozen if source.name == "disk" else trained,
        "cache": source.name,
        "views": source.views,
        "versions": library_versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def arithmetic(config: TrainConfig) -> tuple[str, str]:
    """Return the arithmetic of trained and of frozen layers; only a cache freezes any for long."""
    trained = resolve_precision(config.precision)
    return trained, trained if config.cache == "off" else resolve_frozen_precision(config.precision)


def load_classifier(config: TrainConfig, num_classes: int) -> tuple[keras.Model, str]:
    """Build the classifier with the backbone's weights; return it and the weights' digest."""
    keras.utils.set_random_seed(config.seed)
    model = build_classifier(
        num_classes,
        image_size=config.image_size,
        backbone=config.backbone,
        precision=resolve_precision(config.precision),
    )
    if config.weights != "none":
        weights = load_weights(config.backbone, config.weights)
        set_weights(model, weights)
        return model, weights.digest
    say(RANDOM_WEIGHTS_WARNING)
    blocks = [layer for layer in model.layers if "_conv" in layer.name]
    return model, tensor_digest(
        {
            f"{layer.name}/{kind}": array
            for layer in blocks
            for kind, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)
        }
    )


def by_number(
    weights: Mapping[str, float] | None, classes: Sequence[str]
) -> dict[int, float] | None:
    """Return the weights of classes by their numbers, as Keras and scikit-learn take them."""
    if weights is None:
        return None
    return {number: weights[label] for number, label in enumerate(classes)}


def train_stages(
    config: TrainConfig,
    model: keras.Model,
    source: Source,
    class_weight: dict[int, float] | None = None,
) -> list[StageResult]:
    """Train the stages one after the other; ``model`` ends with the best weights of the last."""
    results = []
    for stage in config.stage_plan():
        open_layers(model, stage)
        if not stage.opens:
            train, validation = source.labelled("train"), source.labelled("validation")
            strengths = STRENGTHS if config.head_strength is None else (config.head_strength,)
            results.append(solve_head(model, stage, train, validation, strengths, class_weight))
            continue
        results.append(
            train_stage(
                source.part(stage),
                stage,
                source.batches(stage, "train", shuffle=True),
                source.batches(stage, "validation"),
                class_weight,
            )
        )
    return results


def calibrated_answers(config: TrainConfig, source: Source, divided_by: float = 1.0) -> Answers:
    """Fit the temperature on validation, then answer for validation and, this once, for test."""
    last = config.stage_plan()[-1]
    model = source.part(last)

    logits: dict[Split, Float32s] = {}
    targets: dict[Split, Int32s] = {}
    for split in SPLITS[1:]:
        views = looks(mirrored=config.mirror)
        batches = [source.batches(last, split, view=view) for view in views]
        # As the served model does it: see ``mirror`` in app.model.
        logits[split] = np.mean([logits_of(model, look) for look in batches], axis=0)
        targets[split] = targets_of(batches[0].photos)
    temperature = fit_temperature(logits["validation"], targets["validation"], divided_by)
    return Answers(
        temperature,
        {split: probabilities_of(logits[split] / temperature) for split in SPLITS[1:]},
    )


def export(
    config: TrainConfig,
    model: keras.Model,
    classes: Sequence[str],
    validation: Sequence[Photo],
    answers: Answers,
    folder: Path,
) -> Parity:
    """Build the served model (float32, temperature inside) and write the bundle."""
    served = build_classifier(
        len(classes),
        image_size=config.image_size,
        backbone=config.backbone,
        temperature=answers.temperature,
        mirror=config.mirror,
    )
    copy_weights(model, served)
    return export_bundle(
        served,
        folder,
        classes=classes,
        image_size=config.image_size,
        temperature=answers.temperature,
        photos=[View(photo, 0, config.seed) for photo in validation],
        trained=answers.probabilities["validation"],
    )


def stage_values(result: StageResult) -> dict[str, Any]:
    """Return a stage's part of ``metrics.json``; its epochs are in ``history.csv``."""
    values = dataclasses.asdict(result)
    del values["history"]
    return values


def write_predictions(answers: Answers, photos: Photos, classes: Sequence[str], path: Path) -> None:
    """Write truth, answer and calibrated probabilities of every validation and test photo."""
    rows = (
        {
            "name": photo.name,
            "split": split,
            "label": classes[photo.target],
            "answer": classes[int(row.argmax())],
            **{f"p_{name}": f"{p:.6g}" for name, p in zip(classes, row, strict=True)},
        }
        for split, probabilities in answers.probabilities.items()
        for photo, row in zip(photos[split], probabilities, strict=True)
    )
    columns = ["name", "split", "label", "answer", *(f"p_{name}" for name in classes)]
    write_rows(rows, columns, path)
