"""What a stage of training did, and how it is kept for a run that is resumed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import msgspec

from app.core.console import say
from app.core.run_metrics import ConfidenceLimit, HistoryRow, StageMetrics
from app.training.checkpoint import Checkpoint
from app.training.resume_callback import assign, copies_of, epochs_record


@dataclass(frozen=True, kw_only=True)
class StageResult(StageMetrics):
    """What a stage did, as ``metrics.json`` has it, and its epochs, which ``history.csv`` has.

    Attributes:
        history: a row an epoch; of the linear probe, a row a strength of regularisation.
        limit: the limit for ``unsure`` by the head's out-of-fold answers, where validation is
            small; else None.
        confidence: the mean confidence of the head's answers to validation; None for other stages.
    """

    history: tuple[HistoryRow, ...]
    limit: ConfidenceLimit | None = None
    confidence: float | None = None


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
    return msgspec.convert(record.values, StageResult)
