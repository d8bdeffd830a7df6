"""How many photos of none of the classes a bundle refuses, kind by kind.

Only those are asked about that nothing was learned from: of validation and of test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.core.run_metrics import NeitherMetrics
from app.data.folder_layout import Split
from app.data.manifest import NeitherPhoto
from app.evaluation.decision import IS_NEITHER
from app.inference.answered_photos import AnswerPhotos, answer_photos
from app.inference.predictor import Classifier


def refusals(
    classifier: Classifier,
    photos: Mapping[Split, Sequence[NeitherPhoto]],
    answer: AnswerPhotos = answer_photos,
) -> dict[str, NeitherMetrics]:
    """Return the counts of each kind, by its name; that of photos without a kind is empty.

    Args:
        classifier: of the run's bundle.
        photos: of all splits that show none of the classes.
        answer: gives what the classifier predicts for photos.

    Raises:
        AppError: when a photo is no longer the file that the audit saw.
    """
    learned = [each.kind for each in photos["train"]]
    held_out = [each for split, some in photos.items() if split != "train" for each in some]
    asked = [each.kind for each in held_out]
    refused: list[str] = []
    if held_out:
        answered = answer(classifier, [each.photo for each in held_out])
        answers = answered.decided(classifier.thresholds)
        refused = [kind for kind, code in zip(asked, answers, strict=True) if code == IS_NEITHER]
    return {
        kind: NeitherMetrics(learned.count(kind), asked.count(kind), refused.count(kind))
        for kind in sorted({*learned, *asked})
    }
