"""What a stage of training did, and how it is kept for a run that is resumed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import msgspec

from app.core.console import say
from app.core.run_metrics import ConfidenceLimit, CrossValidated, HistoryRow, Scores, StageGain
from app.training.checkpoint import Checkpoint
from app.training.resume_callback import assign, copies_of, epochs_record


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes:
        name: of the stage.
        trainable_parameters: how many numbers it trained.
        epochs: run; of the linear probe, strengths of regularisation tried.
        kept_epoch: the one whose weights were kept, from 1; 0: the weights as they were before.
        seconds: that it took.
        validation: scores with the weights that were kept.
        history: a row an epoch.
        temperature: that the solved head was divided by; 1 for other stages.
        cross_validated: the head's out-of-fold answers; None for other stages, and where a class
            has too few photos for folds.
        limit: the limit for ``unsure`` by these answers, where validation is small; else None.
        confidence: the mean confidence of the head's answers to validation; None for other stages.
        gain: what the stage brought on validation; None for the head.
    """

    name: str
    trainable_parameters: int
    epochs: int
    kept_epoch: int
    seconds: float
    validation: Scores
    history: tuple[HistoryRow, ...]
    temperature: float = 1.0
    cross_validated: CrossValidated | None = None
    limit: ConfidenceLimit | None = None
    confidence: float | None = None
    gain: StageGain | None = None

    @classmethod
    def of_values(cls, values: dict[str, Any]) -> StageResult:
        """Return the result that ``dataclasses.asdict`` made these values of, read from JSON."""
        return msgspec.convert(values, cls)


def divided_by(results: Sequence[StageResult]) -> float:
    """Return the product of the temperatures that the network was divided by in these stages."""
    return math.prod(result.temperature for result in results)


def keep_stage(result: StageResult, model: keras.Model, checkpoint: Checkpoint) -> None:
    """Keep a stage that has ended: its result, and the weights of the layers that it trained."""
    weights = copies_of(model.trainable_variables)
    checkpoint.save(result.name, dataclasses.asdict(result), weights)
    checkpoint.remove(epochs_record(result.name))


def kept_stage(name: str, model: keras.Model, checkpoint: Checkpoint) -> StageResult | None:
    """Put back the weights of a stage that ended in an earlier process, and return its result.

    Args:
        name: of the stage.
        model: the classifier, the stage's layers open (``app.network.classifier.open_layers``).
        checkpoint: of the run.

    Returns:
        None where the stage has to be trained.
    """
    record = checkpoint.load(name)
    if record is None:
        return None
    assign(model.trainable_variables, record.arrays)
    say(f"stage {name} was trained before")
    return StageResult.of_values(record.values)
