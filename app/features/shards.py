"""Shards of the feature cache: a file of float16 rows, and beside it an index that proves it whole.

``<id>.npy`` holds the rows, ``<id>.json`` their keys, the shape of a row, and the CRC-32 of all
rows. The index is written last and removed first: a shard exists when its index does. No file is
ever changed in place. The index's time of change is the shard's time of last use.

Shards lie in *stores*, folders named ``<what>-<16 hex digits>`` with a ``spec.json`` of which these
digits are the digest. Only in such a folder, and only by the names below, is a file ours to remove
(``is_store``, ``is_ours``): a cache folder may be a link to a disk with other things on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import whole

SHARD_ROWS = 128  # 52 MB of block4 activations at 320 pixels, 4 s of two cores in int8
SPEC_FILE = "spec.json"  # in each store, beside the shards
INDEX_ROW_BYTES = 100  # what a row's key takes in the index, rounded up
SHARD_BYTES = 300  # what a shard takes besides: the frame of the index, and 128 before the rows
_CHUNK = 1 << 20  # bytes read at once for the checksum
Float16s = NDArray[np.float16]

_STORE_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}")
# A shard's two files, the frozen layers in int8, and each of these while it is written.
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
    except (OSError, ValueError, RecursionError):
        return False
    return store_name(folder.name.rpartition("-")[0], spec) == folder.name


def is_ours(path: Path) -> bool:
    """Say whether a file in a store is one that runs write there, whole or half-written."""
    names = (_INDEX_NAME, _DATA_NAME, _PART_NAME)
    return any(name.fullmatch(path.name) for name in names) and path.is_file()


class _Index(msgspec.Struct):
    """What an index holds."""

    rows: tuple[str, ...]
    shape: tuple[Annotated[int, msgspec.Meta(gt=0)], ...]
    crc32: int


@dataclass(frozen=True, eq=False)  # compared by identity: hashing 128 keys costs more than a row
class Shard:
    """One shard, as its index describes it.

    Attributes:
        index: the ``.json`` file.
        keys: of the rows, in their order.
        shape: of one row.
        crc32: of all rows.
    """

    index: Path
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    crc32: int

    @property
    def data(self) -> Path:
        """The file of rows."""
        return self.index.with_suffix(".npy")

    @cached_property
    def header(self) -> bytes:
        """What stands before the rows, as ``numpy.save`` writes it."""
        file = io.BytesIO()
        shape = (len(self.keys), *self.shape)
        described = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        return file.getvalue()

    def read_row(self, number: int) -> Float16s:
        """Return one row, of ``shape``.

        Raises:
            OSError: when the file is not there any more.
            ValueError: when it has another size than it was written with.
        """
        row = np.empty(self.shape, np.float16)
        start = len(self.header) + number * row.nbytes
        with self.data.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            if size != len(self.header) + len(self.keys) * row.nbytes or (
                file.readinto(row.data) != row.nbytes
            ):
                raise ValueError(f"{self.data} has {size} bytes")
        return row

    def is_whole(self) -> bool:
        """Read the rows from end to end; say whether they are those written, and all finite."""
        crc = 0
        try:
            with self.data.open("rb", buffering=0) as file:
                if file.read(len(self.header)) != self.header:
                    return False
                while chunk := file.read(_CHUNK):
                    crc = zlib.crc32(chunk, crc)
                    if not all_finite(np.frombuffer(chunk, np.float16)):
                        return False
        except (OSError, ValueError):
            return False
        return crc == self.crc32

    def touch(self) -> None:
        """Note that the shard was used now."""
        with contextlib.suppress(OSError):  # removed by another process, or not ours to change
            os.utime(self.index)


def all_finite(rows: Float16s) -> bool:
    """Say whether no number is infinite or NaN; ``numpy.isfinite`` takes ten times as long."""
    # The bits of infinity and NaN are the largest of each sign: 0x7C00 and 0xFC00 upwards.
    positive, negative = rows.view(np.int16), rows.view(np.uint16)
    return bool(positive.max(initial=0) < 0x7C00 and negative.max(initial=0) < 0xFC00)


def shard_bytes(rows: int, row_bytes: int, shards: int = 1) -> int:
    """Return what rows of so many bytes take at most on the disk, in so many shards."""
    return rows * (row_bytes + INDEX_ROW_BYTES) + shards * SHARD_BYTES


def write_shard(folder: Path, keys: Sequence[str], rows: Float16s) -> Shard:
    """Write rows ``(n, ...)`` and their keys as a new shard."""
    rows = np.ascontiguousarray(rows, "<f2")
    index = folder / f"{uuid.uuid4().hex}.json"
    shard = Shard(index, tuple(keys), rows.shape[1:], zlib.crc32(rows.data))
    with whole(shard.data) as temporary, temporary.open("wb") as file:
        file.write(shard.header)
        file.write(rows.data)
    told = msgspec.json.encode(_Index(shard.keys, shard.shape, shard.crc32))
    with whole(index) as temporary:
        temporary.write_bytes(told)
    return shard


def read_shard(index: Path) -> Shard:
    """Return the shard of an index; its rows are not looked at (``Shard.is_whole``).

    Raises:
        FileNotFoundError: when the index is not there any more.
        ValueError: when it cannot be read, in words why.
    """
    text = index.read_bytes()
    try:
        told = msgspec.json.decode(text, type=_Index)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"an index cannot be read: {error}") from error
    return Shard(index, told.rows, told.shape, told.crc32)


def indices(store: Path) -> list[Path]:
    """Return the indices of a store's shards."""
    return sorted(p for p in store.glob("*.json") if _INDEX_NAME.fullmatch(p.name) and p.is_file())


def files_of(index: Path) -> list[Path]:
    """Return the files of a shard that are there, or that of the frozen layers in int8."""
    return [path for path in (index, index.with_suffix(".npy")) if is_ours(path)]


def remove_shard(index: Path) -> int:
    """Remove what ``files_of`` names; return the bytes that frees, 0 where Windows holds it open.

    What is left of a shard that could not be removed wholly is a leftover (``app.features.store``).
    """
    freed = 0
    for path in files_of(index):
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed
