"""The folder of all stores of cached activations: what lies in it, room in it, clearing it.

A store is a folder of blocks (``app.features.shards``) that were computed in one way. All
functions work
beside runs that read and write in the same folder: a block removed under a run is computed again
there (``app.features.dataset``).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
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
from app.features.policy import Space
from app.features.shards import SPEC_FILE, indices, is_ours, is_store, read_block, remove_block

LOCK_FILE = ".lock"  # beside the stores: who holds it may write
LEFTOVER_AGE = 3600.0  # seconds; a younger file without index may be one that is being written


@dataclass(frozen=True)
class StoreInfo:
    """What lies in one store; ``None`` where its ``spec.json`` does not tell.

    Attributes:
        key: the name of its folder.
        cut: where the network is cut (``app.network.classifier.CUTS``).
        image_size: height and width of a view in pixels.
        precision: of the frozen layers' arithmetic.
        backbone: the network.
        rows: activations of so many views.
        bytes: all files of the store.
        last_used: the time when a run last opened one of its blocks, in ISO 8601 (UTC); None
            for a store without blocks.
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
    """A block as the folder shows it, its index unread."""

    index: Path
    last_used: float
    bytes: int


def list_stores(folder: Path) -> list[StoreInfo]:
    """Return what lies in each store under ``folder``, the one used last first."""
    found = [_describe(store) for store in _stores(folder)]
    return sorted(found, key=lambda info: (info.last_used or "", info.key), reverse=True)


def space(folder: Path, limit: int) -> Space:
    """Return the room that stores under ``folder``, which need not exist yet, have in bytes."""
    place = next(p for p in (folder, *folder.absolute().parents) if exists(p))
    return Space(
        free=shutil.disk_usage(place).free,
        used=sum(entry.bytes for entry in _entries(_stores(folder))),
        limit=limit,
    )


def make_room(folder: Path, needed: int, limit: int, keep: Collection[Path]) -> None:
    """Remove blocks, the longest unused first, until ``needed`` bytes have room; say what went.

    Args:
        folder: of all stores; blocks of every one of them may go.
        needed: bytes that are about to be written.
        limit: of all stores together, in bytes.
        keep: indices of blocks that must stay.
    """
    _remove_leftovers(_stores(folder), LEFTOVER_AGE)
    before = space(folder, limit)
    to_remove = before.to_remove(needed)
    removed, freed = 0, 0
    for entry in _entries(_stores(folder)):
        if freed >= to_remove:
            break
        if entry.index not in keep:
            removed += 1
            freed += remove_block(entry.index)
    if removed:
        say(
            f"removed {removed} cached blocks ({decimal(freed)}), the longest unused first; "
            f"{decimal(needed)} are to be written ({before})"
        )


class Quota:
    """The limit of all stores together, which whoever writes a block keeps to.

    Room is made for all that a run will write, then again for each block, because other runs write
    meanwhile. From that look at the room until the block is written no other run may write, so that
    two never take the same room.

    Args:
        folder: of all stores.
        limit: of all stores together, in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._keep: set[Path] = set()

    def prepare(self, needed: int, keep: Iterable[Path]) -> None:
        """Make room for all that is about to be written, as far as there is (``make_room``).

        Args:
            needed: bytes that all blocks to come will take.
            keep: indices of blocks that must stay, as must those that are written from now on.
        """
        self._keep = set(keep)
        with locked(self.folder / LOCK_FILE):
            make_room(self.folder, needed, self.limit, self._keep)

    @contextmanager
    def room_for(self, needed: int) -> Iterator[set[Path]]:
        """Hold the room of one block, ``needed`` bytes, while it is written.

        Yields:
            The indices of blocks that must stay; that of the new one is to be added.

        Raises:
            UsageError: when what may be removed is not enough.
        """
        with locked(self.folder / LOCK_FILE):
            make_room(self.folder, needed, self.limit, self._keep)
            left = space(self.folder, self.limit)
            if left.to_remove(needed):
                raise UsageError(
                    f"expected room for {decimal(needed)} more of the cache in {self.folder}; "
                    f"received {left}, all of it needed by this run; free some disk or give a "
                    "larger --cache-limit and train again, what was computed is kept; or give "
                    "fewer --views, or --cache off"
                )
            yield self._keep


def clear(folder: Path, key: str | None = None, older_than: float = 0.0) -> tuple[int, int]:
    """Remove the blocks of all stores, or of one; return how many, and the bytes that frees.

    With all of them goes what computed them, the frozen layers in int8
    (``app.features.int8_backbone``), some 15 MB that do not count for the limit.

    Args:
        folder: of all stores.
        key: of the store to clear; all when None.
        older_than: seconds; blocks that were used since stay.
    """
    removed, freed = 0, 0
    for store in _stores(folder):
        if key not in (None, store.name):
            continue
        for entry in _entries([store]):
            if entry.last_used <= time.time() - older_than:
                removed += 1
                freed += remove_block(entry.index)
        if not older_than:
            for path in store.glob("*.onnx"):
                if is_ours(path):
                    path.unlink(missing_ok=True)
        _remove_leftovers([store], max(LEFTOVER_AGE, older_than))
        # Anything else there, such as a block that another run is writing, keeps the store.
        if [path.name for path in store.iterdir()] == [SPEC_FILE]:
            (store / SPEC_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                store.rmdir()
    return removed, freed


def _stores(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if is_store(path))


def _entries(stores: Iterable[Path]) -> list[_Entry]:
    """Return all blocks, the longest unused first; those that vanish meanwhile are left out."""
    found = []
    for store in stores:
        for index in indices(store):
            with contextlib.suppress(OSError):
                told, data = index.stat(), index.with_suffix(".npy")
                size = data.stat().st_size if data.exists() else 0
                found.append(_Entry(index, told.st_mtime, told.st_size + size))
    return sorted(found, key=lambda entry: (entry.last_used, entry.index))


def _describe(store: Path) -> StoreInfo:
    spec: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        spec = dict(json.loads((store / SPEC_FILE).read_bytes()))
    rows, used = 0, [entry.last_used for entry in _entries([store])]
    for index in indices(store):
        with contextlib.suppress(OSError, ValueError):
            rows += len(read_block(index).keys)
    last = max(used, default=None)
    return StoreInfo(
        key=store.name,
        **{name: spec.get(name) for name in ("cut", "image_size", "precision", "backbone")},
        rows=rows,
        bytes=sum(path.stat().st_size for path in store.glob("*") if path.is_file()),
        last_used=None if last is None else datetime.fromtimestamp(last, UTC).isoformat(),
    )


def _remove_leftovers(stores: Iterable[Path], age: float) -> None:
    """Remove what broken-off runs left: files of ours that are no part of a block, once old."""
    for path in [path for store in stores for path in store.iterdir() if is_ours(path)]:
        kept = path.suffix in (".json", ".onnx") or path.with_suffix(".json").exists()
        with contextlib.suppress(OSError):
            # Either way: a clock that was set back leaves files of the future.
            if not kept and abs(time.time() - path.stat().st_mtime) > age:
                path.unlink()
