"""What answers need besides the network, fitted on validation: temperature, thresholds, novelty.

Nothing of test is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.core.atomic_files import write_rows
from app.core.config import Stage
from app.core.console import say
from app.core.run_metrics import AnswerCounts, SplitMetrics
from app.data.augmentation import tta_views
from app.data.folder_layout import Split
from app.evaluation.calibration import fit_min_confidence, fit_temperature
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds, label_of
from app.evaluation.metrics import probabilities_of, reliability_bins, score
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.evaluation.prediction_set import PredictionSet
from app.features.batches import ViewBatches, targets_of
from app.features.dataset import FeatureDataset
from app.training.finetune import outputs_of
from app.training.nystroem import choose_landmarks


@dataclass(frozen=True)
class FittedDecision:
    """How the network's outputs become answers.

    Attributes:
        temperature: which the logits are divided by.
        thresholds: of the answers.
        ood_detector: embedding → novelty.
        validation: what training predicts for the validation photos.
    """

    temperature: float
    thresholds: Thresholds
    ood_detector: KnnOodDetector
    validation: PredictionSet


def fit_decision(
    source: FeatureDataset,
    stage: Stage,
    *,
    mirror: bool,
    divided_by: float = 1.0,
    neither: ViewBatches | None = None,
) -> FittedDecision:
    """Fit temperature, OOD detector and thresholds on validation, and predict it.

    Args:
        source: of the run's batches.
        stage: the last one.
        mirror: predict each photo and its mirror image (test-time augmentation), and average.
        divided_by: the temperature that the head was divided by when it was solved.
        neither: training photos that show none of the classes; None where there are none.
    """
    model = source.describing(stage)
    reference = source.batches(stage, "train")
    reference.keep(choose_landmarks(targets_of(reference.photos)).tolist())
    _, reference_embeddings = outputs_of(model, reference)
    outliers = None if neither is None else outputs_of(model, neither)[1]

    batches = [source.batches(stage, "validation", view=v) for v in tta_views(mirrored=mirror)]
    outputs = [outputs_of(model, view) for view in batches]
    # As the served model does it: see ``mirror`` in app.network.classifier.
    logits = np.mean([each for each, _ in outputs], axis=0)
    embeddings = [each for _, each in outputs]  # for each view of the test-time augmentation
    photos = batches[0].photos
    targets = targets_of(photos)

    temperature = fit_temperature(logits, targets, divided_by)
    detector = fit_ood_detector(reference_embeddings, embeddings, outliers)
    validation = PredictionSet(
        tuple(photo.name for photo in photos),
        targets,
        probabilities_of(logits / temperature),
        detector.novelty(embeddings),
    )
    return FittedDecision(temperature, _fit_thresholds(validation), detector, validation)


def _fit_thresholds(validation: PredictionSet) -> Thresholds:
    """Return the least confidence of an answer, fitted on those that are not ``neither``."""
    known = validation.decided(Thresholds(confidence=0.0)) != IS_NEITHER
    confidence = fit_min_confidence(validation.probabilities[known], validation.targets[known])
    if confidence > 1:
        say(
            "unsure of every photo: the surest answers on validation are wrong too often; "
            "predict.py --min-confidence 0 gives them nevertheless"
        )
    return Thresholds(confidence)


def split_metrics(predicted: PredictionSet, thresholds: Thresholds) -> SplitMetrics:
    """Return a split's part of ``metrics.json``."""
    targets, probabilities = predicted.targets, predicted.probabilities
    answers = predicted.decided(thresholds)
    right, neither, unsure = (
        int((answers == other).sum()) for other in (targets, IS_NEITHER, IS_UNSURE)
    )
    return SplitMetrics(
        **vars(score(targets, probabilities)),
        counts=AnswerCounts(right, len(answers) - right - neither - unsure, neither, unsure),
        reliability=tuple(reliability_bins(targets, probabilities)),
    )


def write_predictions(
    predictions: Mapping[Split, PredictionSet],
    classes: Sequence[str],
    thresholds: Thresholds,
    path: Path,
) -> None:
    """Write truth, answer, likeliest class, probabilities and novelty of photos as CSV.

    Numbers have all their digits, so that the answers can be decided from them again.
    """
    rows = (
        {
            "name": name,
            "split": split,
            "label": classes[target],
            "answer": label_of(answer, classes),
            "likeliest": classes[int(row.argmax())],
            **{f"p_{label}": str(float(p)) for label, p in zip(classes, row, strict=True)},
            "novelty": str(float(novelty)),
        }
        for split, each in predictions.items()
        for name, target, answer, row, novelty in zip(
            each.names,
            each.targets,
            each.decided(thresholds).tolist(),
            each.probabilities,
            each.novelty,
            strict=True,
        )
    )
    probabilities = [f"p_{name}" for name in classes]
    columns = ["name", "split", "label", "answer", "likeliest", *probabilities, "novelty"]
    write_rows(rows, columns, path)
