"""How many photos of none of the classes a bundle refuses, kind by kind.

Asked are only those that nothing was learned from: of validation and of test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.core.labels import NEITHER
from app.core.run_metrics import NeitherMetrics
from app.data.folder_layout import Split
from app.data.manifest import NeitherPhoto
from app.inference.predictor import Classifier


def refusals(
    classifier: Classifier, photos: Mapping[Split, Sequence[NeitherPhoto]]
) -> dict[str, NeitherMetrics]:
    """Return the counts of each kind, by its name; that of photos of no named kind is empty.

    A photo that cannot be read any more counts as not refused.

    Args:
        classifier: of the run's bundle.
        photos: of all splits that show none of the classes.
    """
    held_out = [each for split, some in photos.items() if split != "train" for each in some]
    answers = classifier.answers([each.photo.path for each in held_out])
    refused = [
        each.kind for each, answer in zip(held_out, answers, strict=True) if answer.label == NEITHER
    ]
    learned = [each.kind for each in photos["train"]]
    asked = [each.kind for each in held_out]
    return {
        kind: NeitherMetrics(learned.count(kind), asked.count(kind), refused.count(kind))
        for kind in sorted({*learned, *asked})
    }
