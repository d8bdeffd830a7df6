"""Held-out photos answered from activations that the feature cache keeps.

The bundle of a head run is the pretrained backbone below what was solved. The next run on the same
photos, with corrected labels, has the same backbone: it reads from the cache what that gives for
the test photos, and computes what lies above (``app.export.upper_part``).

The bundle has the last word. It answers the photos that lie near a line, so that rounding gives no
photo another label, and some others; where the two ways differ by more than rounding, it answers
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from app.core.config import Stage
from app.core.console import say
from app.data.augmentation import unchanged_bytes
from app.data.manifest import Photo
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import GATE_TOLERANCE, NOVELTY_TOLERANCE
from app.export.int8_gate import in_doubt
from app.export.upper_part import from_kept_activations, keeps_activations
from app.features.dataset import FeatureDataset
from app.inference.answered_photos import answer_photos
from app.inference.bundle_format import ONNX_FILE
from app.inference.predictor import Classifier

COMPARED = 16  # photos besides those near a line; wrong activations move nearly all answers
# As a share of what is near for int8 (app.export.int8_gate): 0.2 in log-odds of a label or of the
# limit for unsure, 0.05 in those of novelty. On 2,000 photos of pets the two ways differed by 7e-5
# of a probability and 1e-4 of novelty at most, which is far less.
NEAR = 0.1


@dataclass(frozen=True)
class AnswersFromFeatures:
    """Answers photos as ``app.inference.answered_photos.answer_photos`` does, sooner where it can.

    Attributes:
        source: of the run's features.
        stage: the last one.
        bundle: the run's.
        mirror: whether the model looks at the mirror image too; then it answers itself.
    """

    source: FeatureDataset
    stage: Stage
    bundle: Path
    mirror: bool

    def __call__(self, classifier: Classifier, photos: Sequence[Photo]) -> PredictionSet:
        """Return what an exported classifier predicts for photos.

        Raises:
            ChangedPhotoError: when a photo is no longer the file that the audit saw.
            BundleError: when the model is not one that this project exports.
        """
        quick = None
        # Of few photos the bundle would answer all that the features answer.
        if (
            len(photos) > COMPARED
            and not self.mirror
            and keeps_activations(self.source, self.stage)
        ):
            quick = self._from_features(classifier, photos)
        if quick is None:
            return answer_photos(classifier, photos)
        asked = np.linspace(0, len(photos) - 1, COMPARED).astype(np.int64)
        asked = np.union1d(asked, in_doubt(quick, classifier.thresholds, NEAR))
        whole = answer_photos(classifier, [photos[number] for number in asked])
        some = quick.chosen(asked)
        moved = np.abs(some.probabilities - whole.probabilities).max()
        of_novelty = np.abs(some.novelty - whole.novelty).max()
        differences = f"probabilities differ by {moved:.1g} at most, novelty by {of_novelty:.1g}"
        if not (moved <= GATE_TOLERANCE and of_novelty <= NOVELTY_TOLERANCE):  # a NaN fails as well
            say(f"{classifier.file} answers all photos itself: from features {differences}")
            return answer_photos(classifier, photos)
        say(
            f"answered from features: {len(photos)} photos; {len(asked)} of them also by the whole "
            f"of {classifier.file}: {differences}"
        )
        return quick.replaced(asked, whole)

    def _from_features(
        self, classifier: Classifier, photos: Sequence[Photo]
    ) -> PredictionSet | None:
        for photo in photos:  # nothing else reads those whose activations are kept
            unchanged_bytes(photo)
        graph = onnx.load(str(self.bundle / ONNX_FILE))
        return from_kept_activations(
            graph, self.source, self.stage, photos, classifier.precision, classifier.engine
        )
