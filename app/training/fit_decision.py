"""What answers need besides the network, fitted on validation: temperature, thresholds, novelty.

Nothing of test is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from app.core.config import Stage
from app.core.console import percent, say
from app.core.run_metrics import ConfidenceLimit, Promise
from app.data.augmentation import tta_views
from app.evaluation.calibration import (
    CONFIDENCE,
    DEFAULT_MIN_CONFIDENCE,
    MAX_WRONG,
    fit_min_confidence,
    fit_temperature,
    match_temperature,
)
from app.evaluation.decision import IS_NEITHER, Thresholds
from app.evaluation.metrics import probabilities_of
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.evaluation.prediction_set import PredictionSet
from app.features.batches import Float32s, Int32s, ViewBatches, targets_of
from app.features.dataset import FeatureDataset
from app.training.finetune import outputs_of
from app.training.nystroem import choose_landmarks
from app.training.stage_result import StageResult, divided_by


@dataclass(frozen=True)
class FittedDecision:
    """How the network's outputs become answers.

    Attributes:
        temperature: which the logits are divided by.
        thresholds: of the answers.
        promise: what holds of the answers that are given; None: nothing is promised.
        ood_detector: embedding → novelty.
        validation: what training predicts for the validation photos.
    """

    temperature: float
    thresholds: Thresholds
    promise: Promise | None
    ood_detector: KnnOodDetector
    validation: PredictionSet


def fit_decision(
    source: FeatureDataset,
    stage: Stage,
    results: Sequence[StageResult],
    *,
    mirror: bool,
    neither: ViewBatches | None = None,
) -> FittedDecision:
    """Fit temperature, OOD detector and thresholds on validation, and predict it.

    Where validation is small, the head's out-of-fold answers have decided how sure the network may
    be, and when it is unsure. A network that was fine-tuned since is made as sure as the head was
    on the validation photos, and nothing is promised of its answers.

    Args:
        source: of the run's batches.
        stage: the last one.
        results: of all stages.
        mirror: predict each photo and its mirror image (test-time augmentation), and average.
        neither: training photos that show none of the classes; None where there are none.
    """
    model = source.part_with_embeddings(stage)
    reference = source.batches(stage, "train")
    reference.keep(choose_landmarks(targets_of(reference.photos)).tolist())
    # Without the logits: the head's features of 2,000 photos take as long as those it learned from.
    embedding = keras.Model(model.input, model.outputs[1])
    (reference_embeddings,) = outputs_of(embedding, reference)
    outliers = None if neither is None else outputs_of(embedding, neither)[0]

    batches = [source.batches(stage, "validation", view=v) for v in tta_views(mirrored=mirror)]
    outputs = [outputs_of(model, view) for view in batches]
    # As the served model does it: see ``mirror`` in app.network.classifier.
    logits = np.mean([each for each, _ in outputs], axis=0)
    embeddings = [each for _, each in outputs]  # for each view of the test-time augmentation
    photos = batches[0].photos
    targets = targets_of(photos)

    as_solved = not mirror and not any(result.kept_epoch for result in results[1:])
    temperature = _fit_temperature(logits, targets, results, as_solved=as_solved)
    detector = fit_ood_detector(reference_embeddings, embeddings, outliers)
    validation = PredictionSet(
        tuple(photo.name for photo in photos),
        targets,
        probabilities_of(logits / temperature),
        detector.novelty(embeddings),
    )
    limit = _fit_limit(validation, results[0].limit, as_solved=as_solved)
    return FittedDecision(temperature, Thresholds(limit.value), limit.promise, detector, validation)


def _fit_temperature(
    logits: Float32s, targets: Int32s, results: Sequence[StageResult], *, as_solved: bool
) -> float:
    """Return the temperature by the labels; where these are few, by what the head's folds said.

    The head was divided by its temperature when it was solved.
    """
    head = results[0]
    if head.limit is None or head.confidence is None:
        return fit_temperature(logits, targets, divided_by(results))
    return 1.0 if as_solved else match_temperature(logits, head.confidence)


def _fit_limit(
    validation: PredictionSet, known: ConfidenceLimit | None, *, as_solved: bool
) -> ConfidenceLimit:
    """Return the least confidence of an answer, and say what it promises.

    Args:
        validation: of which those that are not ``neither`` count.
        known: the limit by the head's out-of-fold answers; None where validation is not small.
        as_solved: whether the head answers as it was solved, so that this limit is its own.
    """
    if known is None:
        rows = validation.decided(Thresholds(confidence=0.0)) != IS_NEITHER
        limit = fit_min_confidence(validation.probabilities[rows], validation.targets[rows])
        answered = f"{rows.sum()} validation photos"
    else:
        limit = known
        answered = "the out-of-fold answers to training and validation photos"
        if not as_solved:
            limit = ConfidenceLimit(max(known.value, DEFAULT_MIN_CONFIDENCE), None)
            answered = "the few validation photos of a network that changed after the head"
    if limit.promise is None:
        say(
            f"nothing is promised of the share of wrong answers: {answered} do not show that it is "
            f"at most {percent(MAX_WRONG)}; unsure below {percent(limit.value, 1)} "
            "(--min-confidence)"
        )
    else:
        say(
            f"at most {percent(MAX_WRONG)} of the answers that name a class are wrong, with "
            f"{percent(CONFIDENCE)} confidence: {limit.promise.wrong} of {limit.promise.given} "
            f"were, by {answered}"
            + (f"; unsure below {percent(limit.value, 1)}" if limit.value else "")
        )
    return limit
