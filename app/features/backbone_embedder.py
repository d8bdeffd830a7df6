"""Photos → embeddings by the pretrained backbone alone, where no run has learned anything yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from app.core.errors import ImageError
from app.evaluation.ood import embeddings_of, unit_length
from app.features.extractor import make_extractor
from app.inference.embedder import EmbeddedPhoto, load_photos
from app.network.classifier import CUTS, load_classifier

IMAGE_SIZE = 160  # pixels: what photos show is seen at this size too, in a quarter of the time
PRECISION = "float32"


class BackboneEmbedder:
    """VGG16's frozen layers, of which the largest activation of each channel is kept.

    Args:
        weights: a file, ``none`` for random ones, None to find the official ones.

    Raises:
        WeightsError: when the pretrained weights cannot be found.
    """

    def __init__(self, weights: str | None = None) -> None:
        model, _ = load_classifier(
            2,
            image_size=IMAGE_SIZE,
            backbone="vgg16",
            precision=PRECISION,
            weights=weights,
            seed=0,
        )
        self._extract = make_extractor(model, CUTS[:1], PRECISION)

    def look(self, paths: Iterable[Path]) -> Iterator[EmbeddedPhoto | ImageError]:
        """Yield the embeddings of files, in their order; for one that is no photo the reason."""
        for path, loaded in load_photos(paths, IMAGE_SIZE):
            if isinstance(loaded, ImageError):
                yield loaded
                continue
            sha256, pixels = loaded
            maps = np.asarray(self._extract(pixels[None])[0]).astype(np.float32)
            yield EmbeddedPhoto(path, sha256, unit_length(embeddings_of(maps))[0])
