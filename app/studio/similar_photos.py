"""Which training photos a photo is most like: the reason for *neither*.

The exported model compares each photo with the training photos (``app.evaluation.ood``). The same
cosines say which of them are the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.core.config import read_config
from app.core.errors import AppError, BundleError
from app.core.run_folder import Run
from app.data.decode import Pixels
from app.data.manifest import Photo, class_names, photos_of, read_manifest
from app.inference.embedder import Embedder
from app.training.nystroem import choose_landmarks

SHOWN = 5  # photos


@dataclass(frozen=True)
class Similar:
    """A training photo that is like the one that was asked about.

    Attributes:
        number: of the photo, by which its picture is asked for.
        name: its path below the data folder.
        label: its class.
        likeness: the cosine of the two embeddings, 0 to 1.
    """

    number: int
    name: str
    label: str
    likeness: float


class SimilarPhotos:
    """Finds the training photos of a run that a photo is most like.

    Args:
        run: a finished run.

    Attributes:
        photos: of training, those that the model compares with.

    Raises:
        AppError: when the run's files do not tell which photos these are.
    """

    def __init__(self, run: Run) -> None:
        rows = read_manifest(run.manifest)
        self.classes = class_names(rows)
        data = read_config(run.config, exact=False).data
        train = photos_of(rows, "train", data)
        numbers = choose_landmarks(np.array([photo.target for photo in train]))
        self.photos: list[Photo] = [train[number] for number in numbers.tolist()]
        self._embedder = Embedder(run.bundle)
        if len(self._embedder.reference) != len(self.photos):
            raise BundleError(
                f"expected a model that compares with the {len(self.photos)} training photos of "
                f"{run.manifest}; received another one; train again"
            )

    def find(self, pixels: Pixels) -> list[Similar]:
        """Return the most similar training photos, the nearest first.

        Args:
            pixels: uint8 ``(size, size, 3)``, as ``app.data.decode.load_image`` makes them.
        """
        cosines = self._embedder.reference @ self._embedder.embedding_of(pixels)
        nearest = np.argsort(-cosines, kind="stable")[:SHOWN]
        return [
            Similar(n, photo.name, self.classes[photo.target], float(cosines[n]))
            for n, photo in ((n, self.photos[n]) for n in nearest.tolist())
        ]


def similar_photos(run: Run) -> SimilarPhotos | None:
    """Return what finds similar photos; None where the run does not tell which these are."""
    try:
        return SimilarPhotos(run)
    except (AppError, OSError, KeyError, ValueError):
        return None
