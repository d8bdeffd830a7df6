"""VGG16's frozen layers and the pooling above them: photos → what a head learns from.

It brings Keras, which takes seconds: made in a thread, when it is first needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.core.config import Backbone
from app.core.console import quiet_native_stderr
from app.data.augmentation import View
from app.data.decode import Pixels
from app.data.manifest import Photo
from app.evaluation.ood import embeddings_of
from app.training.nystroem import each_pair_once

BACKBONE: Backbone = "vgg16"
# Features in float32 do not depend on the other photos, as those in int8 do (their scales come from
# training photos). So a run with `--precision float32` finds them in the cache.
PRECISION = "float32"
CACHE_LIMIT = 50_000_000_000  # bytes, the default of --cache-limit

Float32s = NDArray[np.float32]
Float16s = NDArray[np.float16]


@dataclass(frozen=True)
class Seen:
    """One photo as a head sees it.

    Attributes:
        maps: float16 ``(height, width, 512)``, of block5, as the feature cache keeps them.
        pairs: float32 ``(131,328,)``, the second-order features, each pair of channels once.
        embedding: float32 ``(512,)`` (``app.evaluation.ood``).
    """

    maps: Float16s
    pairs: Float32s
    embedding: Float32s


class FrozenBackbone:
    """Computes features of photos in float32.

    Args:
        image_size: height and width in pixels.
        weights: a file, ``none`` for random ones, None to find the official ones.

    Raises:
        WeightsError: when the pretrained weights cannot be found.
    """

    def __init__(self, image_size: int, weights: str | None) -> None:
        with quiet_native_stderr():
            from app.features.dataset import HEAD_CUT
            from app.features.extractor import engine, make_extractor
            from app.network.classifier import load_classifier, pooling_part

            model, self.digest = load_classifier(
                2,
                image_size=image_size,
                backbone=BACKBONE,
                precision=PRECISION,
                weights=weights,
                seed=0,
            )
            self.image_size, self._cut, self._engine = image_size, HEAD_CUT, engine(PRECISION)
            self._extract = make_extractor(model, [HEAD_CUT], PRECISION)
            self._pool = pooling_part(model)
            blank = np.zeros((1, image_size, image_size, 3), np.uint8)
            self.look(blank)  # a first call compiles

    def look(self, images: Pixels) -> list[Seen]:
        """Return the features of photos.

        Args:
            images: uint8 ``(n, image_size, image_size, 3)``, RGB.
        """
        maps = np.asarray(self._extract(images)[0]).astype(np.float16)
        wide = maps.astype(np.float32)
        pairs = each_pair_once(np.asarray(self._pool.predict_on_batch(wide), np.float32))
        return [Seen(*row) for row in zip(maps, pairs, embeddings_of(wide), strict=True)]

    def keep(self, photos: Sequence[tuple[bytes, Seen]], folder: Path) -> None:
        """Write features into the feature cache, where a run in float32 finds them.

        Args:
            photos: the bytes of each file, and its features.
            folder: of all caches, below the runs.
        """
        from app.features.cache_folder import Quota
        from app.features.store import FeatureSpec, FeatureStore

        spec = FeatureSpec(
            self._cut, BACKBONE, self.digest, self.image_size, PRECISION, self._engine
        )
        store = FeatureStore(folder, spec, Quota(folder, CACHE_LIMIT))
        views = [
            View(Photo(Path(), "", hashlib.sha256(data).hexdigest(), 0), 0, 0) for data, _ in photos
        ]
        store.append(views, np.stack([seen.maps for _, seen in photos]))
