"""The network of a run and what it is trained on, as the settings ask for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from app.core.config import TrainConfig
from app.core.console import say
from app.core.run_folder import FEATURES_FOLDER
from app.data.manifest import Photo, Photos
from app.features.cache_folder import Quota
from app.features.dataset import DatasetSpec, FeatureDataset, open_dataset
from app.network.classifier import build_classifier, copy_weights, load_classifier
from app.network.device import (
    device_name,
    keep_compiled,
    resolve_frozen_precision,
    resolve_precision,
    share_batches,
)
from app.training.frozen_precision import choose_precision


@dataclass(frozen=True)
class Setup:
    """What the stages train, and on what.

    Attributes:
        model: the classifier, its backbone pretrained.
        weights: the digest of the backbone's weights.
        source: the input of the stages.
        precision: the arithmetic of layers that are trained.
        frozen_precision: that of frozen layers.
    """

    model: keras.Model
    weights: str
    source: FeatureDataset
    precision: str
    frozen_precision: str

    def conditions(self) -> dict[str, Any]:
        """Return all that must be the same when the run is resumed."""
        return {
            "backend": keras.backend.backend(),
            "device": device_name(),
            "weights": self.weights,
            "precision": self.precision,
            "cache": self.source.name,
            "views": self.source.views,
            "frozen layers": self.source.frozen,
            "engine": self.source.spec.engine,
        }


def set_up(
    config: TrainConfig,
    classes: int,
    photos: Photos,
    neither: Sequence[Photo] = (),
    scales: Sequence[Photo] | None = None,
) -> Setup:
    """Load the network, choose its arithmetic, and compute its frozen features where they are kept.

    Args:
        config: of the run.
        classes: how many.
        photos: to train and validate on.
        neither: training photos that show none of the classes.
        scales: photos that the scales of int8 are taken from; None: those of training.

    Raises:
        WeightsError: when the pretrained weights cannot be found.
        UsageError: when the features have no room.
    """
    share_batches(config.devices)
    keep_compiled()
    trained = resolve_precision(config.precision)
    frozen = trained if config.cache == "off" else resolve_frozen_precision(config.precision)
    model, weights = classifier_of(config, classes, trained)
    if config.precision == "auto":
        precision = choose_precision(
            model,
            config.backbone,
            weights,
            photos["train"] if scales is None else scales,
            quota_of(config),
            int8=frozen == "int8",
            keep=config.cache != "off",
        )
        if precision != "auto":
            config, frozen = dataclasses.replace(config, precision=precision), precision
        if precision == "float32":
            trained, rounded = precision, model
            model = build_classifier(
                classes,
                image_size=config.image_size,
                backbone=config.backbone,
                precision=trained,
                initializer="zeros",
            )
            copy_weights(rounded, model)
    say(f"computing on {device_name()}, frozen layers in {frozen}, trained ones in {trained}")
    source = dataset_of(config, model, weights, photos, neither, scales)
    return Setup(model, weights, source, trained, frozen if source.name == "disk" else trained)


def classifier_of(config: TrainConfig, classes: int, precision: str) -> tuple[keras.Model, str]:
    """Return the untrained classifier of a run, and the digest of its backbone's weights."""
    return load_classifier(
        classes,
        image_size=config.image_size,
        backbone=config.backbone,
        precision=precision,
        weights=config.weights,
        seed=config.seed,
    )


def dataset_of(
    config: TrainConfig,
    model: keras.Model,
    digest: str,
    photos: Photos,
    neither: Sequence[Photo] = (),
    scales: Sequence[Photo] | None = None,
) -> FeatureDataset:
    """Open the input of the run's stages; ``digest`` is that of the backbone's weights."""
    spec = dataset_spec(config, model, digest, photos, neither, scales)
    return open_dataset(spec, config.cache, quota_of(config))


def quota_of(config: TrainConfig) -> Quota:
    """Return the folder of all caches, and their limit."""
    return Quota(config.runs / FEATURES_FOLDER, round(config.cache_limit * 1e9))


def dataset_spec(
    config: TrainConfig,
    model: keras.Model,
    digest: str,
    photos: Photos,
    neither: Sequence[Photo] = (),
    scales: Sequence[Photo] | None = None,
) -> DatasetSpec:
    """Return the few settings that the input depends on."""
    return DatasetSpec(
        model=model,
        backbone=config.backbone,
        weights=digest,
        photos=photos,
        neither=neither,
        scales=scales,
        stages=config.stage_plan(),
        views=config.training_views(),
        seed=config.seed,
        precision=config.precision,
        mirror=config.mirror,
        deterministic=config.deterministic,
        engine=config.engine_of_run(),
        ray=config.cluster(),
    )
