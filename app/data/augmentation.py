"""A photo → its seeded views: view 0 is the photo itself, the others are random crops of it.

Pillow, not ``keras.layers``, makes the views: random layers draw other numbers under each backend,
and they see the photo only after it was made small. Here a crop is taken from the full picture,
and the numbers come from NumPy, whose streams are the same everywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image, ImageEnhance

from app.core.environment import usable_cores
from app.core.errors import AppError, ChangedPhotoError, ImageError
from app.data.decode import Pixels, read_image, resize
from app.data.manifest import Photo
from app.data.photo_file import read_bytes

MIN_AREA = 0.5  # share of the photo that a crop keeps at least: the animal stays in it
MAX_STRETCH = 4 / 3  # a crop's aspect differs from the photo's by this factor at most
MIRROR = -1  # the number of the view that is the photo's mirror image
LIGHT = 0.2  # brightness, contrast and colour change by this share at most
BATCH = 16  # views at once; ONNX Runtime took as long for 16 at once as one by one
CHUNK = 8  # views that a process draws at a time
MOST_PROCESSES = 61  # Windows waits for no more
CLOCK_STEP = 2.0  # seconds: some disks note times no finer
VERSION = 1  # part of the cache's key: raise it when a view's pixels change


def read_photo(photo: Photo) -> Pixels:
    """Decode a photo: uint8 ``(height, width, 3)``.

    Raises:
        ChangedPhotoError: as ``unchanged_bytes``.
    """
    return read_image(unchanged_bytes(photo))


def unchanged_bytes(photo: Photo) -> bytes:
    """Return the bytes of a photo's file.

    Raises:
        ChangedPhotoError: when the photo is no longer the file that the audit saw.
    """
    try:
        data = read_bytes(photo.path)
    except ImageError as error:
        raise ChangedPhotoError(photo.path, str(error)) from error
    if sha256(data).hexdigest() != photo.content:
        raise ChangedPhotoError(photo.path, "other bytes")
    return data


def refuse_changed(photos: Sequence[Photo], since: float) -> None:
    """Look, before hours of training, whether photos that are needed afterwards are as they were.

    Only files that the disk says were written since then are read, so that it takes a moment.

    Args:
        photos: those that will be read again.
        since: when the audit began, in seconds since 1970.

    Raises:
        ChangedPhotoError: when some are gone or changed; it names the first and counts the others.
    """
    found = []
    for photo in photos:
        try:
            status = photo.path.stat()
            if max(status.st_mtime, status.st_ctime) >= since - CLOCK_STEP:
                unchanged_bytes(photo)
        except OSError as error:
            found.append((photo.path, error.strerror or str(error)))
        except ChangedPhotoError as error:
            found.append((photo.path, error.reason))
    if found:
        raise ChangedPhotoError(*found[0], others=len(found) - 1)


@dataclass(frozen=True)
class View:
    """One view of one photo: 0 is the photo itself, ``MIRROR`` its mirror image, without a seed."""

    photo: Photo
    number: int
    seed: int

    @property
    def key(self) -> str:
        """What the view's pixels depend on: the photo's content, the number and the seed."""
        return f"{self.photo.content}/{self.number}/{self.seed if self.number > 0 else 0}"

    def pixels(self, size: int) -> Pixels:
        """Decode the photo and draw the view: uint8 ``(size, size, 3)``.

        Raises:
            ChangedPhotoError: as ``read_photo``.
        """
        image = read_photo(self.photo)
        return make_view(image, size, content=self.photo.content, view=self.number, seed=self.seed)


def make_view(photo: Pixels, size: int, *, content: str, view: int, seed: int) -> Pixels:
    """Return one view of a photo; the same arguments give the same pixels wherever it is computed.

    Args:
        photo: uint8 ``(height, width, 3)``.
        size: height and width of the view in pixels.
        content: SHA-256 of the photo's file, in hexadecimal; gives each photo its own stream.
        view: 0 for the photo itself, as prediction sees it; ``MIRROR`` for its mirror image, as a
            model with ``mirror`` sees it too; 1, 2, ... for random views.
        seed: the run's seed.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    if view <= 0:
        image = resize(photo, size)
        return image if view == 0 else np.ascontiguousarray(image[:, ::-1])
    generator = np.random.default_rng([seed, view, int(content[:16], 16)])
    crop = Image.fromarray(photo).resize(
        (size, size), Image.Resampling.BILINEAR, box=_random_box(photo.shape, generator)
    )
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = enhance(crop).enhance(generator.uniform(1 - LIGHT, 1 + LIGHT))
    return np.asarray(crop)


def tta_views(*, mirrored: bool) -> tuple[int, ...]:
    """Return the numbers of the views that an answer is made from."""
    return (0, MIRROR) if mirrored else (0,)


def load_views(wanted: Sequence[View], size: int, *, processes: bool = False) -> Pixels:
    """Return the pixels of some views: uint8 ``(n, size, size, 3)``; as ``load_batches``."""
    (images,) = load_batches(wanted, size, len(wanted), processes=processes)
    return images


def load_batches(
    wanted: Sequence[View],
    size: int,
    batch: int = BATCH,
    *,
    processes: bool = False,
    threads: int | None = None,
) -> Iterator[Pixels]:
    """Yield uint8 batches ``(≤ batch, size, size, 3)``, decoded up to two ahead.

    Args:
        wanted: views, in their order.
        size: height and width of a view in pixels.
        batch: views at once.
        processes: decode in processes, one for each core, rather than in threads. Threads wait
            for each other in Pillow's colours: with 16 cores they drew 330 views a second, which
            keeps no GPU busy. To start them takes a second.
        threads: that decode where no processes do; default: one for each core.

    Raises:
        ChangedPhotoError: as ``read_photo``.
        AppError: when a process was ended, by a system that lacks memory, say.
    """
    groups = [wanted[start : start + batch] for start in range(0, len(wanted), batch)]
    each = CHUNK if processes else 1
    with _decoders(processes, threads) as pool:
        waiting: deque[list[Future[Pixels]]] = deque()
        for group in groups:
            parts = [group[start : start + each] for start in range(0, len(group), each)]
            waiting.append([pool.submit(_draw, part, size) for part in parts])
            if len(waiting) > 2:
                yield np.concatenate([future.result() for future in waiting.popleft()])
        for futures in waiting:
            yield np.concatenate([future.result() for future in futures])


def _draw(views: Sequence[View], size: int) -> Pixels:
    return np.stack([view.pixels(size) for view in views])


@contextlib.contextmanager
def _decoders(processes: bool, threads: int | None) -> Iterator[Executor]:
    """Give what draws views: threads, which end then, or processes, which stay for the next."""
    if processes:
        try:
            yield _processes()
        except BrokenProcessPool as error:
            _processes.cache_clear()  # the next call starts others
            raise AppError(
                "expected the processes that decode photos to go on; received the end of one, "
                "killed from outside or for lack of memory; end what else uses it, and try again"
            ) from error
    else:
        with ThreadPoolExecutor(threads or usable_cores()) as pool:
            yield pool


@functools.cache
def _processes() -> ProcessPoolExecutor:
    # Not forked: a copy of a process that uses a GPU may hang.
    context = multiprocessing.get_context("spawn")
    atexit.register(_processes.cache_clear)  # later it would find modules that are gone already
    return ProcessPoolExecutor(
        min(usable_cores(), MOST_PROCESSES), context, initializer=_belong_to_the_parent
    )


def _belong_to_the_parent() -> None:
    """Leave Ctrl-C to the first process, and end with it, however it ends.

    By itself a process waits for work for ever, when the first one is killed or leaves at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _random_box(
    shape: tuple[int, ...], generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a crop (left, top, right, bottom), uniform in area, stretch and place."""
    height, width = shape[:2]
    area = generator.uniform(MIN_AREA, 1.0)
    stretch = math.exp(generator.uniform(-1, 1) * math.log(MAX_STRETCH) / 2)
    crop_width = width * min(1.0, math.sqrt(area) * stretch)
    crop_height = height * min(1.0, math.sqrt(area) / stretch)
    left = generator.uniform(0, width - crop_width)
    top = generator.uniform(0, height - crop_height)
    return left, top, left + crop_width, top + crop_height
