"""Where a stage's input comes from: the cache of frozen activations, or fresh views every epoch."""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import keras
import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from app.core.config import STAGES, Stage, TrainConfig
from app.core.console import say
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import ReadPhoto, View, load_batches, load_views, read_photo, tta_views
from app.data.folder_layout import SPLITS, Split
from app.data.photo import Photos
from app.features.batches import Float32s, ViewBatches, targets_of
from app.features.cache import (
    BLOCK_ROWS,
    CacheTimes,
    FeatureSpec,
    FeatureStore,
    compute_features,
    lacking_views,
    time_cache,
)
from app.features.decoded import DecodedPhotos
from app.features.extractor import Batched, frozen_prefix
from app.features.int8_backbone import QuantisedPrefix, quantised_prefix
from app.features.labelled import BATCH, LabelledFeatures
from app.features.policy import Space, cache_pays
from app.features.shards import Block, block_bytes
from app.features.store import FEATURES_FOLDER, Quota, space
from app.network.classifier import describing_part, prefix, row_bytes, suffix
from app.network.device import on_gpu, resolve_frozen_precision, resolve_precision

HEAD_CUT = STAGES["head"].cut
_RECOVERY = threading.Lock()  # training and validation batches are made in threads of their own


class FeatureDataset(Protocol):
    """What training asks of either source."""

    @property
    def name(self) -> Literal["disk", "off"]:
        """What ``--cache`` would be to get this source."""

    @property
    def views(self) -> int | None:
        """How many views of each training photo there are; None: a fresh one in every epoch."""

    @property
    def frozen(self) -> str:
        """What computes frozen layers: the digest of those in int8; empty for others."""

    @property
    def quantised(self) -> QuantisedPrefix | None:
        """The frozen layers in int8; None for others."""

    def part(self, stage: Stage) -> keras.Model:
        """Return the part of the network that the stage's batches go into, up to the logits."""

    def describing(self, stage: Stage) -> keras.Model:
        """Return the same part with descriptors as its second output (``app.evaluation.ood``)."""

    def batches(
        self, stage: Stage, split: Split, *, shuffle: bool = False, view: int = 0
    ) -> ViewBatches:
        """Return a split's batches for a stage; shuffled ones walk through the views."""

    def labelled(self, split: Split) -> LabelledFeatures:
        """Return a split's photos themselves, as the head is solved on them."""


def open_dataset(
    config: TrainConfig, model: keras.Model, digest: str, photos: Photos
) -> FeatureDataset:
    """Choose the source that ``config.cache`` asks for, make it ready, and say why.

    Room comes first: where the rows of all views would not fit into half of the free disk or into
    ``config.cache_limit``, ``auto`` takes fewer views. Then time: ``auto`` computes one block,
    measures, and goes on only if the cache pays (``app.features.policy``).

    Args:
        config: of the run.
        model: the classifier, its backbone's weights set.
        digest: of these weights, part of the cache's key.
        photos: of all splits.

    Raises:
        UsageError: when the cache was asked for and has no room.
    """
    fresh = FreshDataset(config, model, photos, _reader(config))
    if config.cache == "off":
        say("cache off: every epoch draws a fresh view of each photo; --views has no part in it")
        return fresh
    quota = Quota(config.runs / FEATURES_FOLDER, _limit(config))
    precision, quantised = resolve_frozen_precision(config.precision), None
    if precision == "int8":
        quantised = quantised_prefix(quota.folder, model, digest, photos["train"])
        precision += f"-{quantised.digest[:8]}"
    stores = _open_stores(config, digest, precision, quota)
    untrained = {cut: _checksum(model, cut) for cut in stores}
    cached = CachedDataset(
        config, model, photos, stores, quota, config.training_views(), untrained, quantised
    )
    for store in cached.stores.values():
        store.check(cached.wanted())
    room = space(quota.folder, quota.limit)
    needed = cached.needed(room)
    if len(needed) < cached.views:
        _refuse_without_room(config, needed, room)
        if not needed:
            say(f"cache off: fresh views every epoch, because not one view has room ({room})")
            return fresh
        say(f"--views {len(needed)} instead of {cached.views}: more have no room ({room})")
        cached = dataclasses.replace(cached, views=len(needed))
    return cached if cached.fill(needed[-1]) else fresh


def _open_stores(
    config: TrainConfig, digest: str, precision: str, quota: Quota
) -> dict[str, FeatureStore]:
    """Return the store of each cut that the stages train from."""
    cuts = dict.fromkeys(stage.cut for stage in config.stage_plan())
    return {
        cut: FeatureStore(
            quota.folder,
            FeatureSpec(
                cut=cut,
                backbone=config.backbone,
                weights=digest,
                image_size=config.image_size,
                precision=precision,
            ),
            quota,
        )
        for cut in cuts
    }


def _checksum(model: keras.Model, cut: str) -> int:
    """Return the CRC-32 of the weights below a cut."""
    return reduce(lambda crc, w: zlib.crc32(w, crc), prefix(model, [cut]).get_weights(), 0)


def _reader(config: TrainConfig) -> ReadPhoto:
    """Return what decodes for fresh views: once a run where a GPU waits for it every epoch.

    Decoded photos are quickly made again: they take the room that activations leave, and remove
    none.
    """
    if not on_gpu() or not any(stage.epochs for stage in config.stage_plan()):
        return read_photo
    folder = config.runs / FEATURES_FOLDER
    room = space(folder, _limit(config))
    return DecodedPhotos(folder, min(room.limit - room.used, room.free // 2))


def _limit(config: TrainConfig) -> int:
    return round(config.cache_limit * 1e9)


def _refuse_without_room(config: TrainConfig, fitting: Sequence[int], room: Space) -> None:
    """Raise ``UsageError`` unless the choice was left to us."""
    if config.cache == "disk":
        fewer = f"--views {len(fitting)}, " if fitting else ""
        raise UsageError(
            f"expected room for the cache of {config.training_views()} views; received {room}; "
            f"choose {fewer}a smaller --image-size, a larger --cache-limit, or --cache off; "
            "python -m app cache --clear removes what is there"
        )


@dataclass(frozen=True)
class CachedDataset:
    """Activations computed once; an epoch reads one of ``views`` views of each photo.

    ``quota`` is the stores'; ``untrained`` holds a checksum of the weights below each cut, as the
    activations were computed; ``quantised`` are the layers in int8, None for others.
    """

    config: TrainConfig
    model: keras.Model
    photos: Photos
    stores: Mapping[str, FeatureStore]
    quota: Quota
    views: int
    untrained: Mapping[str, int]
    quantised: QuantisedPrefix | None = None
    name: ClassVar[Literal["disk", "off"]] = "disk"

    @property
    def frozen(self) -> str:
        """The digest of the layers in int8."""
        return self.quantised.digest if self.quantised else ""

    def part(self, stage: Stage) -> keras.Model:
        """Return the network above the stage's cut."""
        return suffix(self.model, stage.cut)

    def describing(self, stage: Stage) -> keras.Model:
        """Return the same with descriptors."""
        return describing_part(self.model, stage.cut)

    def batches(
        self, stage: Stage, split: Split, *, shuffle: bool = False, view: int = 0
    ) -> ViewBatches:
        """Return batches of cached activations."""
        return ViewBatches(
            self.photos[split],
            partial(self._rows, stage.cut),
            views=self.views,
            batch_size=stage.batch_size,
            seed=self.config.seed,
            shuffle=shuffle,
            view=view,
        )

    def labelled(self, split: Split) -> LabelledFeatures:
        """Return the cached activations of a split."""
        photos = self.photos[split]

        def maps(numbers: Sequence[int]) -> Iterator[Float32s]:
            for start in range(0, len(numbers), BATCH):
                some = numbers[start : start + BATCH]
                yield self._rows(HEAD_CUT, [View(photos[number], 0, 0) for number in some])

        return LabelledFeatures(maps, targets_of(photos))

    def wanted(self) -> list[View]:
        """Return all views that the run reads: those trained on, and those that answers need."""
        return [view for number in range(self.views) for view in self._numbered(number)]

    def needed(self, room: Space) -> list[int]:
        """Return the bytes to be written for 1, 2, ... views, as many as have room."""
        needed: list[int] = []
        lacking = dict.fromkeys(self.stores, 0)
        passes, kept, kept_bytes = 0, set[Block](), 0
        for number in range(self.views):
            views = self._numbered(number)
            for cut, store in self.stores.items():
                lacking[cut] += len(lacking_views([store], views))
                more = store.blocks(views) - kept
                kept_bytes += sum(block.bytes_on_disk() for block in more)
                kept |= more
            passes += len(lacking_views(self.stores.values(), views))
            total = self._bytes(lacking, passes)
            if not room.fits(total, kept_bytes):
                break
            needed.append(total)
        return needed

    def fill(self, needed: int) -> bool:
        """Compute what the stores lack, ``needed`` bytes; False if ``auto`` finds it does not pay.

        One block or less is computed without asking: measuring would cost as much.
        """
        stores = list(self.stores.values())
        wanted = self.wanted()
        lacking = lacking_views(stores, wanted)
        say(
            f"cache on disk: {len(wanted) - len(lacking)} of {len(wanted)} views are there, "
            f"{len(lacking)} to be computed ({decimal(needed)})"
        )
        self.quota.prepare(needed, self._kept())
        if not lacking:
            return True
        frozen = self._frozen(list(self.stores), len(lacking))
        # What is measured is not the same twice.
        measured = self.config.cache == "auto" and not self.config.deterministic
        if measured and len(lacking) > BLOCK_ROWS:
            first, lacking = lacking[:BLOCK_ROWS], lacking[BLOCK_ROWS:]
            times = time_cache(frozen, stores, first, self.config.image_size, frozen.batch)
            pays, why = self._pays(times, len(lacking))
            say(f"cache {'on disk' if pays else 'off: fresh views every epoch'}: {why}")
            if not pays:
                return False
        compute_features(frozen, stores, lacking, self.config.image_size, frozen.batch)
        return True

    def _pays(self, times: CacheTimes, lacking: int) -> tuple[bool, str]:
        """Apply ``app.features.policy.cache_pays`` to this run's epochs.

        Fresh views are counted at the rate of the cached ones, although they take longer where
        these are computed in int8.
        """
        read = dict(zip(self.stores, times.read, strict=True))
        train, validation, test = (len(self.photos[split]) for split in SPLITS)
        each = train + validation  # views an epoch
        answers = (validation + test) * len(tta_views(mirrored=self.config.mirror))
        stages = self.config.stage_plan()
        return cache_pays(
            prefix=times.prefix,
            write=times.write,
            reading=sum(stage.views_read(train, validation) * read[stage.cut] for stage in stages),
            lacking=lacking,
            # Besides the epochs: the head's features before, and the answers at the end.
            passes=each + sum(stage.views_read(train, validation) for stage in stages) + answers,
        )

    def _frozen(self, cuts: Sequence[str], photos: int = 0) -> Batched:
        precision = resolve_precision(self.config.precision)
        if self.config.deterministic:  # the fastest batch, which is measured, may be another one
            photos = 0
        return frozen_prefix(self.model, cuts, precision, photos, self.quantised)

    def _bytes(self, lacking: Mapping[str, int], passes: int) -> int:
        """Return what so many rows of each cut take, written while ``passes`` views go through."""
        blocks = -(-passes // BLOCK_ROWS)
        return sum(
            block_bytes(rows, row_bytes(self.model, [cut]), blocks)
            for cut, rows in lacking.items()
            if rows
        )

    def _kept(self) -> set[Path]:
        """Return the indices of the blocks that hold what the run reads."""
        wanted = self.wanted()
        return {b.index for store in self.stores.values() for b in store.blocks(wanted)}

    def _numbered(self, number: int) -> list[View]:
        """Return the views of one number; with 0 come all looks at the other photos."""
        training = [View(photo, number, self.config.seed) for photo in self.photos["train"]]
        if number:
            return training
        others = [photo for split in SPLITS[1:] for photo in self.photos[split]]
        numbers = tta_views(mirrored=self.config.mirror)
        return training + [View(photo, look, 0) for look in numbers for photo in others]

    def _rows(self, cut: str, views: Sequence[View]) -> Float32s:
        """Return the rows of ``views``, computed again where they were lost meanwhile."""
        store = self.stores[cut]
        try:
            return store.gather(views)
        except CacheEvictedError:
            if _checksum(self.model, cut) != self.untrained[cut]:
                raise  # trained meanwhile: these would be other activations
        with _RECOVERY:
            store.check(self.wanted())
            lacking = lacking_views([store], self.wanted())
            self.quota.prepare(self._bytes({cut: len(lacking)}, len(lacking)), self._kept())
            frozen = self._frozen([cut])
            compute_features(frozen, [store], lacking, self.config.image_size)
        return store.gather(views)


@dataclass(frozen=True)
class FreshDataset:
    """The classical way: every epoch draws new views, which go through the whole network."""

    config: TrainConfig
    model: keras.Model
    photos: Photos
    read: ReadPhoto = read_photo
    name: ClassVar[Literal["disk", "off"]] = "off"
    views: ClassVar[None] = None
    frozen: ClassVar[str] = ""
    quantised: ClassVar[None] = None

    def part(self, stage: Stage) -> keras.Model:
        """Return the whole network."""
        return self.model

    def describing(self, stage: Stage) -> keras.Model:
        """Return the same with descriptors."""
        return describing_part(self.model, None)

    def batches(
        self, stage: Stage, split: Split, *, shuffle: bool = False, view: int = 0
    ) -> ViewBatches:
        """Return batches of pixels."""
        return ViewBatches(
            self.photos[split],
            self._pixels,
            views=self.views,
            batch_size=stage.batch_size,
            seed=self.config.seed,
            shuffle=shuffle,
            view=view,
            first_epoch=self._epochs_before(stage),
            threads=2,  # when the first views of a batch are drawn, the next one begins
        )

    def labelled(self, split: Split) -> LabelledFeatures:
        """Compute the activations of a split when they are asked for."""
        photos, size = self.photos[split], self.config.image_size
        precision = resolve_precision(self.config.precision)
        # The fastest batch, which is measured, may be another one the next time.
        count = 0 if self.config.deterministic else len(photos)
        frozen = frozen_prefix(self.model, [HEAD_CUT], precision, count)

        def maps(numbers: Sequence[int]) -> Iterator[Float32s]:
            views = [View(photos[number], 0, 0) for number in numbers]
            for images in load_batches(views, size, frozen.batch, self.read):
                yield frozen(images)[0].astype(np.float32)

        return LabelledFeatures(maps, targets_of(photos))

    def _epochs_before(self, stage: Stage) -> int:
        """Return how many epochs earlier stages may have had: their views are not shown again."""
        plan = self.config.stage_plan()
        return sum(earlier.epochs for earlier in plan[: plan.index(stage)])

    def _pixels(self, views: Sequence[View]) -> NDArray[Any]:
        return load_views(views, self.config.image_size, self.read)  # as uint8: a quarter to send
