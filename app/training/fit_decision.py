"""What the trained network says of validation and test, and what its answers are fitted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import write_rows
from app.core.config import TrainConfig
from app.core.console import say
from app.core.run_metrics import AnswerShares, SplitMetrics
from app.data.augmentation import tta_views
from app.data.folder_layout import SPLITS, Split
from app.data.photo import Photos
from app.evaluation.calibration import fit_min_confidence, fit_temperature
from app.evaluation.metrics import probabilities_of, reliability_bins, score
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.evaluation.prediction_set import PredictionSet
from app.features.batches import Float32s, Int32s, targets_of
from app.features.dataset import FeatureDataset
from app.inference.bundle_format import OOD_THRESHOLD
from app.training.finetune import outputs_of
from app.training.nystroem import choose_landmarks


@dataclass(frozen=True)
class Answers:
    """What is said of the photos of validation and test, and what it was fitted with.

    Attributes:
        temperature: which the logits were divided by.
        min_confidence: below it an answer is unsure.
        strange: what strangers are told by.
        probabilities: calibrated, ``(n, classes)`` of each split.
        novelty: 0 to 1, ``(n,)`` of each split.
    """

    temperature: float
    min_confidence: float
    strange: KnnOodDetector
    probabilities: dict[Split, NDArray[np.floating[Any]]]
    novelty: dict[Split, NDArray[np.floating[Any]]]

    def of(self, split: Split) -> PredictionSet:
        """Return what was said of a split."""
        return PredictionSet(self.probabilities[split], self.novelty[split])


def calibrated_answers(
    config: TrainConfig, source: FeatureDataset, divided_by: float = 1.0
) -> Answers:
    """Fit on validation what answers need, then answer for it and, this once, for test."""
    last = config.stage_plan()[-1]
    model = source.describing(last)
    train = source.batches(last, "train")
    train.keep(choose_landmarks(targets_of(train.photos)).tolist())
    _, reference = outputs_of(model, train)

    logits: dict[Split, Float32s] = {}
    looked: dict[Split, list[Float32s]] = {}
    targets: dict[Split, Int32s] = {}
    for split in SPLITS[1:]:
        views = tta_views(mirrored=config.mirror)
        batches = [source.batches(last, split, view=view) for view in views]
        # As the served model does it: see ``mirror`` in app.network.classifier.
        outputs = [outputs_of(model, look) for look in batches]
        logits[split] = np.mean([each for each, _ in outputs], axis=0)
        looked[split] = [descriptors for _, descriptors in outputs]
        targets[split] = targets_of(batches[0].photos)
    temperature = fit_temperature(logits["validation"], targets["validation"], divided_by)
    probabilities = {s: probabilities_of(logits[s] / temperature) for s in SPLITS[1:]}
    strange = fit_ood_detector(reference, looked["validation"])
    novelty = {s: strange.of(strange.distances(looked[s])) for s in SPLITS[1:]}
    known = novelty["validation"] <= OOD_THRESHOLD  # the others are answered neither
    min_confidence = fit_min_confidence(
        probabilities["validation"][known], targets["validation"][known]
    )
    if min_confidence > 1:
        say(
            "unsure of every photo: the surest answers on validation are wrong too often; "
            "predict.py --min-confidence 0 gives them nevertheless"
        )
    return Answers(temperature, min_confidence, strange, probabilities, novelty)


def split_metrics(answers: Answers, split: Split, targets: Int32s) -> SplitMetrics:
    """Return a split's part of ``metrics.json``."""
    probabilities, novelty = answers.probabilities[split], answers.novelty[split]
    given = (probabilities.max(axis=1) >= answers.min_confidence) & (novelty <= OOD_THRESHOLD)
    wrong = probabilities.argmax(axis=1) != targets
    return SplitMetrics(
        **vars(score(targets, probabilities)),
        reliability=tuple(reliability_bins(targets, probabilities)),
        answers=AnswerShares(
            neither=float((novelty > OOD_THRESHOLD).mean()),
            unsure=float((~given & (novelty <= OOD_THRESHOLD)).mean()),
            given=float(given.mean()),
            given_wrong=float(wrong[given].mean()) if given.any() else None,
        ),
    )


def write_predictions(answers: Answers, photos: Photos, classes: Sequence[str], path: Path) -> None:
    """Write truth, likeliest class, probabilities and novelty of the photos that were asked for."""
    rows = (
        {
            "name": photo.name,
            "split": split,
            "label": classes[photo.target],
            "answer": classes[int(row.argmax())],
            **{f"p_{name}": f"{p:.6g}" for name, p in zip(classes, row, strict=True)},
            "novelty": f"{novelty:.6g}",
        }
        for split in SPLITS[1:]
        for photo, row, novelty in zip(
            photos[split], answers.probabilities[split], answers.novelty[split], strict=True
        )
    )
    columns = ["name", "split", "label", "answer", *(f"p_{name}" for name in classes), "novelty"]
    write_rows(rows, columns, path)
