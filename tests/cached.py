"""Shards in stores of the cache, as runs of other days leave them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from app.data.augmentation import View
from app.data.manifest import Photo
from app.features.shards import shards_in
from app.features.store import FeatureSpec, FeatureStore

DAY = 86_400


def view(number: int) -> View:
    return View(Photo(Path("p"), "p", "ab" * 32, 0), number, seed=0)


def spec(cut: str = "block5_pool", size: int = 64) -> FeatureSpec:
    return FeatureSpec(cut, "vgg16", "w", size, "float32")


def add(folder: Path, of: FeatureSpec, number: int, days: float) -> Path:
    """Write a shard of 2 rows, 1,000 numbers each, last used so many days ago."""
    store = FeatureStore(folder, of)
    known = set(shards_in(store.folder))
    store.append([view(number), view(number + 1)], np.ones((2, 1000), np.float16))
    (path,) = set(shards_in(store.folder)) - known
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def shards_of_days(folder: Path) -> dict[int, Path]:
    """Write shards into three stores: days since their last use → file."""
    where = {40: spec(), 3: spec(), 20: spec("block4_pool"), 1: spec("block4_pool", 128)}
    return {days: add(folder, of, 2 * days, days) for days, of in where.items()}


def left(shards: dict[int, Path]) -> set[int]:
    """Return which shards are there."""
    return {days for days, path in shards.items() if path.exists()}
