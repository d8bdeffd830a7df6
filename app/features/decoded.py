"""Decoded photos, kept in a mapped file while a run lasts: a JPEG is decoded once, not each epoch.

Only pixels that were decoded are kept, never views: a view is drawn from them as from the photo
itself. The file has no name that others could see (where the system allows that), is of use to
this run alone and is gone with it, so it needs neither keys nor checksums.

``docs/decisions/0003-feeding-a-gpu.md`` says what it gains and why it is no store of the cache.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import tempfile
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np

from app.data.augmentation import read_photo
from app.data.decode import Pixels
from app.data.manifest import Photo


class DecodedPhotos:
    """Gives a photo's pixels as ``read_photo`` does, decoding each photo once.

    Photos are kept in the order in which they come, until ``room`` is full; the others are decoded
    every time. An epoch asks for every photo once, and then the least recently used one, which
    other caches would remove, is the one that is asked for next.

    Threads may call it at once.

    Args:
        folder: for the file, which appears with the first photo.
        room: bytes that the file may take.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._file: BinaryIO | None = None
        self._end = 0
        self._lock = threading.Lock()

    def __call__(self, photo: Photo) -> Pixels:
        """Return the photo's pixels, uint8 ``(height, width, 3)``, possibly read-only.

        Raises:
            AppError: as ``read_photo``, when the photo is decoded.
        """
        place = self._places.get(photo.content)
        if place is not None and self._file is not None:
            offset, shape = place
            # Each photo has a map of its own, so that its memory is given back with the array.
            size = math.prod(shape)
            pages = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=offset)
            return np.frombuffer(pages, np.uint8).reshape(shape)
        pixels = read_photo(photo)
        with self._lock, contextlib.suppress(OSError):  # a full disk: the photo is not kept
            self._keep(photo.content, pixels)
        return pixels

    def _keep(self, content: str, pixels: Pixels) -> None:
        if content in self._places or self._end + pixels.size > self.room:
            return
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._file.seek(self._end)
        if self._file.write(pixels.data) != pixels.size:  # the disk is full
            return
        self._places[content] = (self._end, pixels.shape)
        # Maps begin where the system's pages do.
        self._end += -(-pixels.size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
