"""Used photos → a trained, calibrated, exported classifier and every number about it.

    photos → features → linear probe → fine-tuning → calibration and decision → bundle → test

Only this module and those above it read ``TrainConfig``; the packages below take the few values
that they need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from app.core.config import Stage, TrainConfig
from app.core.console import say
from app.core.profiling import Clock
from app.core.run_folder import Run
from app.core.run_metrics import (
    Int8Metrics,
    Metrics,
    StageMetrics,
    write_history,
)
from app.data.augmentation import View, refuse_changed
from app.data.folder_layout import SPLITS
from app.data.manifest import (
    ManifestRow,
    Photos,
    class_names,
    corrected_test_photos,
    neither_photos_of,
    photos_of,
    training_photos_before_corrections,
)
from app.data.splits import class_weights
from app.evaluation.metrics import split_metrics
from app.experiment_setup import set_up
from app.export.answers_from_features import AnswersFromFeatures
from app.export.bundle_writer import (
    Answering,
    Parity,
    classifier_graph,
    export_bundle,
    library_versions,
)
from app.export.int8_export import Int8Model, int8_model
from app.features.dataset import FeatureDataset
from app.inference.test_set import answer_test_set
from app.network.classifier import build_classifier, copy_weights, open_layers
from app.network.device import (
    compute_deterministically,
    device_name,
)
from app.training.checkpoint import Checkpoint
from app.training.conditions import keep_conditions, kept_engine
from app.training.data_review import review
from app.training.finetune import train_stage
from app.training.fit_decision import FittedDecision, fit_decision
from app.training.linear_probe import STRENGTHS, fit_linear_probe
from app.training.run_lock import finish_time
from app.training.schedule import is_second, next_stage, report_gains, seconds_left
from app.training.second_round import open_second_round, train_second_round
from app.training.stage_result import StageResult, divided_by, keep_stage, kept_stage
from app.training.tracking import Tracking


def run_experiment(
    config: TrainConfig,
    rows: Sequence[ManifestRow],
    root: Path,
    run: Run,
    checkpoint: Checkpoint,
    clock: Clock,
    tracking: Tracking,
) -> Metrics:
    """Train as ``config`` says, export the bundle and return the contents of ``metrics.json``.

    What ``checkpoint`` holds is not computed again; ``tracking`` logs each stage when it ends.
    """
    if config.deterministic:
        compute_deterministically()
    classes = class_names(rows)
    photos: Photos = {split: photos_of(rows, split, root) for split in SPLITS}
    neither = {split: neither_photos_of(rows, split, root) for split in SPLITS}
    learned: Photos = {split: photos[split] for split in ("train", "validation")}
    config = dataclasses.replace(config, engine=kept_engine(checkpoint, config.engine_of_run()))
    with clock.phase("features"):
        setup = set_up(
            config,
            len(classes),
            learned,
            [each.photo for each in neither["train"]],
            training_photos_before_corrections(rows, root),
        )
        keep_conditions(setup.conditions(), library_versions(), checkpoint)
    model, source = setup.model, setup.source
    config = dataclasses.replace(config, engine=source.spec.engine)  # one for all that is left
    refuse_changed([*photos["validation"], *photos["test"]], clock.began)
    with clock.phase("training"):
        weights = class_weights(classes[photo.target] for photo in photos["train"])
        by_number = {n: weights[name] for n, name in enumerate(classes)} if weights else None
        last, results = train_stages(
            config, model, source, learned, classes, by_number, run, checkpoint, tracking
        )
        write_history((row for result in results for row in result.history), run.history)
        decision = fit_decision(
            source,
            last,
            results,
            mirror=config.mirror,
            neither=source.batches_of_neither(last),
        )
    with clock.phase("export"):
        parity, int8 = export(config, model, source, last, classes, photos, decision, run.bundle)
    with clock.phase("test"):
        excluded = {row.name for row in rows if row.code == "excluded"}
        tested = answer_test_set(
            run,
            photos["test"],
            excluded,
            corrected_test_photos(rows, classes),
            decision.validation,
            neither,
            config.engine,
            AnswersFromFeatures(source, last, run.bundle, config.mirror),
        )
    return Metrics(
        classes=tuple(classes),
        photos={split: len(photos[split]) for split in SPLITS},
        class_weights=weights,
        stages=tuple(map(stage_metrics, results)),
        validation=split_metrics(decision.validation, decision.thresholds),
        test=tested.scores,
        test_without_excluded=tested.without_excluded,
        test_corrected=tested.corrected,
        answered_by=tested.answered_by,
        neither=tested.neither,
        temperature=decision.temperature,
        min_confidence=decision.thresholds.confidence,
        promise=decision.promise,
        parity=dataclasses.asdict(parity),
        int8=Int8Metrics(why_not=int8.why_not, **(vars(int8.gate) if int8.gate else {})),
        seconds=clock.total(),
        memory=clock.memory,
        device=device_name(),
        backend=keras.backend.backend(),
        precision=setup.precision,
        frozen_precision=setup.frozen_precision,
        frozen_engine=source.made_by,
        cache=source.name,
        views=source.views,
        versions=library_versions(),
        finished=finish_time(run),
    )


def train_stages(
    config: TrainConfig,
    model: keras.Model,
    source: FeatureDataset,
    photos: Photos,
    classes: Sequence[str],
    class_weight: dict[int, float] | None,
    run: Run,
    checkpoint: Checkpoint,
    tracking: Tracking,
) -> tuple[Stage, list[StageResult]]:
    """Solve the linear probe, then fine-tune as far as it pays (``app.training.schedule``).

    A stage that ``checkpoint`` holds is put back.

    Returns:
        The last stage that was trained, and the results of all.
    """
    results: list[StageResult] = []
    trained: list[Stage] = []

    while stage := next_stage(config.stage_plan(), trained, results, config.budget):
        if not source.prepare(stage):
            break
        (open_second_round if is_second(stage) else open_layers)(model, stage)
        result = kept_stage(stage.name, model, checkpoint)
        if result is None:
            if stage.opens:
                result = fine_tune(
                    config, stage, source, class_weight, checkpoint, trained, results
                )
            else:
                result = linear_probe(
                    stage, model, source, photos, classes, class_weight, strengths_of(config), run
                )
            keep_stage(result, model, checkpoint)
        tracking.stage(stage.name, result.history)
        trained.append(stage)
        results.append(result)
    report_gains(results)
    return trained[-1], results


def linear_probe(
    stage: Stage,
    model: keras.Model,
    source: FeatureDataset,
    photos: Photos,
    classes: Sequence[str],
    class_weight: dict[int, float] | None,
    strengths: Sequence[float],
    run: Run,
) -> StageResult:
    """Solve the head; then list the photos that a person should look at."""
    probe = fit_linear_probe(
        model,
        stage,
        source.labelled("train"),
        source.labelled("validation"),
        strengths,
        class_weight,
    )
    review(photos, classes, probe, run)
    return probe.result


def fine_tune(
    config: TrainConfig,
    stage: Stage,
    source: FeatureDataset,
    class_weight: dict[int, float] | None,
    checkpoint: Checkpoint,
    trained: Sequence[Stage],
    results: Sequence[StageResult],
) -> StageResult:
    """Train the blocks that the stage opens: below the solved head, or in a second round."""
    epochs_before = sum(each.epochs for each in trained)
    seconds = seconds_left(results, config.budget)
    if is_second(stage):
        return train_second_round(
            source,
            trained[0],
            stage,
            checkpoint,
            class_weight,
            epochs_before=epochs_before,
            seconds=seconds,
            strengths=strengths_of(config),
            divided_by=divided_by(results),
        )
    return train_stage(
        source.part(stage),
        stage,
        source.batches(stage, "train", shuffle=True, epochs_before=epochs_before),
        source.batches(stage, "validation"),
        checkpoint,
        class_weight,
        seconds,
    )


def strengths_of(config: TrainConfig) -> tuple[float, ...]:
    """Return the strengths of regularisation that the head is solved with."""
    return STRENGTHS if config.head_strength is None else (config.head_strength,)


def export(
    config: TrainConfig,
    model: keras.Model,
    source: FeatureDataset,
    stage: Stage,
    classes: Sequence[str],
    photos: Photos,
    decision: FittedDecision,
    folder: Path,
) -> tuple[Parity, Int8Model]:
    """Build the served model (float32, temperature inside) and its int8 twin; write the bundle."""
    served = build_classifier(
        len(classes),
        image_size=config.image_size,
        backbone=config.backbone,
        temperature=decision.temperature,
        mirror=config.mirror,
        novelty=decision.ood_detector,
        initializer="zeros",
    )
    copy_weights(model, served)
    graph = classifier_graph(served, classes, decision.temperature)
    int8 = int8_model(
        graph,
        source,
        stage,
        decision.thresholds,
        mirror=config.mirror,
    )
    say(int8.summary())
    parity = export_bundle(
        served,
        graph,
        folder,
        classes=classes,
        image_size=config.image_size,
        temperature=decision.temperature,
        thresholds=decision.thresholds,
        photos=[View(photo, 0, config.seed) for photo in photos["validation"]],
        trained=decision.validation,
        int8=int8.model,
        why_no_int8=int8.why_not,
        answering=Answering(config.engine, len(photos["test"])),
    )
    return parity, int8


def stage_metrics(result: StageResult) -> StageMetrics:
    """Return a stage's part of ``metrics.json``; its epochs are in ``history.csv``."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(StageMetrics)}
    return StageMetrics(**values)
