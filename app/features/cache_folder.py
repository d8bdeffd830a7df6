"""The folder of all stores of cached activations: what lies in it, room in it, clearing it.

A store is a folder of shards (``app.features.shards``) that were computed in one way, or of the
frozen layers in int8 (``app.features.int8_backbone``). All functions work beside runs that read and
write in the same folder: a shard removed under a run is computed again there
(``app.features.dataset``).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import exists
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from app.core.atomic_files import locked
from app.core.console import say
from app.core.errors import UsageError
from app.core.run_folder import FEATURES_FOLDER as FEATURES_FOLDER
from app.features.shards import SPEC_FILE, is_ours, is_store, read_shard, remove, shards_in

LOCK_FILE = ".lock"  # beside the stores: who holds it may write
WRITING = 3600.0  # seconds; a younger file may be one that is being written


@dataclass(frozen=True)
class StoreInfo:
    """What lies in one store; ``None`` where its ``spec.json`` does not say.

    Attributes:
        key: the name of its folder.
        cut: where the network is cut (``app.network.classifier.CUTS``).
        image_size: height and width of a view in pixels.
        precision: of the frozen layers' arithmetic.
        backbone: the network.
        rows: activations of so many views.
        bytes: all files of the store.
        last_used: the time when a run last opened one of its files, in ISO 8601 (UTC); None
            for a store that is empty.
    """

    key: str
    cut: str | None
    image_size: int | None
    precision: str | None
    backbone: str | None
    rows: int
    bytes: int
    last_used: str | None


def list_stores(folder: Path) -> list[StoreInfo]:
    """Return what lies in each store under ``folder``, the one used last first."""
    found = [_describe(store) for store in _stores(folder)]
    return sorted(found, key=lambda info: (info.last_used or "", info.key), reverse=True)


class Quota:
    """The limit of all stores together, which whoever writes a shard keeps to.

    Room is made for all that a run will write, then again for each shard, because other runs write
    meanwhile. From that look at the room until the shard is written no other run may write, so that
    two never take the same room.

    Args:
        folder: of all stores, which need not exist yet.
        limit: of all stores together, in bytes.

    Attributes:
        keep: the shards that the run needs, which must stay.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.keep: set[Path] = set()

    def used(self) -> int:
        """Return the bytes that all stores take."""
        return sum(file.bytes for file in _files(_stores(self.folder)))

    def free(self) -> int:
        """Return the bytes that are free on the disk; the cache takes half of them at most."""
        folder = self.folder.absolute()
        return shutil.disk_usage(next(p for p in (folder, *folder.parents) if exists(p))).free

    @contextmanager
    def room_for(self, needed: int) -> Iterator[None]:
        """Hold room for ``needed`` bytes; what was unused for longest is removed, which is said.

        Then all stores are within the limit, and what is written is at most half of the disk that
        is free: the run itself, and others, need some too.

        Raises:
            UsageError: when all that may be removed is not enough; nothing is removed then.
        """
        with locked(self.folder / LOCK_FILE):
            used, free = self.used(), self.free()
            missing = max(used + needed - self.limit, 2 * needed - free)
            others = [f for f in _files(_stores(self.folder)) if f.path not in self.keep]
            room = (
                f"{decimal(free)} of disk free, half of it for the cache; {decimal(used)} used of "
                f"the limit of {decimal(self.limit)}"
            )
            if needed and missing > sum(file.bytes for file in others):
                raise UsageError(
                    f"expected room for {decimal(needed)} more of the cache in {self.folder}; "
                    f"received {room}; free some disk, or choose a larger --cache-limit, fewer "
                    "--views, a smaller --image-size, or --cache off; what was computed is kept"
                )
            removed, freed = 0, 0
            for file in others:
                if freed >= missing:
                    break
                removed += 1
                freed += remove(file.path)
            if removed:
                say(
                    f"removed {removed} cached shards ({decimal(freed)}), the longest unused "
                    f"first; {decimal(needed)} are to be written ({room})"
                )
            yield


def clear(folder: Path, key: str | None = None, older_than: float = 0.0) -> tuple[int, int]:
    """Remove what lies in all stores, or in one; return how many files, and the bytes that frees.

    Args:
        folder: of all stores.
        key: of the store to clear; all when None.
        older_than: seconds; what was used since stays.
    """
    removed, freed = 0, 0
    for store in [store for store in _stores(folder) if key in (None, store.name)]:
        for file in _files([store]):
            if not older_than or file.last_used <= time.time() - older_than:
                removed += 1
                freed += remove(file.path)
        # Anything else there, such as a shard that another run is writing, keeps the store.
        if [path.name for path in store.glob("*")] == [SPEC_FILE]:
            (store / SPEC_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                store.rmdir()
    return removed, freed


@dataclass(frozen=True, order=True)
class _File:
    """A file of ours in a store: a shard, frozen layers in int8, or what an interrupted run left.

    The longest unused comes first in order.
    """

    last_used: float
    path: Path
    bytes: int


def not_ours(folder: Path) -> int:
    """Return how many files and folders under ``folder`` are neither a store nor our lock."""
    names = {store.name for store in _stores(folder)} | {LOCK_FILE}
    return sum(path.name not in names for path in folder.glob("*"))


def _stores(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if is_store(path))


def _files(stores: Iterable[Path]) -> list[_File]:
    """Return what may be removed, the longest unused first; what vanishes meanwhile is left out."""
    found = []
    for path in [path for store in stores for path in store.glob("*") if is_ours(path)]:
        with contextlib.suppress(OSError):
            told = path.stat()
            # Either way: a clock that was set back leaves files of the future.
            if path.suffix != ".part" or abs(time.time() - told.st_mtime) > WRITING:
                found.append(_File(told.st_mtime, path, told.st_size))
    return sorted(found)


def _describe(store: Path) -> StoreInfo:
    spec: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        spec = dict(json.loads((store / SPEC_FILE).read_bytes()))
    rows = 0
    for path in shards_in(store):
        with contextlib.suppress(OSError, ValueError):
            rows += len(read_shard(path).keys)
    files = _files([store])
    used = datetime.fromtimestamp(files[-1].last_used, UTC).isoformat() if files else None
    return StoreInfo(
        key=store.name,
        **{name: spec.get(name) for name in ("cut", "image_size", "precision", "backbone")},
        rows=rows,
        bytes=sum(path.stat().st_size for path in store.glob("*") if path.is_file()),
        last_used=used,
    )
