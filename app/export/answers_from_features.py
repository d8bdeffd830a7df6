"""Held-out photos answered from their frozen features, which the feature cache keeps.

The bundle of a head run is the pretrained backbone below what was solved. The next run on the same
photos, with corrected labels, has the same backbone: it reads from the cache what that gives for
the test photos, and computes what lies above. The features are those of the bundle's own frozen
part, in its numbers and by its engine, rounded to float16.

The bundle has the last word. It answers the photos that lie near a line, so that rounding gives no
photo another label, and some others; where the two ways differ by more than rounding, it answers
all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from app.core.config import Stage
from app.core.console import say
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import View, unchanged_bytes
from app.data.manifest import Photo
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import GATE_TOLERANCE, NOVELTY_TOLERANCE
from app.export.int8_gate import in_doubt
from app.export.upper_part import predictions_of, upper_part
from app.features.batches import Float32s
from app.features.dataset import HEAD_CUT, CachedDataset, FeatureDataset
from app.features.extractor import engine, make_extractor
from app.features.store import FeatureStore, kept_rows
from app.inference.answered_photos import AnswerPhotos, answer_photos
from app.inference.bundle_format import ONNX_FILE
from app.inference.predictor import Classifier
from app.network.device import on_gpu

COMPARED = 16  # photos besides those near a line; a wrong feature moves nearly all answers
# As a share of what is near for int8 (app.export.int8_gate): 0.1 in log-odds of a label, 0.025 of
# novelty. Seen: differences of DOUBT at most (docs/experiments.md).
NEAR = 0.05


def way_of_answering(
    source: FeatureDataset, stage: Stage, bundle: Path, *, mirror: bool
) -> AnswerPhotos:
    """Return what answers the held-out photos of a run.

    Args:
        source: of the run's features.
        stage: the last one.
        bundle: of the run.
        mirror: whether the model looks at the mirror image too.

    Returns:
        ``answer_photos`` where the backbone was trained, or no features are kept.
    """
    if isinstance(source, CachedDataset) and not (stage.opens or mirror or on_gpu()):
        return FeatureAnswers(source, bundle)
    return answer_photos


@dataclass(frozen=True)
class FeatureAnswers:
    """Answers photos as ``app.inference.answered_photos.answer_photos`` does, from kept features.

    Attributes:
        source: of a run of stage ``head``, without the mirror image.
        bundle: its folder.
    """

    source: CachedDataset
    bundle: Path

    def __call__(self, classifier: Classifier, photos: Sequence[Photo]) -> PredictionSet:
        """Return what the exported classifier predicts for photos.

        Raises:
            ChangedPhotoError: when a photo is no longer the file that the audit saw.
            BundleError: when the model is not one that this project exports.
        """
        for photo in photos:
            unchanged_bytes(photo)
        try:
            quick = self._from_features(classifier, photos)
        except (UsageError, CacheEvictedError) as error:  # of the cache; the run goes on without
            say(f"the features of {len(photos)} held-out photos are not kept: {error}")
            return answer_photos(classifier, photos)
        asked = in_doubt(quick, classifier.thresholds, NEAR)
        asked = np.union1d(asked, np.linspace(0, len(photos) - 1, COMPARED).astype(np.int64))
        whole = answer_photos(classifier, [photos[number] for number in asked])
        near = quick.chosen(asked)
        moved = np.abs(near.probabilities - whole.probabilities).max(initial=0.0)
        of_novelty = np.abs(near.novelty - whole.novelty).max(initial=0.0)
        differences = f"probabilities differ by {moved:.1g} at most, novelty by {of_novelty:.1g}"
        if not (moved <= GATE_TOLERANCE and of_novelty <= NOVELTY_TOLERANCE):  # nor where it is NaN
            say(f"{classifier.file} answers all photos itself; from kept features {differences}")
            return answer_photos(classifier, photos)
        say(
            f"answered from kept features: {len(photos)} photos, {len(asked)} of them also by all "
            f"of {classifier.file}; {differences}"
        )
        return quick.replaced(asked, whole)

    def _from_features(self, classifier: Classifier, photos: Sequence[Photo]) -> PredictionSet:
        """Return what the part above the backbone says of its kept activations."""
        upper = upper_part(onnx.load(str(self.bundle / ONNX_FILE)), HEAD_CUT)
        rows = self._rows(classifier, [View(photo, 0, 0) for photo in photos])
        return predictions_of(upper, rows, photos, classifier.engine)

    def _rows(self, classifier: Classifier, views: Sequence[View]) -> Iterator[Float32s]:
        """Return the activations of views, of the bundle's own frozen part."""
        int8 = self.source.int8_twin if classifier.precision == "int8" else None
        spec = replace(
            self.source.stores[HEAD_CUT].spec,
            precision=classifier.precision if int8 is None else int8.precision,
            engine=engine(classifier.precision, classifier.engine),
        )
        store = FeatureStore(self.source.quota.folder, spec, self.source.quota)
        model = self.source.spec.model
        make = partial(make_extractor, model, [HEAD_CUT], "float32", int8, classifier.engine)
        return kept_rows(store, views, self.source.spec.image_size, make)
