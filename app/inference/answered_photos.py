"""The photos of a split, answered by an exported classifier as ``predict.py`` answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from app.core.console import progress_bar
from app.core.errors import ChangedPhotoError
from app.data.augmentation import unchanged_bytes
from app.data.manifest import Photo
from app.evaluation.prediction_set import PredictionSet
from app.inference.predictor import Classifier

# What gives the predictions of an exported classifier for photos.
AnswerPhotos = Callable[[Classifier, Sequence[Photo]], PredictionSet]


def answer_photos(classifier: Classifier, photos: Sequence[Photo]) -> PredictionSet:
    """Return what an exported classifier predicts for photos; each goes through it once.

    Raises:
        ChangedPhotoError: when a photo is no longer the file that the audit saw.
        BundleError: when the model is not one that this project exports.
    """
    probabilities, novelty = [], []
    with progress_bar() as bar:
        task = bar.add_task("Answering held-out photos", total=len(photos))
        for answer in classifier.answers(_unchanged(photos)):
            if answer.probabilities is None:
                raise ChangedPhotoError(answer.path, str(answer.error))
            probabilities.append(list(answer.probabilities.values()))
            novelty.append(answer.novelty)
            bar.advance(task)
    return PredictionSet(
        tuple(photo.name for photo in photos),
        np.array([photo.target for photo in photos]),
        np.array(probabilities),
        np.array(novelty),
    )


def _unchanged(photos: Sequence[Photo]) -> Iterator[Path]:
    """Yield the path of each photo after a look whether it is still the same."""
    for photo in photos:
        unchanged_bytes(photo)
        yield photo.path
