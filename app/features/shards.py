"""Blocks of the feature cache: a file of float16 rows, and beside it an index that proves it whole.

``<id>.npy`` holds the rows, ``<id>.json`` their keys, the shape of a row, and the size and CRC-32
of the other file. The index is written last and removed first: a block exists when its index does.
No file is ever changed in place, so whoever has a block mapped may go on reading when another
process removes it. The index's time of change is the block's time of last use.

Blocks lie in *stores*, folders named ``<what>-<16 hex digits>`` with a ``spec.json`` of which these
digits are the digest. Only in such a folder, and only by the names below, is a file ours to remove
(``is_store``, ``is_ours``): a cache folder may be a link to a disk with other things on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import mmap
import os
import re
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import whole, write_json

SPEC_FILE = "spec.json"  # in each store, beside the blocks
INDEX_ROW_BYTES = 100  # what a row's key takes in the index, rounded up
BLOCK_BYTES = 300  # what a block takes besides: the frame of the index, and 128 before the rows
_CHUNK = 1 << 20  # bytes read at once for the checksum
Float16s = NDArray[np.float16]

_STORE_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}")
# A block's two files, the frozen layers in int8, and each of these while it is written.
_INDEX_NAME = re.compile(r"[0-9a-f]{32}\.json")
_DATA_NAME = re.compile(r"[0-9a-f]{32}\.npy|[0-9a-f]{64}\.onnx")
_PART_NAME = re.compile(r"\.(spec\.json|[0-9a-f]{32}\.(json|npy)|[0-9a-f]{64}\.onnx)\.\d+\.part")


def store_name(what: str, spec: dict[str, Any]) -> str:
    """Return the name of the folder that holds what was computed as ``spec`` describes."""
    text = json.dumps(spec, sort_keys=True)
    return f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_store(folder: Path) -> bool:
    """Say whether a folder is a store, which its ``spec.json`` proves."""
    if not _STORE_NAME.fullmatch(folder.name):
        return False
    try:
        spec = json.loads((folder / SPEC_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return store_name(folder.name.rpartition("-")[0], spec) == folder.name


def is_ours(path: Path) -> bool:
    """Say whether a file in a store is one that runs write there, whole or half-written."""
    names = (_INDEX_NAME, _DATA_NAME, _PART_NAME)
    return any(name.fullmatch(path.name) for name in names) and path.is_file()


@dataclass(frozen=True, eq=False)  # compared by identity: hashing 128 keys costs more than a row
class Block:
    """One block, as its index tells.

    Attributes:
        index: the ``.json`` file.
        keys: of the rows, in their order.
        shape: of one row.
        size: of the ``.npy`` file in bytes.
        crc32: of that file.
    """

    index: Path
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    size: int
    crc32: int

    @property
    def data(self) -> Path:
        """The file of rows."""
        return self.index.with_suffix(".npy")

    def is_whole(self) -> bool:
        """Read the rows from end to end and say whether they are as they were written.

        Plain reading, not the map: a file that shrinks meanwhile would kill the process there.
        """
        crc = 0
        try:
            with self.data.open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    crc = zlib.crc32(chunk, crc)
        except OSError:
            return False
        return crc == self.crc32

    def touch(self) -> None:
        """Note that the block was used now."""
        with contextlib.suppress(OSError):  # removed by another process, or not ours to change
            os.utime(self.index)

    def bytes_on_disk(self) -> int:
        """Return what both files take, 0 for one that is gone."""
        taken = 0
        for path in (self.index, self.data):
            with contextlib.suppress(OSError):
                taken += path.stat().st_size
        return taken

    def forget_pages(self) -> None:
        """Drop the rows from the system's memory where it allows that, to time the disk itself."""
        if hasattr(os, "posix_fadvise"):
            with self.data.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def block_bytes(rows: int, row_bytes: int, blocks: int = 1) -> int:
    """Return what rows of so many bytes take at most on the disk, in so many blocks."""
    return rows * (row_bytes + INDEX_ROW_BYTES) + blocks * BLOCK_BYTES


def write_block(folder: Path, keys: Sequence[str], rows: Float16s) -> Block:
    """Write rows ``(n, ...)`` and their keys as a new block."""
    file = io.BytesIO()
    np.save(file, rows)
    path = folder / f"{uuid.uuid4().hex}.npy"
    with file.getbuffer() as data, whole(path) as temporary:
        temporary.write_bytes(data)
        size, crc32 = len(data), zlib.crc32(data)
    index = path.with_suffix(".json")
    shape = rows.shape[1:]
    write_json(
        {"rows": list(keys), "shape": list(shape), "bytes": size, "crc32": crc32},
        index,
    )
    return Block(index, tuple(keys), shape, size, crc32)


def read_block(index: Path) -> Block:
    """Return the block of an index; its rows are not looked at (``Block.is_whole``).

    Raises:
        FileNotFoundError: when the index is not there any more.
        ValueError: when it cannot be read, in words why.
    """
    text = index.read_bytes()
    try:
        told = json.loads(text)
        return Block(
            index, tuple(told["rows"]), tuple(told["shape"]), int(told["bytes"]), told["crc32"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"an index cannot be read: {error!r}") from error


def indices(store: Path) -> list[Path]:
    """Return the indices of a store's blocks."""
    return sorted(p for p in store.glob("*.json") if _INDEX_NAME.fullmatch(p.name) and p.is_file())


def remove_block(index: Path) -> int:
    """Remove a block; return how many bytes that frees, 0 when it is gone or held open (Windows).

    What is left of a block that could not be removed wholly is a leftover (``app.features.store``).
    """
    freed = 0
    for path in (index, index.with_suffix(".npy")):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


# A map holds a file open, and systems allow 256 (macOS) to 1,024 of them. A row of block4_pool at
# 256 pixels took 10 µs from an open map and 26 µs where the block had to be mapped first.
@lru_cache(maxsize=64)
def mapped(block: Block) -> tuple[mmap.mmap, Float16s]:
    """Return a block's map and its rows in it, ``(n, ...)``.

    Raises:
        OSError: when the file is not there any more.
        ValueError: when it has another size than it was written with.
    """
    with block.data.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(pages) != block.size:
        raise ValueError(f"{block.size} bytes expected, {len(pages)} received")
    count = len(block.keys) * math.prod(block.shape)
    # The rows are the end of a .npy file.
    rows = np.frombuffer(pages, np.float16, count, offset=len(pages) - 2 * count)
    return pages, rows.reshape(len(block.keys), *block.shape)


def let_go(pages: mmap.mmap) -> None:
    """Give back the memory of pages that were read; the system keeps them while it has room.

    Without it a process seems to hold all that it ever read of 64 blocks, 2 GB of block4_pool.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
