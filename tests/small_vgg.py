"""All stages of training on a small VGG, from cached and from fresh input, side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
from photos import as_photo, class_folders

import app.network.vgg
import app.training.finetune
from app.core.config import STAGES, Stage, TrainConfig
from app.data.augmentation import View, load_views
from app.data.folder_layout import Split
from app.data.manifest import Photos
from app.experiment_setup import dataset_spec
from app.features.batches import ViewBatches
from app.features.cache_folder import Quota
from app.features.dataset import CachedDataset, FeatureDataset, FreshDataset
from app.network.classifier import HEAD, load_classifier, open_layers, prefix
from app.training.finetune import train_stage
from app.training.linear_probe import fit_linear_probe

# 64 pixels leave 4×4 to block5; below that, XLA's convolutions on processors take 15 times as long.
SIZE, VIEWS, EPOCHS, BATCH = 64, 2, 5, 4
Weights = dict[tuple[str, int], np.ndarray]  # name of layer and number of array → array


@contextlib.contextmanager
def small_network() -> Iterator[None]:
    """Make VGG16 five convolutions with a few filters, and raise the rates: 15 steps must show.

    It must be entered before a stage is looked up.
    """
    few = {"learning_rate": 1e-3, "batch_size": BATCH, "patience": EPOCHS}
    stages = {name: replace(stage, **few) for name, stage in STAGES.items()}  # type: ignore[arg-type]
    table = {"vgg16": (1,) * 5}
    with (
        patch.object(app.network.vgg, "FILTERS", (4, 4, 8, 8, 8)),
        patch.object(app.network.vgg, "CONVOLUTIONS", table),
        patch.dict(STAGES, stages),
        # What twelve photos gain may be chance, but here all that is trained must show.
        patch.object(app.training.finetune, "SMALL_VALIDATION", 0),
    ):
        yield


@contextlib.contextmanager
def few_channels(last: int) -> Iterator[None]:
    """Build all layers of VGG with few channels: ``last`` in blocks 4 and 5, fewer below."""
    channels = (last // 8, last // 4, last // 2, last, last)
    with patch.object(app.network.vgg, "FILTERS", channels):
        yield


def twelve_photos(folder: Path) -> Photos:
    """Draw photos of two classes; validation has the same ones, so that what is learned is kept."""
    root = class_folders(folder, {"cat": 6, "dog": 6})
    both = [as_photo(path, int(path.parent.name == "dog")) for path in sorted(root.glob("*/*.jpg"))]
    return {"train": both, "validation": both, "test": []}


def config_of(runs: Path) -> TrainConfig:
    """Return the settings of a run of all stages that keeps its cache in ``runs``."""
    return TrainConfig(
        runs=runs,
        stages=tuple(STAGES),
        weights="none",
        image_size=SIZE,
        views=VIEWS,
        epochs=EPOCHS,
        precision="float32",
        cache="disk",
    )


def classifier(config: TrainConfig, photos: Photos) -> keras.Model:
    """Build the classifier; always the same, under every backend."""
    model, _ = load_classifier(
        2,
        image_size=config.image_size,
        backbone=config.backbone,
        precision="float32",
        weights=config.weights,
        seed=config.seed,
    )
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if "_conv" in layer.name:  # the activations keep their size (He et al. 2015)
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:3]))
            layer.set_weights([generator.normal(0, scale, kernel.shape), bias])
    return model


class SameViews(FreshDataset):
    """Pixels through the whole network, of the views that a cache holds, in its order."""

    def batches(
        self,
        stage: Stage,
        split: Split,
        *,
        shuffle: bool = False,
        view: int = 0,
        epochs_before: int = 0,
    ) -> ViewBatches:
        """Return the batches of ``FreshDataset``, other views in them."""
        batches = super().batches(stage, split, shuffle=shuffle, view=view)
        batches.views, batches.first_epoch = VIEWS, 0
        batches.begin_epoch(0)
        return batches


class Unrounded:
    """Stands for the cache of a cut, without its float16.

    The rounding turns the sign of gradients near 0, and Adam's first steps are the sign: with it
    the weights came out 0.18 of their way apart.
    """

    def __init__(self, model: keras.Model, cut: str) -> None:
        self.frozen = prefix(model, [cut])

    def gather(self, views: Sequence[View]) -> np.ndarray:
        """Compute what a cache would have kept."""
        return self.frozen.predict_on_batch(load_views(views, SIZE))


@dataclass
class Walk:
    """The weights before each stage, and after it from either source."""

    before: dict[str, Weights]
    after: dict[str, dict[str, Weights]]


def walk_stages(config: TrainConfig, photos: Photos) -> Walk:
    """Walk all stages twice, side by side; both begin each of them with the same weights."""
    fresh, cached = (classifier(config, photos) for _ in range(2))
    stores = {stage.cut: Unrounded(cached, stage.cut) for stage in config.stage_plan()}
    cache = CachedDataset(
        spec=dataset_spec(config, cached, "", photos),
        stores=stores,  # type: ignore[arg-type]
        quota=Quota(config.runs, limit=0),  # nothing is written
        untrained={},
    )
    walk = Walk({}, {})
    for stage in config.stage_plan():
        if stage.opens:  # the solved head made wrong, so that 15 steps are sure to improve it
            solved = walk.after["head"]["fresh"]
            wrong = [-0.3 * solved[HEAD, number] for number in range(2)]
            fresh.get_layer(HEAD).set_weights(wrong)
        cached.set_weights(fresh.get_weights())
        walk.before[stage.name] = weights_of(fresh)
        train(stage, fresh, SameViews(spec=dataset_spec(config, fresh, "", photos)))
        train(stage, cached, cache)
        walk.after[stage.name] = {"fresh": weights_of(fresh), "cached": weights_of(cached)}
    return walk


def train(stage: Stage, model: keras.Model, source: FeatureDataset) -> None:
    """Train one stage of a run."""
    open_layers(model, stage)
    if stage.opens:
        batches = source.batches(stage, "train", shuffle=True), source.batches(stage, "validation")
        result = train_stage(source.part(stage), stage, *batches)
    else:
        photos = source.labelled("train"), source.labelled("validation")
        result = fit_linear_probe(model, stage, *photos).result
    assert result.kept_epoch > 0, "nothing was learned, so nothing can be shown"


def weights_of(model: keras.Model) -> Weights:
    """Copy all weights."""
    return {
        (layer.name, number): array.copy()
        for layer in model.layers
        for number, array in enumerate(layer.get_weights())
    }


def trained_by(stage: str, weights: Weights) -> set[tuple[str, int]]:
    """Return the arrays that a stage trains: those of its blocks, or of the head."""
    opened = STAGES[stage].opens or (HEAD,)
    return {key for key in weights if key[0].split("_")[0] in opened}
