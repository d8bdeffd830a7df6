"""Used photos → a trained, calibrated, exported classifier and every number about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

from app.core.config import TrainConfig
from app.core.console import say
from app.core.environment import other_versions
from app.core.errors import UsageError
from app.core.profiling import Clock
from app.core.run_folder import FEATURES_FOLDER, Run
from app.core.run_metrics import Int8Metrics, Metrics, StageMetrics, write_history
from app.data.augmentation import View
from app.data.class_weights import class_weights
from app.data.folder_layout import SPLITS
from app.data.manifest import ManifestRow
from app.data.photo import Photos, class_names, photos_of
from app.export.bundle_writer import Parity, classifier_graph, export_bundle, library_versions
from app.export.int8_export import Int8Model, int8_model
from app.features.batches import targets_of
from app.features.dataset import DatasetSpec, FeatureDataset, open_dataset
from app.features.store import Quota
from app.network.classifier import build_classifier, copy_weights
from app.network.device import (
    compute_deterministically,
    device_name,
    resolve_frozen_precision,
    resolve_precision,
)
from app.network.pretrained_weights import (
    RANDOM_WEIGHTS_WARNING,
    load_weights,
    set_weights,
    tensor_digest,
)
from app.training.checkpoint import Checkpoint
from app.training.data_review import review
from app.training.finetune import StageResult
from app.training.fit_decision import Answers, calibrated_answers, split_metrics, write_predictions
from app.training.run_lock import finish_time
from app.training.schedule import StageSchedule
from app.training.tracking import Track, track_nothing

SOURCE = "source"  # the record of how a run computes


def learn(
    config: TrainConfig,
    rows: Sequence[ManifestRow],
    root: Path,
    run: Run,
    checkpoint: Checkpoint,
    clock: Clock,
    track: Track = track_nothing,
) -> Metrics:
    """Train as ``config`` says, export the bundle and return the contents of ``metrics.json``.

    What ``checkpoint`` holds is not computed again; ``track`` is told of each epoch.
    """
    if config.deterministic:
        compute_deterministically()
    classes = class_names(rows)
    photos: Photos = {split: photos_of(rows, split, root) for split in SPLITS}
    trained, frozen = arithmetic(config)
    say(f"computing on {device_name()}, frozen layers in {frozen}, trained ones in {trained}")
    model, digest = load_classifier(config, len(classes))
    with clock.phase("features"):
        source = dataset_of(as_begun(config, checkpoint), model, digest, photos)
        refuse_other_ways(source, digest, trained, checkpoint)
    with clock.phase("training"):
        weights = class_weights(classes[photo.target] for photo in photos["train"])
        look = partial(review, photos, classes, run)
        numbered = by_number(weights, classes)
        results = StageSchedule(config, model, source, numbered, look, checkpoint, track).run()
        write_history((row for result in results for row in result.history), run.history)
        answers = calibrated_answers(config, source, divided_by=results[-1].temperature)
    with clock.phase("export"):
        parity, int8 = export(config, model, source, classes, photos, answers, run.bundle)
    write_predictions(answers, photos, classes, run.predictions)
    return Metrics(
        classes=tuple(classes),
        photos={split: len(photos[split]) for split in SPLITS},
        class_weights=weights,
        stages=tuple(map(stage_metrics, results)),
        validation=split_metrics(answers, "validation", targets_of(photos["validation"])),
        test=split_metrics(answers, "test", targets_of(photos["test"])),
        temperature=answers.temperature,
        min_confidence=answers.min_confidence,
        parity=dataclasses.asdict(parity),
        int8=Int8Metrics(why_not=int8.why_not, **(vars(int8.gate) if int8.gate else {})),
        seconds=clock.total(),
        memory=clock.memory,
        device=device_name(),
        backend=keras.backend.backend(),
        precision=trained,
        frozen_precision=frozen if source.name == "disk" else trained,
        cache=source.name,
        views=source.views,
        versions=library_versions(),
        finished=finish_time(run),
    )


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


def dataset_of(
    config: TrainConfig, model: keras.Model, digest: str, photos: Photos
) -> FeatureDataset:
    """Open the input of the run's stages; ``digest`` is that of the backbone's weights."""
    quota = Quota(config.runs / FEATURES_FOLDER, round(config.cache_limit * 1e9))
    return open_dataset(dataset_spec(config, model, digest, photos), config.cache, quota)


def dataset_spec(
    config: TrainConfig, model: keras.Model, digest: str, photos: Photos
) -> DatasetSpec:
    """Return the few settings that the input depends on."""
    return DatasetSpec(
        model=model,
        backbone=config.backbone,
        weights=digest,
        photos=photos,
        stages=config.stage_plan(),
        views=config.training_views(),
        seed=config.seed,
        precision=config.precision,
        mirror=config.mirror,
        deterministic=config.deterministic,
    )


def as_begun(config: TrainConfig, checkpoint: Checkpoint) -> TrainConfig:
    """Return the settings with the source of input that was chosen when the run began."""
    begun = checkpoint.load(SOURCE)
    if begun is None:
        return config
    if begun.values["cache"] == "off":  # which ``config`` refuses beside int8
        precision: Any = resolve_precision(config.precision)
        return dataclasses.replace(config, cache="off", precision=precision)
    return dataclasses.replace(config, cache="disk", views=begun.values["views"])


def refuse_other_ways(
    source: FeatureDataset, digest: str, trained: str, checkpoint: Checkpoint
) -> None:
    """Note how the run computes; refuse to go on with it in another way.

    Raises:
        UsageError: with what differs from the run's beginning.
    """
    now = {
        "backend": keras.backend.backend(),
        "device": device_name(),
        "weights": digest,
        "precision": trained,
        "cache": source.name,
        "views": source.views,
        "frozen layers": source.frozen,
    }
    begun = checkpoint.load(SOURCE)
    if begun is None:
        checkpoint.save(SOURCE, {**now, "versions": library_versions()})
        return
    differ = [name for name in now if now[name] != begun.values[name]]
    if differ:
        raise UsageError(
            "expected to go on as the run was begun, with "
            f"{', '.join(f'{name} {begun.values[name]}' for name in differ)}; received "
            f"{', '.join(f'{name} {now[name]}' for name in differ)}; begin a new run"
        )
    if others := other_versions(begun.values["backend"], begun.values["versions"]):
        say(f"begun with other versions, so the figures may differ: {others}")


def by_number(
    weights: Mapping[str, float] | None, classes: Sequence[str]
) -> dict[int, float] | None:
    """Return the weights of classes by their numbers, as Keras and scikit-learn take them."""
    if weights is None:
        return None
    return {number: weights[label] for number, label in enumerate(classes)}


def export(
    config: TrainConfig,
    model: keras.Model,
    source: FeatureDataset,
    classes: Sequence[str],
    photos: Photos,
    answers: Answers,
    folder: Path,
) -> tuple[Parity, Int8Model]:
    """Build the served model (float32, temperature inside) and its int8 twin; write the bundle."""
    served = build_classifier(
        len(classes),
        image_size=config.image_size,
        backbone=config.backbone,
        temperature=answers.temperature,
        mirror=config.mirror,
        novelty=answers.strange,
    )
    copy_weights(model, served)
    int8 = int8_model(
        partial(classifier_graph, served, classes, answers.temperature),
        source,
        config.stage_plan()[-1],
        answers.min_confidence,
        mirror=config.mirror,
    )
    say(int8.said())
    parity = export_bundle(
        served,
        folder,
        classes=classes,
        image_size=config.image_size,
        temperature=answers.temperature,
        min_confidence=answers.min_confidence,
        photos=[View(photo, 0, config.seed) for photo in photos["validation"]],
        trained=answers.of("validation"),
        int8=int8.model,
        why_no_int8=int8.why_not,
    )
    return parity, int8


def stage_metrics(result: StageResult) -> StageMetrics:
    """Return a stage's part of ``metrics.json``; its epochs are in ``history.csv``."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(StageMetrics)}
    return StageMetrics(**values)
