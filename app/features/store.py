"""The features of one cut, computed in one way, on disk: a row of float16 for each view.

The rows lie in shards (``app.features.shards``), which are written atomically: an interrupted run
loses at most two of them, and several runs may write at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import write_json
from app.core.console import progress_bar, say
from app.core.environment import installed_version, usable_cores
from app.core.errors import AppError, CacheEvictedError
from app.data.augmentation import VERSION as VIEWS_VERSION
from app.data.augmentation import View, load_batches
from app.data.decode import VERSION as IMAGES_VERSION
from app.features.cache_folder import Quota
from app.features.shards import (
    SHARD_ROWS,
    SPEC_FILE,
    Float16s,
    Shard,
    all_finite,
    is_store,
    read_shard,
    remove,
    shard_bytes,
    shards_in,
    store_name,
    touch,
    write_shard,
)

if TYPE_CHECKING:
    from app.features.extractor import FeatureExtractor

VERSION = 1  # raise it when the same view gives other activations
Float32s = NDArray[np.float32]


def versions() -> str:
    """Return the versions of what makes activations: our code, the decoder and the engines."""
    libraries = [f"{name} {installed_version(name)}" for name in ("pillow", "onnxruntime", "keras")]
    return ", ".join([f"{VERSION}.{IMAGES_VERSION}.{VIEWS_VERSION}", *libraries])


@dataclass(frozen=True)
class FeatureSpec:
    """The settings that change the activations; each set of them has its own store.

    Attributes:
        cut: where the network is cut (``app.network.classifier.CUTS``).
        backbone: the network.
        weights: their digest.
        image_size: height and width of a view in pixels.
        precision: the number format; for int8 with the digest of its scales.
        engine: what computes (``app.features.extractor.engine``).
        versions: of what computes.
    """

    cut: str
    backbone: str
    weights: str
    image_size: int
    precision: str
    engine: str = "onnxruntime"
    versions: str = field(default_factory=versions)

    @property
    def key(self) -> str:
        """A short name of this way of computing, used as the store's folder."""
        return store_name(self.cut, asdict(self))


class FeatureStore:
    """Rows of float16 activations on disk, addressed by view; see the module's description.

    Args:
        folder: the folder of all stores.
        spec: how the activations are computed; another spec is another store.
        quota: gives the room of each shard that is written; None where there is no limit.
    """

    def __init__(self, folder: Path, spec: FeatureSpec, quota: Quota | None = None) -> None:
        self.folder = folder / spec.key
        self.spec = spec
        self.quota = quota
        self._places: dict[str, tuple[Shard, int]] = {}
        damaged = []
        for path in shards_in(self.folder):
            try:
                self._add(read_shard(path))
            except FileNotFoundError:  # another process removed it just now
                continue
            except ValueError:
                damaged.append(path)
        self._remove(damaged)

    def __contains__(self, view: View) -> bool:
        return view.key in self._places

    def append(self, views: Sequence[View], rows: Float16s) -> None:
        """Write the rows of views as one shard, without views that are stored already.

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
        size = shard_bytes(len(rows), rows[0].nbytes)
        with self.quota.room_for(size) if self.quota else nullcontext():
            shard = write_shard(self.folder, [views[number].key for number in new], rows)
            if self.quota:
                self.quota.keep.add(shard.path)
        self._add(shard)

    def gather(self, wanted: Sequence[View]) -> Float32s:
        """Return the activations of ``wanted``, in that order, as float32.

        Raises:
            KeyError: for a view that was never computed.
            CacheEvictedError: when shards have vanished or shrunk since they were opened.
        """
        places = [self._places[view.key] for view in wanted]
        shape = places[0][0].shape
        row, rows = np.empty(shape, np.float16), np.empty((len(wanted), *shape), np.float32)
        lost = set()
        for place, (shard, number) in enumerate(places):
            try:
                shard.read_row(number, row)
            except (OSError, ValueError):
                lost.add(shard)
                continue
            rows[place] = row
        if lost:
            raise CacheEvictedError(
                f"expected the cached activations under {self.folder}; received {len(lost)} shards "
                "less than there were; another process removes them: train again, they are "
                "computed anew"
            )
        return rows

    def shards(self, wanted: Iterable[View]) -> set[Shard]:
        """Return the shards that hold rows of ``wanted``; views that are not here have none."""
        return {self._places[view.key][0] for view in wanted if view in self}

    def check(self, wanted: Iterable[View]) -> None:
        """Read the shards of ``wanted`` from end to end, forget the damaged and note the use.

        A flipped bit is found here, once a run, and its shard is computed again.
        """
        shards = sorted(self.shards(wanted), key=lambda shard: shard.path)
        with ThreadPoolExecutor(usable_cores()) as pool:
            whole = list(pool.map(Shard.is_whole, shards))
        for shard in shards:
            touch(shard.path)
        self._remove([shard.path for shard, good in zip(shards, whole, strict=True) if not good])

    def _add(self, shard: Shard) -> None:
        self._places.update({key: (shard, row) for row, key in enumerate(shard.keys)})

    def _remove(self, damaged: Collection[Path]) -> None:
        """Remove damaged shards, and say so in one line."""
        if not damaged:
            return
        say(
            f"{len(damaged)} cached shards of {self.folder.name} are damaged or gone; they are "
            "computed again"
        )
        gone = set(damaged)
        self._places = {k: at for k, at in self._places.items() if at[0].path not in gone}
        for path in gone:
            remove(path)


def missing_views(stores: Collection[FeatureStore], wanted: Iterable[View]) -> list[View]:
    """Return the views that are missing from at least one store."""
    return [view for view in wanted if any(view not in store for store in stores)]


def compute_features(
    extractor: FeatureExtractor,
    stores: Sequence[FeatureStore],
    missing: Sequence[View],
    image_size: int,
) -> None:
    """Fill the stores with the rows of ``missing``, in one pass through the network.

    The next views are drawn, and the last shard is written, while the network computes.

    Args:
        extractor: gives one array for each store, in their order; its batch divides
            ``SHARD_ROWS``.
        stores: one for each cut.
        missing: views, each of which is computed (``missing_views``).
        image_size: height and width of a view in pixels.

    Raises:
        AppError: when the network gives NaN or infinity; nothing of it is kept.
        UsageError: when a shard has no room.
    """
    from app.network.device import on_gpu  # brings Keras, which a worker of Ray may not need

    batches = load_batches(missing, image_size, extractor.batch, processes=on_gpu())
    features = extractor.stream(batches)
    at_once = SHARD_ROWS // extractor.batch
    with features_progress(len(missing)) as advance:
        write_spans(
            stores,
            ((views, rows_of(islice(features, at_once), advance)) for views in spans(missing)),
        )


@contextmanager
def features_progress(views: int) -> Iterator[Callable[[int], None]]:
    """Show how many views are computed; yield what is called with the number of further ones."""
    with progress_bar() as bar:
        task = bar.add_task("Frozen features", total=views)
        yield lambda some: bar.advance(task, some)


def spans(views: Sequence[View]) -> Iterator[Sequence[View]]:
    """Yield the views of one shard after the other."""
    for start in range(0, len(views), SHARD_ROWS):
        yield views[start : start + SHARD_ROWS]


def rows_of(
    batches: Iterable[Sequence[NDArray[np.floating[Any]]]],
    advance: Callable[[int], None] = lambda views: None,
) -> list[Float16s]:
    """Join the activations of some batches, an array for each cut; round them to float16.

    Args:
        batches: the activations at each cut, float16 or float32 ``(n, ...)``.
        advance: called with the number of views in each batch.

    Raises:
        AppError: when there is NaN or infinity among them.
    """
    parts = []
    for activations in batches:
        parts.append([_as_float16(each) for each in activations])
        advance(len(activations[0]))
    return [np.concatenate(cut) for cut in zip(*parts, strict=True)]


def write_spans(
    stores: Sequence[FeatureStore],
    computed: Iterable[tuple[Sequence[View], Sequence[Float16s]]],
) -> None:
    """Write the rows of spans of views, each as a shard of each store, while others are computed.

    Raises:
        UsageError: when a shard has no room.
    """

    def write(views: Sequence[View], rows: Sequence[Float16s]) -> None:
        for store, part in zip(stores, rows, strict=True):
            store.append(views, part)

    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for views, rows in computed:
            if written is not None:
                written.result()  # at most one shard waits: this limits memory and lost work
            written = writer.submit(write, views, rows)
        if written is not None:
            written.result()


def kept_rows(
    store: FeatureStore,
    views: Sequence[View],
    image_size: int,
    make: Callable[[], FeatureExtractor],
) -> Iterator[Float32s]:
    """Yield the activations of ``views`` in batches, after those that are not there were computed.

    Args:
        store: of the activations.
        views: whose activations are wanted.
        image_size: height and width of a view in pixels.
        make: gives what computes the store's activations; called where some are missing.

    Raises:
        CacheEvictedError: when another process removes them meanwhile.
        UsageError: when a shard has no room.
    """
    store.check(views)
    if missing := missing_views([store], views):
        compute_features(make(), [store], missing, image_size)
    for start in range(0, len(views), SHARD_ROWS):
        yield store.gather(views[start : start + SHARD_ROWS])


def _as_float16(activations: NDArray[np.floating[Any]]) -> Float16s:
    # Activations of VGG stay below 65,504 by far for photos; clipping keeps infinity out.
    limit = float(np.finfo(np.float16).max)
    rows: Float16s = activations
    if rows.dtype != np.float16:
        rows = np.clip(activations, -limit, limit).astype(np.float16)
    if not all_finite(rows):
        raise AppError(
            "expected activations that are numbers; received NaN from the frozen network; nothing "
            "of it was cached; try --precision float32, or another KERAS_BACKEND"
        )
    return rows
