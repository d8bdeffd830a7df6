"""Shards of the feature cache: files of float16 rows, each of which proves itself whole.

``<id>.shard`` is a line of JSON, the rows' keys, the shape of a row and a CRC-32 of all of it, and
after it the rows. It appears whole or not at all and is never changed in place. Its time of
change is the time of its last use.

Shards lie in *stores*, folders named ``<what>-<16 hex digits>`` with a ``spec.json`` of which these
digits are the digest. Only in such a folder, and only by the names below, is a file ours to remove
(``is_store``, ``is_ours``): a cache folder may be a link to a disk with other things on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import whole

SHARD_ROWS = 128  # 52 MB of block4 activations at 320 pixels, 4 s of two cores in int8
SPEC_FILE = "spec.json"  # in each store, beside the shards
KEY_BYTES = 100  # what a row's key takes, rounded up
FRAME_BYTES = 100  # what else the first line of a shard takes
_CHUNK = 1 << 20  # bytes read at once for the checksum
Float16s = NDArray[np.float16]

_STORE_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}")
# A shard, the frozen layers in int8, each of these while it is written, and the two files that
# a shard was once.
_OUR_NAME = re.compile(
    r"[0-9a-f]{32}\.(shard|json|npy)|[0-9a-f]{64}\.onnx"
    r"|\.(spec\.json|[0-9a-f]{32}\.(shard|json|npy)|[0-9a-f]{64}\.onnx)\.\d+\.part"
)


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
    return bool(_OUR_NAME.fullmatch(path.name)) and path.is_file()


class _Header(msgspec.Struct):
    """The first line of a shard."""

    rows: tuple[str, ...]
    shape: tuple[Annotated[int, msgspec.Meta(gt=0)], ...]
    crc32: int


@dataclass(frozen=True, eq=False)  # compared by identity: hashing 128 keys costs more than a row
class Shard:
    """One shard, as its first line describes it.

    Attributes:
        path: the file.
        keys: of the rows, in their order.
        shape: of one row.
        crc32: of keys, shape and rows.
        start: the byte at which the rows begin.
    """

    path: Path
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    crc32: int
    start: int

    def read_row(self, number: int, row: Float16s) -> None:
        """Read one row into ``row``, which has ``shape``.

        Raises:
            OSError: when the file is not there any more.
            ValueError: when it has another size than it was written with.
        """
        with self.path.open("rb", buffering=0) as file:
            size = self.start + len(self.keys) * row.nbytes
            file.seek(self.start + number * row.nbytes)
            if os.fstat(file.fileno()).st_size != size or file.readinto(row.data) != row.nbytes:
                raise ValueError(f"{self.path} has not {size} bytes any more")

    def is_whole(self) -> bool:
        """Read the shard from end to end; say whether it is as it was written, all rows finite."""
        crc = _crc_of(self.keys, self.shape)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.start)
                while chunk := file.read(_CHUNK):
                    crc = zlib.crc32(chunk, crc)
                    if not all_finite(np.frombuffer(chunk, np.float16)):
                        return False
        except (OSError, ValueError):
            return False
        return crc == self.crc32


def all_finite(rows: Float16s) -> bool:
    """Say whether no number is infinite or NaN; ``numpy.isfinite`` takes ten times as long."""
    # The bits of infinity and NaN are the largest of each sign: 0x7C00 and 0xFC00 upwards.
    positive, negative = rows.view(np.int16), rows.view(np.uint16)
    return bool(positive.max(initial=0) < 0x7C00 and negative.max(initial=0) < 0xFC00)


def shard_bytes(rows: int, row_bytes: int, shards: int = 1) -> int:
    """Return what rows of so many bytes take at most on the disk, in so many shards."""
    return rows * (row_bytes + KEY_BYTES) + shards * FRAME_BYTES


def write_shard(folder: Path, keys: Sequence[str], rows: Float16s) -> Shard:
    """Write rows ``(n, ...)`` and their keys as a new shard."""
    rows = np.ascontiguousarray(rows, "<f2")
    keys, shape = tuple(keys), rows.shape[1:]
    header = _Header(keys, shape, zlib.crc32(rows.data, _crc_of(keys, shape)))
    line = msgspec.json.encode(header) + b"\n"
    path = folder / f"{uuid.uuid4().hex}.shard"
    with whole(path) as temporary, temporary.open("wb") as file:
        file.write(line)
        file.write(rows.data)
    return Shard(path, keys, shape, header.crc32, len(line))


def read_shard(path: Path) -> Shard:
    """Return the shard of a file; its rows are not looked at (``Shard.is_whole``).

    Raises:
        FileNotFoundError: when it is not there any more.
        ValueError: when its first line is not that of a shard.
    """
    with path.open("rb") as file:
        line = file.readline(_CHUNK)
    try:
        header = msgspec.json.decode(line, type=_Header)
    except RecursionError as error:
        raise ValueError("lists within lists without end") from error
    return Shard(path, header.rows, header.shape, header.crc32, len(line))


def shards_in(store: Path) -> list[Path]:
    """Return the files of a store's shards."""
    return sorted(path for path in store.glob("*.shard") if is_ours(path))


def touch(path: Path) -> None:
    """Note that a file was used now."""
    with contextlib.suppress(OSError):  # removed by another process, or not ours to change
        os.utime(path)


def remove(path: Path) -> int:
    """Remove a file of a store if it is ours; return the bytes that frees.

    That is 0 where it is gone, or held open (Windows).
    """
    size = 0
    if is_ours(path):
        with contextlib.suppress(OSError):
            told = path.stat().st_size
            path.unlink()
            size = told
    return size


def _crc_of(keys: Sequence[str], shape: Sequence[int]) -> int:
    return zlib.crc32(msgspec.json.encode((keys, shape)))
