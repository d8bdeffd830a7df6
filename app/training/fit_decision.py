"""What answers need besides the network, fitted on validation: temperature, thresholds, novelty.

With it validation and, this once, test are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.core.atomic_files import write_rows
from app.core.config import Stage
from app.core.console import say
from app.core.run_metrics import AnswerShares, ConfidenceLimit, Promise, SplitMetrics
from app.data.augmentation import tta_views
from app.data.folder_layout import SPLITS, Split
from app.evaluation.calibration import (
    CONFIDENCE,
    DEFAULT_MIN_CONFIDENCE,
    MAX_WRONG,
    fit_min_confidence,
    fit_temperature,
    match_temperature,
)
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds
from app.evaluation.metrics import probabilities_of, reliability_bins, score
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.evaluation.prediction_set import PredictionSet
from app.features.batches import Float32s, Int32s, targets_of
from app.features.dataset import FeatureDataset
from app.training.finetune import outputs_of
from app.training.nystroem import choose_landmarks
from app.training.stage_result import StageResult, divided_by


@dataclass(frozen=True)
class FittedDecision:
    """How the network's outputs become answers, and the answers of validation and test.

    Attributes:
        temperature: which the logits are divided by.
        thresholds: of the answers.
        promise: what holds of the answers that are given; None: nothing is promised.
        ood_detector: embedding → novelty.
        predictions: by split, ``validation`` and ``test``.
    """

    temperature: float
    thresholds: Thresholds
    promise: Promise | None
    ood_detector: KnnOodDetector
    predictions: dict[Split, PredictionSet]


def fit_decision(
    source: FeatureDataset, stage: Stage, results: Sequence[StageResult], *, mirror: bool
) -> FittedDecision:
    """Fit temperature, OOD detector and thresholds on validation; predict validation and test.

    Where validation is small, the head's out-of-fold answers have decided how sure the network may
    be, and when it is unsure. A network that was fine-tuned since is made as sure as the head was
    on the validation photos, and nothing is promised of its answers.

    Args:
        source: of the run's batches.
        stage: the last one.
        results: of all stages.
        mirror: predict each photo and its mirror image (test-time augmentation), and average.
    """
    model = source.describing(stage)
    reference = source.batches(stage, "train")
    reference.keep(choose_landmarks(targets_of(reference.photos)).tolist())
    _, reference_embeddings = outputs_of(model, reference)

    names: dict[Split, tuple[str, ...]] = {}
    targets: dict[Split, Int32s] = {}
    logits: dict[Split, Float32s] = {}
    embeddings: dict[Split, list[Float32s]] = {}  # for each view of the test-time augmentation
    for split in SPLITS[1:]:
        batches = [source.batches(stage, split, view=v) for v in tta_views(mirrored=mirror)]
        outputs = [outputs_of(model, view) for view in batches]
        # As the served model does it: see ``mirror`` in app.network.classifier.
        logits[split] = np.mean([each for each, _ in outputs], axis=0)
        embeddings[split] = [each for _, each in outputs]
        names[split] = tuple(photo.name for photo in batches[0].photos)
        targets[split] = targets_of(batches[0].photos)

    as_solved = not mirror and not any(result.kept_epoch for result in results[1:])
    temperature = _fit_temperature(
        logits["validation"], targets["validation"], results, as_solved=as_solved
    )
    detector = fit_ood_detector(reference_embeddings, embeddings["validation"])
    predictions = {
        split: PredictionSet(
            names[split],
            targets[split],
            probabilities_of(logits[split] / temperature),
            detector.of(detector.distances(embeddings[split])),
        )
        for split in SPLITS[1:]
    }
    limit = _fit_limit(predictions["validation"], results[0].limit, as_solved=as_solved)
    return FittedDecision(
        temperature, Thresholds(limit.value), limit.promise, detector, predictions
    )


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
            f"at most {MAX_WRONG:.0%}; unsure below {limit.value:.1%} (--min-confidence)"
        )
    else:
        say(
            f"at most {MAX_WRONG:.0%} of the given answers is wrong, with {CONFIDENCE:.0%} "
            f"confidence: {limit.promise.wrong} of {limit.promise.given} were, by {answered}"
            + (f"; unsure below {limit.value:.1%}" if limit.value else "")
        )
    return limit


def split_metrics(predicted: PredictionSet, thresholds: Thresholds) -> SplitMetrics:
    """Return a split's part of ``metrics.json``."""
    targets, probabilities = predicted.targets, predicted.probabilities
    answers = predicted.decided(thresholds)
    given = answers >= 0
    wrong = answers != targets
    return SplitMetrics(
        **vars(score(targets, probabilities)),
        reliability=tuple(reliability_bins(targets, probabilities)),
        answers=AnswerShares(
            neither=float((answers == IS_NEITHER).mean()),
            unsure=float((answers == IS_UNSURE).mean()),
            given=float(given.mean()),
            given_wrong=float(wrong[given].mean()) if given.any() else None,
        ),
    )


def write_predictions(
    predictions: Mapping[Split, PredictionSet], classes: Sequence[str], path: Path
) -> None:
    """Write truth, likeliest class, probabilities and novelty of validation and test as CSV."""
    rows = (
        {
            "name": name,
            "split": split,
            "label": classes[target],
            "answer": classes[int(row.argmax())],
            **{f"p_{label}": f"{p:.6g}" for label, p in zip(classes, row, strict=True)},
            "novelty": f"{novelty:.6g}",
        }
        for split, each in predictions.items()
        for name, target, row, novelty in zip(
            each.names, each.targets, each.probabilities, each.novelty, strict=True
        )
    )
    columns = ["name", "split", "label", "answer", *(f"p_{name}" for name in classes), "novelty"]
    write_rows(rows, columns, path)
