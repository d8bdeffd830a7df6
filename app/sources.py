"""Where a stage's input comes from: the cache of frozen activations, or fresh views every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from app.config import Stage, TrainConfig
from app.console import say
from app.device import resolve_precision
from app.features import FeatureSpec, FeatureStore, compute_features, fits_on_disk
from app.files import Split
from app.frozen import frozen_prefix
from app.head import Labelled
from app.model import row_bytes, suffix
from app.photos import Photos
from app.training import ViewBatches, targets_of
from app.views import View, load_batches, load_views

FEATURES_FOLDER = ".features"  # in the folder of the runs, which share it


class Source(Protocol):
    """What training asks of either source."""

    @property
    def name(self) -> Literal["disk", "off"]:
        """What ``--cache`` would be to get this source."""

    def part(self, stage: Stage) -> keras.Model:
        """Return the part of the network that the stage's batches go into, up to the logits."""

    def batches(self, stage: Stage, split: Split, *, shuffle: bool = False) -> ViewBatches:
        """Return a split's batches for a stage; shuffled ones walk through the views."""

    def labelled(self, split: Split) -> Labelled:
        """Return the pooled features of a split's photos, which the head is solved on."""


def open_source(config: TrainConfig, model: keras.Model, digest: str, photos: Photos) -> Source:
    """Choose the source that ``config.cache`` asks for and make it ready.

    ``auto`` takes the cache where it fits into half of the free disk, and says what it took.

    Args:
        config: of the run.
        model: the classifier, its backbone's weights set.
        digest: of these weights, part of the cache's key.
        photos: of all splits.
    """
    cuts = list(dict.fromkeys(["pooled", *(stage.cut for stage in config.stage_plan())]))
    precision = resolve_precision(config.precision)
    wanted = [
        View(photo, number, config.seed)
        for split in photos
        for photo in photos[split]
        for number in range(config.training_views() if split == "train" else 1)
    ]
    if config.cache == "off":
        say("cache off: every epoch draws a fresh view of each photo; --views has no part in it")
        return FreshSource(config, model, photos)
    folder = config.runs / FEATURES_FOLDER
    stores = {
        cut: FeatureStore(
            folder,
            FeatureSpec(
                cut=cut,
                backbone=config.backbone,
                weights=digest,
                image_size=config.image_size,
                precision=precision,
            ),
        )
        for cut in cuts
    }
    lacking = [view for view in wanted if any(view not in store for store in stores.values())]
    fits, why = fits_on_disk(folder, row_bytes(model, cuts), len(lacking))
    if config.cache == "auto" and not fits:
        say(f"cache off: fresh views every epoch, because the cache would not fit ({why})")
        return FreshSource(config, model, photos)
    known = len(wanted) - len(lacking)
    say(f"cache on disk: {known} views are there, {len(lacking)} to be computed ({why})")
    frozen = frozen_prefix(model, cuts, precision)
    compute_features(frozen, [stores[cut] for cut in cuts], lacking, config.image_size)
    return CachedSource(config, model, photos, stores)


@dataclass(frozen=True)
class CachedSource:
    """Activations computed once; an epoch reads one of ``config.views`` views of each photo."""

    config: TrainConfig
    model: keras.Model
    photos: Photos
    stores: Mapping[str, FeatureStore]
    name: ClassVar[Literal["disk", "off"]] = "disk"

    def part(self, stage: Stage) -> keras.Model:
        """Return the network above the stage's cut."""
        return suffix(self.model, stage.cut)

    def batches(self, stage: Stage, split: Split, *, shuffle: bool = False) -> ViewBatches:
        """Return batches of cached activations."""
        return ViewBatches(
            self.photos[split],
            self.stores[stage.cut].gather,
            views=self.config.views,
            batch_size=stage.batch_size,
            seed=self.config.seed,
            shuffle=shuffle,
        )

    def labelled(self, split: Split) -> Labelled:
        """Return the cached features of a split."""
        photos = self.photos[split]
        features = self.stores["pooled"].gather([View(photo, 0, 0) for photo in photos])
        return Labelled(features, targets_of(photos))


@dataclass(frozen=True)
class FreshSource:
    """The classical way: every epoch draws new views, which go through the whole network."""

    config: TrainConfig
    model: keras.Model
    photos: Photos
    name: ClassVar[Literal["disk", "off"]] = "off"

    def part(self, stage: Stage) -> keras.Model:
        """Return the whole network."""
        return self.model

    def batches(self, stage: Stage, split: Split, *, shuffle: bool = False) -> ViewBatches:
        """Return batches of pixels."""
        return ViewBatches(
            self.photos[split],
            self._pixels,
            views=None,
            batch_size=stage.batch_size,
            seed=self.config.seed,
            shuffle=shuffle,
            first_epoch=self._epochs_before(stage),
        )

    def labelled(self, split: Split) -> Labelled:
        """Compute the features of a split in one pass; they are small enough for the memory."""
        frozen = frozen_prefix(self.model, ["pooled"], resolve_precision(self.config.precision))
        photos = self.photos[split]
        views = [View(photo, 0, 0) for photo in photos]
        parts = [frozen(images)[0] for images in load_batches(views, self.config.image_size)]
        return Labelled(np.concatenate(parts).astype(np.float32), targets_of(photos))

    def _epochs_before(self, stage: Stage) -> int:
        """Return how many epochs earlier stages may have had: their views are not shown again."""
        plan = self.config.stage_plan()
        return sum(earlier.epochs for earlier in plan[: plan.index(stage)])

    def _pixels(self, views: Sequence[View]) -> NDArray[Any]:
        return load_views(views, self.config.image_size).astype(np.float32)
