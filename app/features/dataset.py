"""Where a stage's input comes from: the feature cache, or fresh views every epoch."""

from __future__ import annotations

import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from app.core.config import STAGES, CacheMode, Engine, Precision, Stage
from app.core.console import say
from app.core.errors import CacheEvictedError, UsageError
from app.core.ray_workers import RayCluster
from app.data.augmentation import View, load_batches, load_views, tta_views
from app.data.folder_layout import Split
from app.data.manifest import Photo, Photos
from app.features.batches import (
    BATCH,
    Float32s,
    LabelledMaps,
    ViewBatches,
    groups_of,
    targets_of,
)
from app.features.cache_folder import Quota
from app.features.extractor import (
    FeatureExtractor,
    engine,
    make_extractor,
    onnx_engine,
    travelling_layers,
)
from app.features.int8_backbone import Int8Backbone, make_int8_backbone
from app.features.ray_features import KerasLayers, OnnxLayers, compute_features_by_ray
from app.features.shards import SHARD_ROWS, shard_bytes
from app.features.store import FeatureSpec, FeatureStore, compute_features, missing_views
from app.inference.engine_choice import USUAL
from app.network.classifier import logits_and_embeddings, prefix, row_bytes, suffix
from app.network.device import on_gpu, resolve_frozen_precision, resolve_precision
from app.network.whole_batches import predict_batch

HEAD_CUT = STAGES["head"].cut
AT_ONCE = 2  # stages whose activations are computed in one pass; a deeper one may never be reached
_RECOVERY = threading.Lock()  # training and validation batches are made in threads of their own


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a dataset depends on: the network, the photos, and a few settings of the run.

    Attributes:
        model: the classifier, its backbone's weights set.
        backbone: the network's name.
        weights: the digest of the backbone's weights.
        photos: to train and validate on; test has no part in it.
        neither: training photos that show none of the classes; their ``target`` means nothing.
        scales: photos that the scales of int8 are taken from; None: those of training. A
            correction of some photos must not give all of them other features.
        stages: of the run, in their order.
        views: of each training photo, where they are cached.
        seed: of the views and of their order.
        precision: of the run; the arithmetic of frozen layers follows from it.
        mirror: whether answers are made from the mirror image as well.
        deterministic: whether nothing may depend on what is measured.
        engine: what computes frozen layers where Keras does not.
        ray: whose workers compute what the cache lacks; None: this process.
    """

    model: keras.Model
    backbone: str
    weights: str
    photos: Photos
    neither: Sequence[Photo] = ()
    scales: Sequence[Photo] | None = None
    stages: Sequence[Stage]
    views: int
    seed: int = 0
    precision: Precision = "auto"
    mirror: bool = False
    deterministic: bool = False
    engine: Engine = USUAL
    ray: RayCluster | None = None

    @property
    def image_size(self) -> int:
        """Height and width of a view in pixels."""
        return int(self.model.input.shape[1])

    def cached_views(self) -> list[View]:
        """Return all views that a run reads from a cache."""
        train = self.photos["train"]
        others = self.photos["validation"]
        return [
            *(View(photo, 0, self.seed) for photo in (*train, *self.neither)),
            *(View(p, number, 0) for number in tta_views(mirrored=self.mirror) for p in others),
            *(View(p, number, self.seed) for number in range(1, self.views) for p in train),
        ]

    def bytes_of(self, rows: Mapping[str, int]) -> int:
        """Return what so many rows of each cut take at most in the cache."""
        return sum(
            shard_bytes(count, row_bytes(self.model, [cut]), -(-max(rows.values()) // SHARD_ROWS))
            for cut, count in rows.items()
            if count
        )

    def extractor(self, cuts: Sequence[str], int8: Int8Backbone | None = None) -> FeatureExtractor:
        """Return what computes features at ``cuts``."""
        precision = resolve_precision(self.precision)
        return make_extractor(self.model, cuts, precision, int8, self.engine)

    def travelling_layers(
        self, cuts: Sequence[str], int8: Int8Backbone | None
    ) -> OnnxLayers | KerasLayers:
        """Return the layers that compute features at ``cuts``, for other processes."""
        precision = resolve_precision(self.precision)
        chosen = USUAL if self.engine == "auto" else self.engine
        return travelling_layers(self.model, cuts, precision, int8, chosen)

    def checksum(self, cut: str) -> int:
        """Return the CRC-32 of the weights below a cut."""
        weights = prefix(self.model, [cut]).get_weights()
        return reduce(lambda crc, array: zlib.crc32(array, crc), weights, 0)


@dataclass(frozen=True, kw_only=True)
class FeatureDataset(ABC):
    """The input of a run's stages.

    Attributes:
        spec: what it depends on.
        int8: the frozen layers in int8, where they compute the features.
        int8_twin: the frozen layers in int8 for the bundle's int8 model; ``int8`` itself, or what a
            processor computes instead of a GPU; None where there is none.
        name: what ``--cache`` would be to get it.
    """

    spec: DatasetSpec
    int8: Int8Backbone | None = None
    int8_twin: Int8Backbone | None = None
    name: ClassVar[Literal["disk", "off"]]

    @property
    def views(self) -> int | None:
        """How many views of each training photo there are; None: a fresh one in every epoch."""
        return self.spec.views if self.name == "disk" else None

    @property
    def made_by(self) -> str:
        """What computes frozen layers (``app.features.extractor.engine``)."""
        return engine(resolve_precision(self.spec.precision), self.spec.engine)

    @property
    def frozen(self) -> str:
        """What computes frozen layers: the digest of those in int8; empty for others."""
        return self.int8.digest if self.int8 else ""

    def part(self, stage: Stage) -> keras.Model:
        """Return the part of the network that the stage's batches go into, up to the logits."""
        model = self.spec.model
        return model if self.views is None else suffix(model, stage.cut)

    def part_with_embeddings(self, stage: Stage) -> keras.Model:
        """Return the same part with embeddings as its second output (``app.evaluation.ood``)."""
        return logits_and_embeddings(self.spec.model, None if self.views is None else stage.cut)

    def batches(
        self,
        stage: Stage,
        split: Split,
        *,
        shuffle: bool = False,
        view: int = 0,
        epochs_before: int = 0,
    ) -> ViewBatches:
        """Return a split's batches for a stage; shuffled ones walk through the views.

        ``epochs_before`` is how many the stages before it may have had: fresh views that they saw
        are not shown again.
        """
        return self._batches(stage, self.spec.photos[split], shuffle, view, epochs_before)

    def batches_of_neither(self, stage: Stage) -> ViewBatches | None:
        """Return those of the training photos of none of the classes; None where there are none."""
        return self._batches(stage, self.spec.neither) if self.spec.neither else None

    def _batches(
        self,
        stage: Stage,
        photos: Sequence[Photo],
        shuffle: bool = False,
        view: int = 0,
        epochs_before: int = 0,
    ) -> ViewBatches:
        fresh = self.views is None
        return ViewBatches(
            photos,
            partial(self._inputs, stage),
            views=self.views,
            batch_size=stage.batch_size,
            seed=self.spec.seed,
            shuffle=shuffle,
            view=view,
            first_epoch=epochs_before if fresh else 0,
            threads=2 if fresh else 1,  # when a batch's first views are drawn, the next begins
        )

    def maps(self, stage: Stage, split: Split) -> LabelledMaps:
        """Return block5's maps of a split's photos themselves, as the network computes them now."""
        model, photos = self.spec.model, self.spec.photos[split]
        start = model.input if self.views is None else model.get_layer(stage.cut).output
        part = keras.Model(start, model.get_layer(HEAD_CUT).output)

        def walk(numbers: Sequence[int]) -> Iterator[Float32s]:
            for first in range(0, len(numbers), stage.batch_size):
                some = numbers[first : first + stage.batch_size]
                inputs = self._inputs(stage, [View(photos[number], 0, 0) for number in some])
                yield predict_batch(part, inputs, stage.batch_size).astype(np.float32)

        return LabelledMaps(walk, targets_of(photos), groups_of(photos))

    def prepare(self, stage: Stage) -> bool:
        """Make ready what a stage trains on; say whether there is room for it."""
        return True

    @abstractmethod
    def _inputs(self, stage: Stage, views: Sequence[View]) -> NDArray[Any]:
        """Return what the stage's part of the network takes of some views."""

    @abstractmethod
    def labelled(self, split: Split) -> LabelledMaps:
        """Return the maps of a split's photos themselves, on which the linear probe is fitted."""


def open_dataset(spec: DatasetSpec, cache: CacheMode, quota: Quota) -> FeatureDataset:
    """Return the input that ``cache`` names, ready to be read, and say in a line what it is.

    ``auto`` is ``disk`` where the features of the first two stages are within the limit, else
    ``off``: photos and settings decide, never what else the disk holds. Where the disk has no room
    for what is within the limit, the run is refused. Features of deeper stages are computed when
    they are reached (``FeatureDataset.prepare``).

    Args:
        spec: what the input depends on.
        cache: ``auto``, ``disk`` or ``off``.
        quota: of the folder of all caches.

    Raises:
        UsageError: when a cache has no room.
    """
    cuts = list(dict.fromkeys(stage.cut for stage in spec.stages[:AT_ONCE]))
    count = len(spec.cached_views())
    size = spec.bytes_of(dict.fromkeys(cuts, count))
    too_large = f"{count:,} views take {decimal(size)}, --cache-limit is {decimal(quota.limit)}"
    if cache == "disk" and size > quota.limit:
        raise UsageError(
            f"expected a cache within its limit; received a run whose {too_large}; choose fewer "
            "--views, a smaller --image-size, a larger --cache-limit, or --cache off"
        )
    if cache == "off" or size > quota.limit:
        why = "--views has no part in it" if cache == "off" else too_large
        no_ray = "; --ray has no part in it" if spec.ray else ""
        say(f"cache off: every epoch draws a fresh view of each photo; {why}{no_ray}")
        return FreshDataset(spec=spec)
    if spec.ray is not None:
        refuse_other_devices(spec.ray)
    precision, int8, twin = resolve_frozen_precision(spec.precision), None, None
    made_by = engine(precision)
    if precision == "int8" or (on_gpu() and spec.precision == "auto"):
        scales = spec.photos["train"] if spec.scales is None else spec.scales
        twin = make_int8_backbone(quota.folder, spec.model, spec.weights, scales)
    if precision == "int8" and twin is not None:
        int8 = twin
        precision = int8.precision
    if made_by == USUAL:
        spec = replace(spec, engine=onnx_engine(spec.model, cuts, int8, spec.engine, count))
        made_by = engine(resolve_frozen_precision(spec.precision), spec.engine)
    how = (spec.backbone, spec.weights, spec.image_size, precision, made_by)
    stores = {cut: FeatureStore(quota.folder, FeatureSpec(cut, *how), quota) for cut in cuts}
    untrained = {cut: spec.checksum(cut) for cut in cuts}
    cached = CachedDataset(
        spec=spec, int8=int8, int8_twin=twin, stores=stores, quota=quota, untrained=untrained
    )
    cached.fill(cuts, spec.ray)
    return cached


def refuse_other_devices(cluster: RayCluster) -> None:
    """Refuse workers on another kind of device than the run's own process: it rounds otherwise.

    Raises:
        UsageError: with the flag that is right here.
    """
    if on_gpu() != (cluster.gpus > 0):
        device, right = ("a GPU", 1) if on_gpu() else ("a processor", 0)
        raise UsageError(
            f"expected --worker-gpus {right}, since this run computes its features on {device}; "
            f"received {cluster.gpus}"
        )


@dataclass(frozen=True, kw_only=True)
class CachedDataset(FeatureDataset):
    """Features computed once; an epoch reads one of several views of each photo.

    Attributes:
        stores: of each cut.
        quota: the stores'.
        untrained: a checksum of the weights below each cut, as the features were computed.
    """

    stores: dict[str, FeatureStore]
    quota: Quota
    untrained: dict[str, int]
    name: ClassVar[Literal["disk", "off"]] = "disk"

    @property
    def made_by(self) -> str:
        """What computed the features."""
        return self.stores[HEAD_CUT].spec.engine

    def labelled(self, split: Split) -> LabelledMaps:
        """Return the cached maps of a split."""
        photos = self.spec.photos[split]

        def maps(numbers: Sequence[int]) -> Iterator[Float32s]:
            for start in range(0, len(numbers), BATCH):
                some = numbers[start : start + BATCH]
                yield self._rows(HEAD_CUT, [View(photos[number], 0, 0) for number in some])

        return LabelledMaps(maps, targets_of(photos), groups_of(photos))

    def prepare(self, stage: Stage) -> bool:
        """Compute a stage's activations if they are not there; False: they pass the limit.

        Raises:
            UsageError: when the disk has no room for what is within the limit.
        """
        if stage.cut in self.stores:
            return True
        rows = dict.fromkeys([*self.stores, stage.cut], len(self.spec.cached_views()))
        if (size := self.spec.bytes_of(rows)) > self.quota.limit:
            say(
                f"stage {stage.name} is not tried: with its features the cache takes "
                f"{decimal(size)}, --cache-limit is {decimal(self.quota.limit)}"
            )
            return False
        feature_spec = replace(self.stores[HEAD_CUT].spec, cut=stage.cut)
        self.stores[stage.cut] = FeatureStore(self.quota.folder, feature_spec, self.quota)
        self.untrained[stage.cut] = self.spec.checksum(stage.cut)
        self.fill([stage.cut], self.spec.ray)
        return True

    def fill(self, cuts: Sequence[str], ray: RayCluster | None = None) -> None:
        """Compute what the stores of these cuts lack, after a look at what they hold.

        Args:
            cuts: of stores.
            ray: whose workers compute; None: this process.

        Raises:
            UsageError: when there is no room for it; nothing is computed then.
        """
        wanted, stores = self.spec.cached_views(), [self.stores[cut] for cut in cuts]
        for store in stores:
            store.check(wanted)
        rows = {cut: len(missing_views([self.stores[cut]], wanted)) for cut in cuts}
        missing, needed = missing_views(stores, wanted), self.spec.bytes_of(rows)
        say(
            f"cache on disk: {len(wanted) - len(missing)} of {len(wanted)} views are there, "
            f"{len(missing)} to be computed ({decimal(needed)})"
        )
        self.quota.keep |= {
            shard.path for store in self.stores.values() for shard in store.shards(wanted)
        }
        with self.quota.room_for(needed):
            pass  # again for each shard, since others may write meanwhile
        size = self.spec.image_size
        if missing and ray is not None:
            layers = self.spec.travelling_layers(cuts, self.int8)
            row = row_bytes(self.spec.model, cuts)
            compute_features_by_ray(ray, layers, stores, missing, size, row)
        elif missing:
            compute_features(self.spec.extractor(cuts, self.int8), stores, missing, size)

    def _inputs(self, stage: Stage, views: Sequence[View]) -> NDArray[Any]:
        return self._rows(stage.cut, views)

    def _rows(self, cut: str, views: Sequence[View]) -> Float32s:
        """Return the rows of ``views``, computed again where they were lost meanwhile."""
        store = self.stores[cut]
        try:
            return store.gather(views)
        except CacheEvictedError:
            if self.spec.checksum(cut) != self.untrained[cut]:
                raise  # trained meanwhile: these would be other activations
        with _RECOVERY:
            self.fill([cut])  # here: few are lost, and Ray begins in the first thread only
        return store.gather(views)


@dataclass(frozen=True, kw_only=True)
class FreshDataset(FeatureDataset):
    """The classical way: every epoch draws new views, which go through the whole network."""

    name: ClassVar[Literal["disk", "off"]] = "off"

    def labelled(self, split: Split) -> LabelledMaps:
        """Compute the maps of a split when they are asked for."""
        photos = self.spec.photos[split]
        extractor = self.spec.extractor([HEAD_CUT])

        def maps(numbers: Sequence[int]) -> Iterator[Float32s]:
            views = [View(photos[number], 0, 0) for number in numbers]
            size = self.spec.image_size
            batches = load_batches(views, size, extractor.batch, processes=on_gpu())
            for rows in extractor.stream(batches):
                yield rows[0].astype(np.float32)

        return LabelledMaps(maps, targets_of(photos), groups_of(photos))

    def _inputs(self, stage: Stage, views: Sequence[View]) -> NDArray[Any]:
        # As uint8: a quarter to send.
        return load_views(views, self.spec.image_size, processes=on_gpu())
