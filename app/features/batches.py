"""What training reads: batches of views for epochs, and maps by photo for the linear probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.core.errors import AppError
from app.data.augmentation import View
from app.data.manifest import Photo
from app.evaluation.metrics import Ints
from app.network.whole_batches import compiles_for_each_size, sharing

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]
# Views → what the trained part of the network takes: cached activations, or pixels.
Fetch = Callable[[Sequence[View]], NDArray[Any]]
AHEAD = 2  # batches that are made while the network computes another one
BATCH = 64  # photos at once for the linear probe; each has 262,144 second-order features


class ViewBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of one view of each photo an epoch, another view in the next.

    The next batches are made in threads while the network computes one, in every loop and under
    every backend (why not by Keras's ``workers``: docs/decisions/0003-feeding-a-gpu.md).

    Args:
        photos: whose views are wanted.
        fetch: turns views into the model's input.
        views: how many different views there are; None for a fresh one in every epoch.
        batch_size: photos a batch.
        seed: of the views and of the order.
        shuffle: another order in every epoch; False keeps the photos' order and one view.
        first_epoch: the number of the first epoch, which decides the views and the order.
        view: the view of every photo where the order is kept.
        threads: batches made at once; more than 1 only for a ``fetch`` that allows it.

    Attributes:
        failure: what ``fetch`` told the user before training broke off for it; TensorFlow and JAX
            raise errors of their own in its place.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        fetch: Fetch,
        *,
        views: int | None,
        batch_size: int,
        seed: int,
        shuffle: bool,
        first_epoch: int = 0,
        view: int = 0,
        threads: int = 1,
    ) -> None:
        super().__init__()
        self.photos, self.fetch, self.views = photos, fetch, views
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.first_epoch, self.view = first_epoch, view
        self.failure: AppError | None = None
        self._devices = sharing()  # here: Keras tells it to the first thread only
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: dict[int, Future[tuple[NDArray[Any], Int32s]]]
        self.begin_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.photos) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Int32s]:
        batch = self._waiting.pop(index, None) or self._pool.submit(self._batch, index)
        for number in range(index + 1, min(index + 1 + AHEAD, len(self))):
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(self._batch, number)
        try:
            return batch.result()
        except AppError as error:
            self.failure = error
            raise

    def _batch(self, index: int) -> tuple[NDArray[Any], Int32s]:
        numbers = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        if self.shuffle and compiles_for_each_size():
            # A full batch, of which each device gets as many: the epoch's first photos, in whatever
            # order they came, once more.
            full = min(self.batch_size, len(self.order))
            lacking = -(-full // self._devices) * self._devices - len(numbers)
            numbers = np.concatenate([numbers, np.resize(self.order, lacking)])
        wanted = [View(self.photos[n], self._view_of(n), self.seed) for n in numbers]
        targets = np.array([self.photos[n].target for n in numbers], np.int32)
        return self.fetch(wanted), targets

    def begin_epoch(self, number: int) -> None:
        """Take the views and the order of an epoch, 0 for the first of this object.

        Not ``on_epoch_end``: Keras calls that once before the first epoch as well, and backends
        may differ in how often.
        """
        self._waiting = {}
        self.epoch = self.first_epoch + number
        self.order = np.arange(len(self.photos))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(self.order)

    def begin_again(self, batch_size: int) -> None:
        """Begin the epoch again, with another batch size."""
        self.batch_size = batch_size
        self._waiting = {}

    def keep(self, numbers: Sequence[int]) -> None:
        """Go through some of the photos only, from the first epoch."""
        self.photos = [self.photos[number] for number in numbers]
        self.begin_epoch(0)

    def _view_of(self, number: int) -> int:
        if not self.shuffle:
            return self.view
        if self.views is None:
            return self.epoch
        # Neighbours start at different views, so that every epoch sees all kinds.
        return (self.epoch + number) % self.views


def targets_of(photos: Sequence[Photo]) -> Int32s:
    """Return the class numbers ``(n,)`` of photos."""
    return np.array([photo.target for photo in photos], np.int32)


@dataclass(frozen=True)
class LabelledMaps:
    """Photos by number: their feature maps at ``block5_pool``, and class numbers ``(n,)``.

    ``maps`` gives float32 batches ``(≤ BATCH, height, width, 512)`` for numbers, in their order:
    all of them at once might not fit into memory. ``groups`` names what each photo belongs to:
    those of one name are near-duplicates. Empty: there are none.
    """

    maps: Callable[[Sequence[int]], Iterator[Float32s]]
    targets: Ints
    groups: Sequence[str] = ()


def groups_of(photos: Sequence[Photo]) -> tuple[str, ...]:
    """Return the name of each photo's group; one without near-duplicates is a group of its own.

    Contents give the names, so that the names of files decide no fold.
    """
    return tuple(photo.group or photo.content for photo in photos)


def numbered(*parts: LabelledMaps) -> Ints:
    """Return the number of each photo's group, of all parts one after the other."""
    names = [
        name
        for part, photos in enumerate(parts)
        for name in photos.groups or [f"{part}: {n}" for n in range(len(photos.targets))]
    ]
    numbers: Ints = np.unique(names, return_inverse=True)[1]
    return numbers
