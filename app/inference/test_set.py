"""The test set meets the finished product, once: the exported bundle answers its photos at the end.

Until then nothing has looked at them but the inventory, which decodes them and compares them with
the others. So the figures of a run are those of ``predict.py`` over the same photos.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.core.config import Engine
from app.core.console import say
from app.core.run_folder import Run
from app.core.run_metrics import AnsweredBy, NeitherMetrics, SplitMetrics
from app.data.folder_layout import Split
from app.data.manifest import NeitherPhoto, Photo
from app.evaluation.decision import Thresholds
from app.evaluation.findings import Finding, write_findings
from app.evaluation.label_issues import find_label_issues
from app.evaluation.metrics import split_metrics
from app.evaluation.prediction_set import PredictionSet, write_predictions
from app.inference.answered_photos import AnswerPhotos, answer_photos
from app.inference.predictor import Classifier
from app.inference.refusals import refusals
from app.inference.wording import percentage


@dataclass(frozen=True)
class TestSetAnswers:
    """The test photos' scores: of all, without the excluded ones, corrected, and by which model.

    ``neither`` counts how many photos of none of the classes it refuses, by kind.
    """

    scores: SplitMetrics
    without_excluded: SplitMetrics | None
    corrected: SplitMetrics | None
    answered_by: AnsweredBy
    neither: dict[str, NeitherMetrics]


def answer_test_set(
    run: Run,
    photos: Sequence[Photo],
    excluded: Collection[str],
    corrected: Mapping[str, int],
    validation: PredictionSet,
    neither: Mapping[Split, Sequence[NeitherPhoto]],
    engine: Engine = "auto",
    answer: AnswerPhotos = answer_photos,
) -> TestSetAnswers:
    """Let the exported bundle answer the test photos, once, as ``predict.py`` answers.

    What it answers is written into the run, with what training predicted for validation.

    Args:
        run: that has its bundle.
        photos: of test.
        excluded: names; those of test photos are left out of ``without_excluded``.
        corrected: names of test photos that a person has marked → the number of the class that they
            show; -1 for those of none, which are left out of ``corrected``.
        validation: what training predicted for the validation photos.
        neither: photos of none of the classes, of all splits.
        engine: that runs the model.
        answer: gives what the exported classifier predicts for photos.
    """
    classifier = Classifier(run.bundle, engine=engine, photos=len(photos))
    classes, thresholds = classifier.bundle.classes, classifier.thresholds
    say(
        f"answering {len(photos)} test photos with {classifier.file} ({classifier.precision}, "
        f"{classifier.engine})"
    )
    answered = answer(classifier, photos)
    predictions: dict[Split, PredictionSet] = {"validation": validation, "test": answered}
    write_predictions(predictions, classes, thresholds, run.predictions)
    write_findings(worth_checking(answered, classes, thresholds), run.test_audit)
    refused = refusals(classifier, neither, answer)
    if held_out := sum(kind.held_out for kind in refused.values()):
        count = sum(kind.refused for kind in refused.values())
        say(
            f"{count} of the {held_out} photos of neither that nothing was learned from are refused"
        )
    kept = [number for number, name in enumerate(answered.names) if name not in excluded]
    some = 0 < len(kept) < len(answered.names)
    return TestSetAnswers(
        split_metrics(answered, thresholds),
        split_metrics(answered.chosen(kept), thresholds) if some else None,
        _with_corrected(answered, corrected, thresholds),
        AnsweredBy(classifier.file, classifier.precision, classifier.engine),
        refused,
    )


def _with_corrected(
    answered: PredictionSet, corrected: Mapping[str, int], thresholds: Thresholds
) -> SplitMetrics | None:
    """Return the scores by corrected labels; None where none is, or no photo is left."""
    pairs = zip(answered.names, answered.targets.tolist(), strict=True)
    targets = np.array([corrected.get(name, target) for name, target in pairs])
    kept = np.flatnonzero(targets >= 0)
    if not corrected or not len(kept):
        return None
    some = replace(answered, targets=targets).chosen(kept)
    return split_metrics(some, thresholds)


def worth_checking(
    answered: PredictionSet, classes: Sequence[str], thresholds: Thresholds
) -> list[Finding]:
    """Return the test photos that surely look like another class, then those answered neither."""
    labels = find_label_issues(answered.probabilities, answered.targets)
    falling = np.argsort(-answered.novelty, kind="stable")
    outliers = falling[answered.novelty[falling] > thresholds.novelty].tolist()
    return [
        *(
            Finding(
                answered.names[issue.number],
                "label",
                rank,
                -issue.margin,
                f"labelled {classes[answered.targets[issue.number]]}; the likeliest class is "
                f"{classes[issue.likely]} ({percentage(issue.probability)})",
            )
            for rank, issue in enumerate(labels, start=1)
        ),
        *(
            Finding(
                answered.names[number],
                "outlier",
                rank,
                float(answered.novelty[number]),
                f"answered neither: its novelty is {answered.novelty[number]:.3f}",
            )
            for rank, number in enumerate(outliers, start=1)
        ),
    ]
