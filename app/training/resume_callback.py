"""The state of a stage's training after an epoch: kept, and put back bit for bit."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.core.run_metrics import HistoryRow
from app.training.checkpoint import Checkpoint


def epochs_record(stage: str) -> str:
    """Return the name of the record of a stage that has not ended."""
    return f"{stage}-epochs"


class StageState(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps all that the next epoch depends on when one ends; puts it back when training begins.

    Those are the weights, the optimiser's moments and averages, and what early stopping has seen.
    Give it as the last of the callbacks. (Keras's ``BackupAndRestore`` keeps neither early stopping
    nor what ``SwapEMAWeights`` holds.)

    Args:
        checkpoint: where the state is kept; what it holds of this stage is what is put back.
        stage: its name.

    Attributes:
        rows: the history so far; whoever writes it adds to this list.
        stopped: whether early stopping has ended the stage.
    """

    def __init__(self, checkpoint: Checkpoint, stage: str) -> None:
        super().__init__()
        self.checkpoint, self.stage, self.name = checkpoint, stage, epochs_record(stage)
        self.rows: list[HistoryRow] = []
        self.stopped = False
        self._record = checkpoint.load(self.name)
        self.batch_size: int | None = self._record.values["batch_size"] if self._record else None
        self.seconds: float = self._record.values["seconds"] if self._record else 0.0
        self._started = time.monotonic() - self.seconds

    def begin(self, batch_size: int) -> None:
        """Begin with batches of so many photos; the state of another size is of no use."""
        if batch_size != self.batch_size:
            self._record, self.batch_size = None, batch_size
        values = self._record.values if self._record else {}
        self.rows = [HistoryRow(**row) for row in values.get("rows", [])]
        self.stopped = values.get("stopped", False)

    def watch(
        self,
        averaging: keras.callbacks.SwapEMAWeights,
        stopping: keras.callbacks.EarlyStopping,
    ) -> None:
        """Name the callbacks whose state is part of it."""
        self._averaging, self._stopping = averaging, stopping

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put the state back, if there is one."""
        if self._record is None:
            return
        values, arrays = self._record.values, self._record.arrays
        self.model.optimizer.build(self.model.trainable_variables)
        # The averages are in the model when an epoch ends: this says so to ``averaging``, and what
        # it swaps for it is overwritten by the next lines.
        self._averaging.on_test_begin()
        variables = self._variables()
        assign(variables, arrays[: len(variables)])
        self._stopping.best_weights = arrays[len(variables) :]
        for name in ("best", "best_epoch", "wait"):
            setattr(self._stopping, name, values[name])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the state."""
        self.checkpoint.save(
            self.name,
            {
                "batch_size": self.batch_size,
                "stopped": self.model.stop_training,
                "seconds": time.monotonic() - self._started,
                "rows": [asdict(row) for row in self.rows],
                "best": self._stopping.best,
                "best_epoch": self._stopping.best_epoch,
                "wait": self._stopping.wait,
            },
            [*copies_of(self._variables()), *self._stopping.best_weights],
        )

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]


def copies_of(variables: Iterable[Any]) -> list[NDArray[Any]]:
    """Return the values of Keras's variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Iterable[Any], values: Iterable[NDArray[Any]]) -> None:
    """Set Keras's variables to values that ``copies_of`` gave."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
