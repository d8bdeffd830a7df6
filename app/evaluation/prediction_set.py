"""What a model predicted for the photos of a split, as arrays.

The prediction for one file, in words, is ``app.inference.prediction.Prediction``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import read_rows, write_rows
from app.data.folder_layout import Split
from app.evaluation.decision import Thresholds, decide, label_of


@dataclass(frozen=True)
class PredictionSet:
    """The predictions for some photos.

    Attributes:
        names: of the photos, relative to the data folder.
        targets: ``(n,)``, the number of each photo's class.
        probabilities: ``(n, classes)``, calibrated.
        novelty: ``(n,)``, 0 to 1 (``app.evaluation.ood``).
    """

    names: tuple[str, ...]
    targets: NDArray[np.integer[Any]]
    probabilities: NDArray[np.floating[Any]]
    novelty: NDArray[np.floating[Any]]

    @property
    def answers(self) -> NDArray[np.int64]:
        """The number of each photo's likeliest class."""
        answers: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return answers

    @property
    def confidence(self) -> NDArray[np.floating[Any]]:
        """The probability of each photo's likeliest class."""
        confidence: NDArray[np.floating[Any]] = self.probabilities.max(axis=1)
        return confidence

    def decided(self, thresholds: Thresholds) -> NDArray[np.int64]:
        """Return the answers that a user reads (``app.evaluation.decision.decide``)."""
        return decide(self.probabilities, self.novelty, thresholds)

    def labels(self, classes: Sequence[str], min_confidence: float) -> list[str]:
        """Return the answers of a run's bundle in words: a class, ``unsure`` or ``neither``."""
        decided = self.decided(Thresholds(min_confidence))
        return [label_of(answer, classes) for answer in decided.tolist()]

    def chosen(self, numbers: Sequence[int] | NDArray[np.int64]) -> PredictionSet:
        """Return the predictions for some of the photos, in the order of ``numbers``."""
        index = np.asarray(numbers, np.int64)
        return PredictionSet(
            tuple(self.names[number] for number in index),
            self.targets[index],
            self.probabilities[index],
            self.novelty[index],
        )

    def replaced(
        self, numbers: Sequence[int] | NDArray[np.int64], others: PredictionSet
    ) -> PredictionSet:
        """Return the same with the predictions of ``others`` for the photos ``numbers``."""
        probabilities, novelty = self.probabilities.astype(float), self.novelty.astype(float)
        probabilities[numbers], novelty[numbers] = others.probabilities, others.novelty
        return replace(self, probabilities=probabilities, novelty=novelty)

    def mistakes(self) -> list[int]:
        """Return the numbers of the photos that are answered wrongly, the most confident first."""
        wrong = np.flatnonzero(self.answers != self.targets)
        return sorted(wrong.tolist(), key=lambda n: (-self.confidence[n], self.names[n]))

    def least_certain(self) -> list[int]:
        """Return the numbers of all photos, those with the least confident answers first."""
        numbers = range(len(self.names))
        return sorted(numbers, key=lambda n: (self.confidence[n], self.names[n]))


def read_predictions(path: Path, split: Split, classes: Sequence[str]) -> PredictionSet:
    """Read a split's part of what ``write_predictions`` wrote.

    Raises:
        ValueError: when it has no photo of the split, or something else than numbers.
        KeyError: when it lacks a column.
    """
    rows = [row for row in read_rows(path) if row["split"] == split]
    if not rows:
        raise ValueError(f"{path.name} has no rows of {split}")
    return PredictionSet(
        names=tuple(row["name"] for row in rows),
        targets=np.array([classes.index(row["label"]) for row in rows], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]),
        novelty=np.array([float(row["novelty"]) for row in rows]),
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
