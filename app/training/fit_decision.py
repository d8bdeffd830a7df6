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
from app.core.run_metrics import AnswerShares, SplitMetrics
from app.data.augmentation import tta_views
from app.data.folder_layout import SPLITS, Split
from app.evaluation.calibration import fit_min_confidence, fit_temperature
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds
from app.evaluation.metrics import probabilities_of, reliability_bins, score
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.evaluation.prediction_set import PredictionSet
from app.features.batches import Float32s, Int32s, targets_of
from app.features.dataset import FeatureDataset
from app.training.finetune import outputs_of
from app.training.nystroem import choose_landmarks


@dataclass(frozen=True)
class FittedDecision:
    """How the network's outputs become answers, and the answers of validation and test.

    Attributes:
        temperature: which the logits are divided by.
        thresholds: of the answers.
        ood_detector: embedding → novelty.
        predictions: by split, ``validation`` and ``test``.
    """

    temperature: float
    thresholds: Thresholds
    ood_detector: KnnOodDetector
    predictions: dict[Split, PredictionSet]


def fit_decision(
    source: FeatureDataset, stage: Stage, *, mirror: bool, divided_by: float = 1.0
) -> FittedDecision:
    """Fit temperature, OOD detector and thresholds on validation; predict validation and test.

    Args:
        source: of the run's batches.
        stage: the last one.
        mirror: predict each photo and its mirror image (test-time augmentation), and average.
        divided_by: the temperature that the head was divided by when it was solved.
    """
    model = source.part_with_embeddings(stage)
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

    temperature = fit_temperature(logits["validation"], targets["validation"], divided_by)
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
    return FittedDecision(
        temperature, _fit_thresholds(predictions["validation"]), detector, predictions
    )


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
