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
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from app.core.console import say
from app.core.errors import UsageError
from app.core.lock import locked
from app.core.paths import exists
from app.core.run_folder import FEATURES_FOLDER as FEATURES_FOLDER
from app.features.shards import (
    SPEC_FILE,
    files_of,
    indices,
    is_ours,
    is_store,
    read_shard,
    remove_shard,
)

LOCK_FILE = ".lock"  # beside the stores: who holds it may write
LEFTOVER_AGE = 3600.0  # seconds; a younger file without index may be one that is being written


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


@dataclass(frozen=True)
class _Entry:
    """What is removed as one: a shard, its index unread, or the frozen layers in int8."""

    path: Path
    last_used: float
    bytes: int


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
        keep: indices of the shards that the run needs, which must stay.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.keep: set[Path] = set()

    def used(self) -> int:
        """Return the bytes that all stores take."""
        return sum(entry.bytes for entry in _entries(_stores(self.folder)))

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
            _remove_leftovers(_stores(self.folder), LEFTOVER_AGE)
            used, free = self.used(), self.free()
            missing = max(used + needed - self.limit, 2 * needed - free)
            others = [e for e in _entries(_stores(self.folder)) if e.path not in self.keep]
            room = (
                f"{decimal(free)} of disk free, half of it for the cache; {decimal(used)} used of "
                f"the limit of {decimal(self.limit)}"
            )
            if needed and missing > sum(entry.bytes for entry in others):
                raise UsageError(
                    f"expected room for {decimal(needed)} more of the cache in {self.folder}; "
                    f"received {room}; free some disk, or choose a larger --cache-limit, fewer "
                    "--views, a smaller --image-size, or --cache off; what was computed is kept"
                )
            removed, freed = 0, 0
            for entry in others:
                if freed >= missing:
                    break
                removed += 1
                freed += remove_shard(entry.path)
            if removed:
                say(
                    f"removed {removed} cached shards ({decimal(freed)}), the longest unused "
                    f"first; {decimal(needed)} are to be written ({room})"
                )
            yield


def clear(folder: Path, key: str | None = None, older_than: float = 0.0) -> tuple[int, int]:
    """Remove what lies in all stores, or in one; return how many shards, and the bytes that frees.

    Args:
        folder: of all stores.
        key: of the store to clear; all when None.
        older_than: seconds; what was used since stays.
    """
    removed, freed = 0, 0
    for store in _stores(folder):
        if key not in (None, store.name):
            continue
        for entry in _entries([store]):
            if entry.last_used <= time.time() - older_than:
                removed += 1
                freed += remove_shard(entry.path)
        _remove_leftovers([store], max(LEFTOVER_AGE, older_than))
        # Anything else there, such as a shard that another run is writing, keeps the store.
        if [path.name for path in store.glob("*")] == [SPEC_FILE]:
            (store / SPEC_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                store.rmdir()
    return removed, freed


def _stores(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if is_store(path))


def _entries(stores: Iterable[Path]) -> list[_Entry]:
    """Return all entries, the longest unused first; those that vanish meanwhile are left out."""
    found = []
    for store in stores:
        for path in [*indices(store), *(p for p in store.glob("*.onnx") if is_ours(p))]:
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in files_of(path))
                found.append(_Entry(path, path.stat().st_mtime, size))
    return sorted(found, key=lambda entry: (entry.last_used, entry.path))


def _describe(store: Path) -> StoreInfo:
    spec: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        spec = dict(json.loads((store / SPEC_FILE).read_bytes()))
    rows, used = 0, [entry.last_used for entry in _entries([store])]
    for index in indices(store):
        with contextlib.suppress(OSError, ValueError):
            rows += len(read_shard(index).keys)
    return StoreInfo(
        key=store.name,
        **{name: spec.get(name) for name in ("cut", "image_size", "precision", "backbone")},
        rows=rows,
        bytes=sum(path.stat().st_size for path in store.glob("*") if path.is_file()),
        last_used=datetime.fromtimestamp(max(used), UTC).isoformat() if used else None,
    )


def _remove_leftovers(stores: Iterable[Path], age: float) -> None:
    """Remove what interrupted runs left: files of ours that are no part of a shard, once old."""
    for path in [path for store in stores for path in store.glob("*") if is_ours(path)]:
        kept = path.suffix in (".json", ".onnx") or path.with_suffix(".json").exists()
        with contextlib.suppress(OSError):
            # Either way: a clock that was set back leaves files of the future.
            if not kept and abs(time.time() - path.stat().st_mtime) > age:
                path.unlink()
