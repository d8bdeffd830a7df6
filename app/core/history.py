"""The history of training: a row an epoch, as ``history.csv`` holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from app.core.csv_tables import read_rows, write_rows


@dataclass(frozen=True)
class HistoryRow:
    """One epoch; of the solved head, one strength of regularisation.

    Attributes:
        stage: the name of its stage.
        epoch: its number in the stage, from 1.
        loss: log-loss (natural logarithm) on the training photos, while it trains.
        accuracy: on the training photos, likewise.
        validation_loss: log-loss on the validation photos, of the head at its temperature, of other
            stages before calibration.
        validation_accuracy: on the validation photos.
        learning_rate: the last of the epoch; 0 for the head.
        seconds: that it took.
    """

    stage: str
    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


def write_history(rows: Iterable[HistoryRow], path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    write_rows(map(asdict, rows), [field.name for field in fields(HistoryRow)], path)


def read_history(path: Path) -> list[HistoryRow]:
    """Read what ``write_history`` wrote."""
    return [
        HistoryRow(
            stage=row["stage"],
            epoch=int(row["epoch"]),
            **{field.name: float(row[field.name]) for field in fields(HistoryRow)[2:]},
        )
        for row in read_rows(path)
    ]
