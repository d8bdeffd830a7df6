"""Fine-tuning, a stage at a time: fit the open layers, keep the weights that validated best."""

from __future__ import annotations

import math
import time

import keras
import numpy as np
from rich.progress import Progress, TaskID, TextColumn
from scipy.stats import t

from app.core.config import Stage
from app.core.console import progress_bar, say
from app.core.run_metrics import HistoryRow
from app.evaluation.calibration import SMALL_VALIDATION, match_temperature
from app.evaluation.metrics import Ints, probabilities_of, score
from app.evaluation.paired_tests import stage_gain
from app.features.batches import Float32s, ViewBatches, targets_of
from app.network.batch_memory import halving
from app.network.whole_batches import predict_batch
from app.training.checkpoint import KEEP_NOTHING, Checkpoint
from app.training.resume_callback import StageState
from app.training.stage_result import StageResult

CHANCE = 0.05  # of keeping a stage that changed answers at random
TINY = 1e-12
ROUNDING = 1e-6  # a gain of less is none


def train_stage(
    model: keras.Model,
    stage: Stage,
    train: ViewBatches,
    validation: ViewBatches,
    checkpoint: Checkpoint = KEEP_NOTHING,
    class_weight: dict[int, float] | None = None,
    seconds: float = math.inf,
    *,
    second_round: bool = False,
) -> StageResult:
    """Train ``model`` as ``stage`` says; afterwards it holds the weights that validated best.

    What is validated, and kept, is the running average of the weights (Polyak & Juditsky 1992).
    The weights as they were before count too: a stage that never improves the validation log-loss
    changes nothing. Where validation is small (``SMALL_VALIDATION``), neither does a stage whose
    improvement may be chance (``improved``). Where memory does not suffice, the stage starts again
    with half the batch, from the weights and the seed that it began with.

    Args:
        model: the network from the stage's cut to the logits, its open layers already trainable.
        stage: rates, epochs and patience.
        train: batches of the training photos.
        validation: batches of the validation photos, unshuffled.
        checkpoint: keeps the state after each epoch; with one that it holds the stage goes on, to
            the same end as if nothing had come between.
        class_weight: what each training photo of a class counts in the loss, by the class's number;
            validation is scored as it is.
        seconds: that the stage may take; no epoch is begun that would probably end later.
        second_round: below a head that is held back, the first epoch brings half of all: the stage
            ends after it where it brings nothing. What the stage brought is not said, since the
            head is yet to be solved.

    Returns:
        The stage's scores and its history.
    """
    state = StageState(checkpoint, stage.name)
    started = time.monotonic() - state.seconds
    before = [(v, np.array(keras.ops.convert_to_numpy(v))) for v in model.variables]

    def restore() -> None:
        for variable, value in before:
            variable.assign(value)

    def attempt(batch: int) -> StageResult:
        restore()
        train.begin_epoch(0)
        train.begin_again(batch)
        validation.begin_again(batch)
        state.begin(batch)
        _compile(model, stage, train)  # first: it takes away what was compiled for answers
        targets = targets_of(validation.photos)
        logits_before = logits_of(model, validation)
        first = score(targets, probabilities_of(logits_before))
        start = first.log_loss if second_round else math.inf
        rows = _fit(model, stage, train, validation, state, class_weight, seconds, start)
        losses = np.array([row.validation_loss for row in rows])
        kept = 1 + int(losses.argmin())
        diverged = not np.isfinite(losses).all()
        if diverged:
            say(f"stage {stage.name} changes nothing: its log-loss became infinite or NaN")
        if diverged or losses.min() >= first.log_loss:
            kept = 0
        elif len(targets) < SMALL_VALIDATION and not improved(
            logits_before, logits_of(model, validation), targets
        ):
            kept = 0
            say(
                f"stage {stage.name} changes nothing: what it gains on {len(targets)} validation "
                "photos may be chance"
            )
        if not kept:
            restore()
        trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        answers = probabilities_of(logits_of(model, validation))
        result = StageResult(
            name=stage.name,
            trainable_parameters=trained,
            epochs=len(rows),
            kept_epoch=kept,
            seconds=time.monotonic() - started,
            validation=score(targets, answers),
            history=tuple(rows),
            gain=stage_gain(probabilities_of(logits_before), answers, targets),
        )
        if not second_round:
            say_gain(result)
        return result

    return halving(attempt, state.batch_size or train.batch_size, f"stage {stage.name}")


def say_gain(result: StageResult) -> None:
    """Say in a line what a stage brought on validation."""
    if result.gain is None or not result.kept_epoch:
        say(f"stage {result.name} brought nothing: the weights before it stay")
        return
    low, high = result.gain.log_loss_interval_95
    chance = "" if result.gain.pays else ", which may be chance"
    say(
        f"stage {result.name} lowered the validation log-loss by {result.gain.log_loss:.4f} (95 % "
        f"interval {low:.4f} to {high:.4f}){chance}; accuracy {result.gain.accuracy:+.4f}"
    )


def improved(before: Float32s, after: Float32s, targets: Ints) -> bool:
    """Say whether answers became better by more than chance explains, and not only surer.

    The answers after are first made as sure as those before (``match_temperature``). Then each
    photo's log-loss is compared by a one-sided paired t-test at the level ``CHANCE``.

    Args:
        before: logits ``(n, classes)``.
        after: likewise.
        targets: ``(n,)``, the number of each photo's class.
    """
    if len(targets) < 2:
        return False
    first = probabilities_of(before)
    then = probabilities_of(after / match_temperature(after, float(first.max(axis=1).mean())))
    log_before, log_after = (
        np.log(np.maximum(each[np.arange(len(targets)), targets], TINY)) for each in (first, then)
    )
    gains = log_after - log_before
    needed = t.ppf(1 - CHANCE, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
    return bool(gains.mean() > max(needed, ROUNDING))


def _fit(
    model: keras.Model,
    stage: Stage,
    train: ViewBatches,
    validation: ViewBatches,
    state: StageState,
    class_weight: dict[int, float] | None,
    seconds: float,
    start: float,
) -> list[HistoryRow]:
    """Train until patience, epochs or time end; the averaged weights of the best epoch stay.

    It ends after the first epoch too, if its validation log-loss is not below ``start``.
    """
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", patience=stage.patience, restore_best_weights=True, verbose=0
    )
    averaging = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    views = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: train.begin_epoch(epoch)
    )
    validating = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(_validated(model, validation))
    )
    with progress_bar(TextColumn("{task.fields[scores]}")) as bar:
        log = _Log(stage, bar, steps=len(train), rows=state.rows)
        state.watch(averaging, stopping)
        try:
            model.fit(
                train,
                class_weight=class_weight,
                epochs=stage.epochs,
                initial_epoch=stage.epochs if state.stopped else len(state.rows),
                shuffle=False,  # ViewBatches has its own order
                verbose=0,
                # In this order: the averaged weights are there when they are validated, the scores
                # when ``log`` and ``stopping`` look, and what all did when ``state`` keeps it.
                callbacks=[
                    views,
                    averaging,
                    validating,
                    log,
                    stopping,
                    _Budget(state, seconds),
                    _FirstEpoch(state, start),
                    state,
                ],
            )
        except Exception:
            if failure := train.failure or validation.failure:
                raise failure from None
            raise
    return state.rows


def _compile(model: keras.Model, stage: Stage, train: ViewBatches) -> None:
    model.compile(
        optimizer=_optimiser(stage, steps=len(train)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def _validated(model: keras.Model, validation: ViewBatches) -> dict[str, float]:
    """Return what Keras calls the scores of validation; NaN where training diverged."""
    logits = logits_of(model, validation)
    if not np.isfinite(logits).all():
        return dict.fromkeys(("val_loss", "val_accuracy"), math.nan)
    scores = score(targets_of(validation.photos), probabilities_of(logits))
    return {"val_loss": scores.log_loss, "val_accuracy": scores.accuracy}


def outputs_of(model: keras.Model, batches: ViewBatches) -> list[Float32s]:
    """Return each output ``(n, ...)`` for the photos of ``batches``, in their order."""

    def attempt(batch: int) -> list[Float32s]:
        batches.begin_again(batch)
        parts = []
        with progress_bar() as bar:
            task = bar.add_task("Predicting", total=len(batches))
            for number in range(len(batches)):
                inputs = batches[number][0]
                parts.append(keras.tree.flatten(predict_batch(model, inputs, batch)))
                bar.advance(task)
        return [np.concatenate(rows).astype(np.float32) for rows in zip(*parts, strict=True)]

    return halving(attempt, batches.batch_size, "answers")


def logits_of(model: keras.Model, batches: ViewBatches) -> Float32s:
    """Return the logits ``(n, classes)`` of a model that has no other output."""
    (logits,) = outputs_of(model, batches)
    return logits


def _optimiser(stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """One rate for the top block, a lower one for each block below.

    Discriminative rates: Howard & Ruder 2018, section 3.2.
    """
    _, *lower = sorted(stage.opens, reverse=True) or [""]
    rates = {
        f"(.*/)?{block}_.*": stage.learning_rate * stage.lower_rate**depth
        for depth, block in enumerate(lower, start=1)
    }
    top = _adamw(stage, stage.learning_rate, steps)
    if not rates:
        return top
    others = {pattern: _adamw(stage, rate, steps) for pattern, rate in rates.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(top, others))


def _adamw(stage: Stage, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) under a linear warm-up and a cosine to zero.

    Args:
        stage: how long, and the rest of its settings.
        rate: the highest.
        steps: of one epoch.
    """
    total = steps * stage.epochs
    warmup = max(1, round(stage.warmup * total))
    optimiser = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            rate / warmup,  # not 0: the only step of a tiny set must count
            decay_steps=max(1, total - warmup),
            warmup_target=rate,
            warmup_steps=warmup,
        ),
        weight_decay=stage.weight_decay,
        use_ema=True,
        ema_momentum=1 - 1 / (1 + stage.averaging * steps),
    )
    optimiser.exclude_from_weight_decay(var_names=["bias"])
    return optimiser


def _top_rate(optimiser: keras.optimizers.Optimizer) -> float:
    """Return the rate of the top block; the last optimiser of several is its."""
    (*_, top) = getattr(optimiser, "optimizers", [optimiser])
    return float(keras.ops.convert_to_numpy(top.learning_rate))


class _Budget(keras.callbacks.Callback):  # type: ignore[misc]
    """End a stage when another epoch would probably pass its time."""

    def __init__(self, state: StageState, seconds: float) -> None:
        super().__init__()
        self.state, self.seconds = state, seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        taken = sum(row.seconds for row in self.state.rows)
        if taken + self.state.rows[-1].seconds > self.seconds and not self.model.stop_training:
            say(f"stage {self.state.stage} ends: another epoch would pass the --budget")
            self.model.stop_training = True


class _FirstEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """End a stage whose first epoch brought nothing."""

    def __init__(self, state: StageState, start: float) -> None:
        super().__init__()
        self.state, self.start = state, start

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch == 0 and self.state.rows[0].validation_loss >= self.start:
            say(f"stage {self.state.stage} ends: its first epoch brought nothing")
            self.model.stop_training = True


class _Log(keras.callbacks.Callback):  # type: ignore[misc]
    """Add a row to the history, move the bar, and say a line an epoch."""

    def __init__(self, stage: Stage, bar: Progress, steps: int, rows: list[HistoryRow]) -> None:
        super().__init__()
        self.stage, self.bar, self.steps, self.rows = stage, bar, steps, rows
        self._task: TaskID = bar.add_task(
            f"Stage {stage.name}",
            total=stage.epochs * steps,
            completed=len(rows) * steps,
            begun=len(rows) * steps,
            scores="",
        )
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.monotonic()
        self.bar.update(
            self._task,
            description=f"Stage {self.stage.name}, epoch {epoch + 1}/{self.stage.epochs}",
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = f"loss {(logs or {})['loss']:.3f}"
        if self.rows:
            loss += f", validation accuracy {self.rows[-1].validation_accuracy:.4f}"
        self.bar.update(self._task, advance=1, scores=loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = logs or {}
        row = HistoryRow(
            stage=self.stage.name,
            epoch=epoch + 1,
            loss=float(values["loss"]),
            accuracy=float(values["accuracy"]),
            validation_loss=float(values["val_loss"]),
            validation_accuracy=float(values["val_accuracy"]),
            learning_rate=_top_rate(self.model.optimizer),
            seconds=time.monotonic() - self._started,
        )
        self.rows.append(row)
        say(
            f"{row.stage} epoch {row.epoch}: loss {row.loss:.4f}, validation log-loss "
            f"{row.validation_loss:.4f}, accuracy {row.validation_accuracy:.4f} "
            f"({row.seconds:.1f} s)"
        )
