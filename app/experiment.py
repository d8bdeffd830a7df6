"""Used photos → a trained, calibrated, exported classifier and every number about it.

    photos → features → linear probe → fine-tuning → calibration and decision → bundle → test

Only this module and those above it read ``TrainConfig``; the packages below take the few values
that they need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from app.core.config import Stage, TrainConfig
from app.core.console import say
from app.core.profiling import Clock
from app.core.run_folder import FEATURES_FOLDER, Run
from app.core.run_metrics import (
    AnsweredBy,
    Int8Metrics,
    Metrics,
    NeitherMetrics,
    SplitMetrics,
    StageMetrics,
    write_history,
)
from app.data.augmentation import View, refuse_changed
from app.data.folder_layout import SPLITS, Split
from app.data.manifest import (
    ManifestRow,
    NeitherPhoto,
    Photo,
    Photos,
    class_names,
    neither_photos_of,
    photos_of,
)
from app.data.splits import class_weights
from app.evaluation.findings import write_findings
from app.evaluation.prediction_set import PredictionSet
from app.evaluation.test_findings import findings_of_test
from app.export.bundle_writer import Parity, classifier_graph, export_bundle, library_versions
from app.export.int8_export import Int8Model, int8_model
from app.features.cache_folder import Quota
from app.features.dataset import DatasetSpec, FeatureDataset, open_dataset
from app.inference.answered_photos import answer_photos
from app.inference.predictor import Classifier
from app.inference.refusals import refusals
from app.network.classifier import build_classifier, copy_weights, load_classifier, open_layers
from app.network.device import (
    compute_deterministically,
    device_name,
    resolve_frozen_precision,
    resolve_precision,
)
from app.training.checkpoint import Checkpoint
from app.training.conditions import keep_conditions
from app.training.data_review import review
from app.training.finetune import train_stage
from app.training.fit_decision import (
    FittedDecision,
    fit_decision,
    split_metrics,
    write_predictions,
)
from app.training.frozen_precision import choose_precision
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
    learned_as_neither = [each.photo for each in neither["train"]]
    learned: Photos = {split: photos[split] for split in ("train", "validation")}
    trained = resolve_precision(config.precision)
    frozen = trained if config.cache == "off" else resolve_frozen_precision(config.precision)
    say(f"computing on {device_name()}, frozen layers in {frozen}, trained ones in {trained}")
    model, digest = classifier_of(config, len(classes), trained)
    with clock.phase("features"):
        if config.precision == "auto":
            precision = choose_precision(
                model,
                digest,
                photos["train"],
                config.runs / FEATURES_FOLDER,
                int8=frozen == "int8",
            )
            if precision != "auto":
                config, frozen = dataclasses.replace(config, precision=precision), precision
            if precision == "float32":
                trained = precision
                model, digest = classifier_of(config, len(classes), trained)
        source = dataset_of(config, model, digest, learned, learned_as_neither)
        keep_conditions(_conditions(source, digest, trained), library_versions(), checkpoint)
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
        parity, int8 = export(config, model, source, last, classes, learned, decision, run.bundle)
    with clock.phase("test"):
        excluded = {row.name for row in rows if row.code == "excluded"}
        tested = answer_test(run, photos["test"], excluded, decision, neither)
    return Metrics(
        classes=tuple(classes),
        photos={split: len(photos[split]) for split in SPLITS},
        class_weights=weights,
        stages=tuple(map(stage_metrics, results)),
        validation=split_metrics(decision.validation, decision.thresholds),
        test=tested.scores,
        test_without_excluded=tested.without_excluded,
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
        precision=trained,
        frozen_precision=frozen if source.name == "disk" else trained,
        cache=source.name,
        views=source.views,
        versions=library_versions(),
        finished=finish_time(run),
    )


def classifier_of(config: TrainConfig, classes: int, precision: str) -> tuple[keras.Model, str]:
    """Return the untrained classifier of a run, and the digest of its backbone's weights."""
    return load_classifier(
        classes,
        image_size=config.image_size,
        backbone=config.backbone,
        precision=precision,
        weights=config.weights,
        seed=config.seed,
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


def dataset_of(
    config: TrainConfig,
    model: keras.Model,
    digest: str,
    photos: Photos,
    neither: Sequence[Photo] = (),
) -> FeatureDataset:
    """Open the input of the run's stages; ``digest`` is that of the backbone's weights."""
    quota = Quota(config.runs / FEATURES_FOLDER, round(config.cache_limit * 1e9))
    return open_dataset(dataset_spec(config, model, digest, photos, neither), config.cache, quota)


def dataset_spec(
    config: TrainConfig,
    model: keras.Model,
    digest: str,
    photos: Photos,
    neither: Sequence[Photo] = (),
) -> DatasetSpec:
    """Return the few settings that the input depends on."""
    return DatasetSpec(
        model=model,
        backbone=config.backbone,
        weights=digest,
        photos=photos,
        neither=neither,
        stages=config.stage_plan(),
        views=config.training_views(),
        seed=config.seed,
        precision=config.precision,
        mirror=config.mirror,
        deterministic=config.deterministic,
    )


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
    review(photos, classes, probe, run.audit)
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
    )
    return parity, int8


@dataclass(frozen=True)
class Tested:
    """The test photos' scores: of all, without the excluded ones if any are, and by which model.

    ``neither`` counts how many photos of none of the classes it refuses, by kind.
    """

    scores: SplitMetrics
    without_excluded: SplitMetrics | None
    answered_by: AnsweredBy
    neither: dict[str, NeitherMetrics]


def answer_test(
    run: Run,
    photos: Sequence[Photo],
    excluded: Collection[str],
    decision: FittedDecision,
    neither: Mapping[Split, Sequence[NeitherPhoto]],
) -> Tested:
    """Let the exported bundle answer the test photos, once, as ``predict.py`` answers.

    What it answers is written into the run, with what training predicted for validation.

    Args:
        run: that has its bundle.
        photos: of test.
        excluded: names; those of test photos are left out of ``without_excluded``.
        decision: for the validation photos.
        neither: photos of none of the classes, of all splits.
    """
    classifier = Classifier(run.bundle)
    classes, thresholds = classifier.bundle.classes, classifier.thresholds
    say(f"answering {len(photos)} test photos with {classifier.file} ({classifier.precision})")
    answered = answer_photos(classifier, photos)
    predictions: dict[Split, PredictionSet] = {"validation": decision.validation, "test": answered}
    write_predictions(predictions, classes, thresholds, run.predictions)
    write_findings(findings_of_test(answered, classes, thresholds), run.test_audit)
    refused = refusals(classifier, neither)
    if held_out := sum(kind.held_out for kind in refused.values()):
        count = sum(kind.refused for kind in refused.values())
        say(f"of {held_out} photos of neither that nothing was learned from {count} are refused")
    kept = [number for number, name in enumerate(answered.names) if name not in excluded]
    some = 0 < len(kept) < len(answered.names)
    return Tested(
        split_metrics(answered, thresholds),
        split_metrics(answered.chosen(kept), thresholds) if some else None,
        AnsweredBy(classifier.file, classifier.precision),
        refused,
    )


def _conditions(source: FeatureDataset, digest: str, trained: str) -> dict[str, Any]:
    """Return all that must be the same when the run is resumed."""
    return {
        "backend": keras.backend.backend(),
        "device": device_name(),
        "weights": digest,
        "precision": trained,
        "cache": source.name,
        "views": source.views,
        "frozen layers": source.frozen,
    }


def stage_metrics(result: StageResult) -> StageMetrics:
    """Return a stage's part of ``metrics.json``; its epochs are in ``history.csv``."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(StageMetrics)}
    return StageMetrics(**values)
