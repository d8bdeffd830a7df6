"""The cache of frozen activations: computed once for each view of each photo, kept on disk.

A frozen prefix gives the same answer for the same pixels every time. A *store* holds the
activations at one cut for one way of computing them, in blocks (``app.features.shards``) that
appear whole
or not at all: a broken-off run loses the block that is computed and the one that is written, and
runs may write at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import write_json
from app.core.console import progress_bar, say
from app.core.errors import AppError, CacheEvictedError
from app.data.augmentation import BATCH, View, load_batches
from app.data.augmentation import VERSION as VIEWS_VERSION
from app.data.decode import VERSION as IMAGES_VERSION
from app.data.decode import Pixels
from app.features.shards import (
    SPEC_FILE,
    Block,
    Float16s,
    block_bytes,
    indices,
    is_store,
    let_go,
    mapped,
    read_block,
    remove_block,
    store_name,
    write_block,
)
from app.features.store import Quota

if TYPE_CHECKING:  # it brings Keras, which a store has no need of
    from app.features.extractor import Frozen

BLOCK_ROWS = 128  # 52 MB of block4 activations at 320 pixels, 4 s of two cores in int8
VERSION = 1  # raise it when the same view gives other activations
Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSpec:
    """Everything besides the photo and its view that activations depend on."""

    cut: str
    backbone: str
    weights: str
    image_size: int
    precision: str
    version: str = f"{VERSION}.{IMAGES_VERSION}.{VIEWS_VERSION}"

    @property
    def key(self) -> str:
        """A short name of this way of computing, used as the store's folder."""
        return store_name(self.cut, asdict(self))


class FeatureStore:
    """Rows of float16 activations on disk, addressed by view; see the module's description.

    Args:
        folder: the folder of all stores.
        spec: how the activations are computed; another spec is another store.
        quota: asked for the room of each block that is written; None where there is no limit.
    """

    def __init__(self, folder: Path, spec: FeatureSpec, quota: Quota | None = None) -> None:
        self.folder = folder / spec.key
        self.spec = spec
        self.quota = quota
        self._places: dict[str, tuple[Block, int]] = {}
        damaged: list[tuple[Path, str]] = []
        for index in indices(self.folder):
            try:
                self._add(read_block(index))
            except FileNotFoundError:  # another process removed it just now
                continue
            except ValueError as error:
                damaged.append((index, str(error)))
        self._remove(damaged)

    def __contains__(self, view: View) -> bool:
        return view.key in self._places

    def append(self, views: Sequence[View], rows: Float16s) -> None:
        """Write the rows of views as one block, less those that are here already.

        The block exists for others when its index does.

        Raises:
            UsageError: when the quota has no room for it.
        """
        new = [number for number, view in enumerate(views) if view not in self]
        if not new:
            return
        if not is_store(self.folder):
            write_json(asdict(self.spec), self.folder / SPEC_FILE)
        if len(new) < len(rows):
            rows = rows[new]
        size = block_bytes(len(rows), rows[0].nbytes)
        with self.quota.room_for(size) if self.quota else nullcontext(set[Path]()) as kept:
            block = write_block(self.folder, [views[number].key for number in new], rows)
            kept.add(block.index)
        self._add(block)

    def gather(self, wanted: Sequence[View]) -> Float32s:
        """Return the activations of ``wanted``, in that order, as float32.

        Raises:
            KeyError: for a view that was never computed.
            LostRows: when blocks have vanished or shrunk since they were opened.
        """
        rows, maps, lost = [], set(), set()
        for block, number in [self._places[view.key] for view in wanted]:
            try:
                pages, values = mapped(block)
            except (OSError, ValueError):
                lost.add(block.index)
                continue
            maps.add(pages)
            rows.append(values[number])
        if lost:
            raise CacheEvictedError(
                f"expected the cached activations under {self.folder}; received {len(lost)} blocks "
                "less than there were; another process removes them: train again, they are "
                "computed anew"
            )
        result = np.stack(rows, dtype=np.float32)
        for pages in maps:
            let_go(pages)
        return result

    def blocks(self, wanted: Iterable[View]) -> set[Block]:
        """Return the blocks that hold rows of ``wanted``; views that are not here have none."""
        return {self._places[view.key][0] for view in wanted if view in self}

    def check(self, wanted: Iterable[View]) -> None:
        """Read the blocks of ``wanted`` from end to end, forget the damaged and note the use.

        A flipped bit is found here, once a run, and its block is computed again. 1.3 GB, 5,120 rows
        of block4_pool at 256 pixels, took 0.7 s out of memory and 0.9 s from the disk (two cores).
        """
        blocks = sorted(self.blocks(wanted), key=lambda block: block.index)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            whole = list(pool.map(Block.is_whole, blocks))
        for block in blocks:
            block.touch()
        bad = [block for block, good in zip(blocks, whole, strict=True) if not good]
        self._remove([(block.index, "other bytes than were written") for block in bad])

    def _add(self, block: Block) -> None:
        self._places.update({key: (block, row) for row, key in enumerate(block.keys)})

    def _remove(self, damaged: Sequence[tuple[Path, str]]) -> None:
        """Remove damaged blocks, of which the reason is known, and say so in one line."""
        if not damaged:
            return
        say(
            f"{len(damaged)} cached blocks of {self.folder.name} are damaged or gone "
            f"({damaged[0][1]}); they are computed again"
        )
        gone = {index for index, _ in damaged}
        self._places = {k: place for k, place in self._places.items() if place[0].index not in gone}
        for index in gone:
            remove_block(index)


def lacking_views(stores: Collection[FeatureStore], wanted: Iterable[View]) -> list[View]:
    """Return those of ``wanted`` that one of the stores has not."""
    return [view for view in wanted if any(view not in store for store in stores)]


def compute_features(
    frozen: Frozen,
    stores: Sequence[FeatureStore],
    lacking: Sequence[View],
    image_size: int,
    batch: int = BATCH,
) -> None:
    """Fill the stores with the rows of ``lacking``, in one pass through the network.

    The next views are drawn, and the last block is written, while the network computes.

    Args:
        frozen: gives one array for each store, in their order
        (``app.features.extractor.frozen_prefix``).
        stores: one for each cut.
        lacking: views, each of which is computed (``lacking_views``).
        image_size: height and width of a view in pixels.
        batch: views that ``frozen`` gets at once; a divisor of ``BLOCK_ROWS``.
    """
    batches = load_batches(lacking, image_size, batch)
    with progress_bar() as bar, ThreadPoolExecutor(1) as writer:
        task = bar.add_task("Frozen features", total=len(lacking))
        written: Future[None] | None = None
        for start in range(0, len(lacking), BLOCK_ROWS):
            block = lacking[start : start + BLOCK_ROWS]
            mine = islice(batches, BLOCK_ROWS // batch)
            rows = _compute(frozen, mine, lambda n: bar.advance(task, n))
            if written is not None:
                written.result()  # one block waits at most: memory, and what a failure loses
            written = writer.submit(_append, stores, block, rows)
        if written is not None:
            written.result()


def _append(
    stores: Sequence[FeatureStore], views: Sequence[View], rows: Sequence[Float16s]
) -> None:
    """Write the rows of views to each store."""
    for store, part in zip(stores, rows, strict=True):
        store.append(views, part)


@dataclass(frozen=True)
class CacheTimes:
    """Seconds a view: through the frozen prefix, onto this disk, and back from each store."""

    prefix: float
    write: float
    read: tuple[float, ...]


def time_cache(
    frozen: Frozen,
    stores: Sequence[FeatureStore],
    lacking: Sequence[View],
    image_size: int,
    batch: int = BATCH,
) -> CacheTimes:
    """Do with the first views what ``compute_features`` does with all, and time each step.

    The rows stay in the stores. The network is warmed up before; what was written is read back
    from the disk, not from the system's memory, where the system allows that.

    Args:
        frozen: gives one array for each store, in their order.
        stores: one for each cut.
        lacking: views that no store has, ``BLOCK_ROWS`` of them for times that are typical.
        image_size: height and width of a view in pixels.
        batch: views that ``frozen`` gets at once.
    """
    frozen(np.zeros((min(batch, len(lacking)), image_size, image_size, 3), np.uint8))
    with progress_bar() as bar:
        task = bar.add_task("Timing the cache", total=len(lacking))
        marks = [time.perf_counter()]
        batches = load_batches(lacking, image_size, batch)
        rows = _compute(frozen, batches, lambda n: bar.advance(task, n))
        marks.append(time.perf_counter())
        _append(stores, lacking, rows)
        marks.append(time.perf_counter())
    for store in stores:
        for block in store.blocks(lacking):
            block.forget_pages()
    shuffled = [lacking[n] for n in np.random.default_rng(0).permutation(len(lacking))]
    marks.append(time.perf_counter())
    for store in stores:
        for start in range(0, len(shuffled), BATCH):
            store.gather(shuffled[start : start + BATCH])
        marks.append(time.perf_counter())
    prefix, write, _, *read = (np.diff(marks) / len(lacking)).tolist()
    return CacheTimes(prefix, write, tuple(read))


def _compute(
    frozen: Frozen, batches: Iterable[Pixels], advance: Callable[[int], None]
) -> list[Float16s]:
    """Return the rows of some batches for each cut; ``advance`` hears of each batch."""
    parts = []
    for images in batches:
        parts.append([_as_float16(activations) for activations in frozen(images)])
        advance(len(images))
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _as_float16(activations: NDArray[np.floating[Any]]) -> Float16s:
    # Activations of VGG stay below 65,504 by far for photos; clipping keeps infinity out.
    limit = float(np.finfo(np.float16).max)
    rows: Float16s = activations
    if rows.dtype != np.float16:
        rows = np.clip(activations, -limit, limit).astype(np.float16)
    # By their bits: what NumPy itself has for it takes ten times as long. Above infinity's is NaN.
    if (rows.view(np.uint16) & 0x7FFF).max(initial=0) > 0x7C00:
        raise AppError(
            "expected activations that are numbers; received NaN from the frozen network; nothing "
            "of it was cached; try --precision float32, or another KERAS_BACKEND"
        )
    return rows
