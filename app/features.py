"""The cache of frozen activations: computed once for each view of each photo, kept on disk.

A frozen prefix gives the same answer for the same pixels every time. A *store* holds the
activations at one cut for one way of computing them; it is a folder of blocks, each a ``.npy`` file
of up to 128 rows (read through a memory map) and a ``.json`` file that names the rows. A block
appears whole or not at all, its ``.json`` last, so a broken-off run loses one block at most and two
runs may write at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.atomic import whole, write_json
from app.console import progress_bar, say
from app.frozen import Frozen
from app.images import VERSION as IMAGES_VERSION
from app.views import VERSION as VIEWS_VERSION
from app.views import View, load_batches

BLOCK_ROWS = 128  # some 30 MB of block4 activations; what a broken-off run loses at most
VERSION = 1  # raise it when the same view gives other activations
Float16s = NDArray[np.float16]
Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSpec:
    """Everything besides the photo and its view that activations depend on."""

    cut: str
    backbone: str
    weights: str
    image_size: int
    precision: str
    version: str = f"{VERSION}.{IMAGES_VERSION}.{VIEWS_VERSION}"

    @property
    def key(self) -> str:
        """A short name of this way of computing, used as the store's folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.cut}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class FeatureStore:
    """Rows of float16 activations on disk, addressed by view; see the module's description.

    Args:
        folder: the folder of all stores.
        spec: how the activations are computed; another spec is another store.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self.folder = folder / spec.key
        self._places: dict[str, tuple[Path, int]] = {}
        for index in sorted(self.folder.glob("*.json")):
            self._open(index)

    def __contains__(self, view: View) -> bool:
        return view.key in self._places

    def append(self, keys: Sequence[str], rows: NDArray[np.floating[Any]]) -> None:
        """Write one block; it exists for others when its index does."""
        path = self.folder / f"{uuid.uuid4().hex}.npy"
        # Activations of VGG stay below 65,504 by far for photos; clipping keeps infinity out.
        limit = float(np.finfo(np.float16).max)
        with whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.clip(rows, -limit, limit).astype(np.float16))
        write_json({"rows": list(keys)}, path.with_suffix(".json"))
        self._open(path.with_suffix(".json"))

    def gather(self, wanted: Sequence[View]) -> Float32s:
        """Return the activations of ``wanted``, in that order, as float32.

        Raises:
            KeyError: for a view that was never computed.
        """
        places = [self._places[view.key] for view in wanted]
        return np.stack([_mapped(block)[row] for block, row in places]).astype(np.float32)

    def _open(self, index: Path) -> None:
        block = index.with_suffix(".npy")
        try:
            keys = json.loads(index.read_text(encoding="utf-8"))["rows"]
            rows = np.load(block, mmap_mode="r", allow_pickle=False)
            if len(rows) != len(keys) or rows.dtype != np.float16:
                raise ValueError("rows and index differ")
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            say(f"cached block {index.stem} is damaged ({error}); it is computed again")
            index.unlink(missing_ok=True)
            block.unlink(missing_ok=True)
            return
        self._places.update({key: (block, row) for row, key in enumerate(keys)})


# A map holds a file open, and systems allow 256 (macOS) to 1,024 of them; opening one anew took
# 0.8 ms (30 blocks of block4_pool).
@lru_cache(maxsize=64)
def _mapped(block: Path) -> Float16s:
    rows: Float16s = np.load(block, mmap_mode="r", allow_pickle=False)
    return rows


def compute_features(
    frozen: Frozen, stores: Sequence[FeatureStore], wanted: Sequence[View], image_size: int
) -> None:
    """Fill the stores with what they lack of ``wanted``, in one pass through the network.

    Args:
        frozen: gives one array for each store, in their order (``app.frozen.frozen_prefix``).
        stores: one for each cut.
        wanted: views; those that every store has are not computed again.
        image_size: height and width of a view in pixels.
    """
    lacking = [view for view in wanted if any(view not in store for store in stores)]
    with progress_bar() as bar:
        task = bar.add_task("Frozen features", total=len(wanted))
        bar.advance(task, len(wanted) - len(lacking))
        for start in range(0, len(lacking), BLOCK_ROWS):
            block = lacking[start : start + BLOCK_ROWS]
            parts = []
            for images in load_batches(block, image_size):
                parts.append(frozen(images))
                bar.advance(task, len(images))
            for store, rows in zip(stores, zip(*parts, strict=True), strict=True):
                store.append([view.key for view in block], np.concatenate(rows))


def fits_on_disk(folder: Path, row_bytes: int, rows: int) -> tuple[bool, str]:
    """Say whether a cache of ``rows`` rows fits into half of the free disk, and in words why."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    needed = rows * row_bytes
    sentence = f"{needed / 1e9:.1f} GB for {rows} views, {free / 1e9:.0f} GB of disk free"
    return needed <= free / 2, sentence
