"""Used photos → a trained, calibrated, exported classifier and every number about it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.bundle import STRANGE
from app.calibration import fit_min_confidence, fit_temperature
from app.checkpoint import KEEP_NOTHING, Checkpoint
from app.class_weights import class_weights
from app.clock import Clock
from app.config import Stage, TrainConfig
from app.config_file import other_versions
from app.console import say
from app.device import (
    compute_deterministically,
    device_name,
    resolve_frozen_precision,
    resolve_precision,
)
from app.errors import UsageError
from app.evaluation import probabilities_of, reliability_bins, score
from app.export import Parity, Trained, export_bundle, library_versions
from app.files import SPLITS, Split
from app.findings import write_findings
from app.head import STRENGTHS, Labelled, SolvedHead, solve_head
from app.history import write_history
from app.manifest import ManifestRow
from app.model import build_classifier, copy_weights, open_layers
from app.novelty import Descriptors, Novelty, fit_novelty, references
from app.photos import Photo, Photos, class_names, photos_of
from app.review import find
from app.runs import Run
from app.sources import Source, open_source
from app.stage_state import assign, copies_of, epochs_record
from app.tables import write_rows
from app.training import Float32s, Int32s, StageResult, outputs_of, targets_of, train_stage
from app.unfinished import finish_time
from app.views import View, looks
from app.weights import RANDOM_WEIGHTS_WARNING, load_weights, set_weights, tensor_digest

SOURCE = "source"  # the record of how a run computes


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
    strange: Novelty
    probabilities: dict[Split, NDArray[np.floating[Any]]]
    novelty: dict[Split, NDArray[np.floating[Any]]]

    def of(self, split: Split) -> Trained:
        """Return what was said of a split."""
        return Trained(self.probabilities[split], self.novelty[split])


def learn(
    config: TrainConfig,
    rows: Sequence[ManifestRow],
    root: Path,
    run: Run,
    checkpoint: Checkpoint,
    clock: Clock,
) -> dict[str, Any]:
    """Train as ``config`` says, export the bundle and return the contents of ``metrics.json``.

    What ``checkpoint`` holds is not computed again.
    """
    if config.deterministic:
        compute_deterministically()
    classes = class_names(rows)
    photos: Photos = {split: photos_of(rows, split, root) for split in SPLITS}
    trained, frozen = arithmetic(config)
    say(f"computing on {device_name()}, frozen layers in {frozen}, trained ones in {trained}")
    model, digest = load_classifier(config, len(classes))
    with clock.phase("features"):
        source = open_source(as_begun(config, checkpoint), model, digest, photos)
        refuse_other_ways(source, digest, trained, checkpoint)
    with clock.phase("training"):
        weights = class_weights(classes[photo.target] for photo in photos["train"])
        results = train_stages(
            config,
            model,
            source,
            by_number(weights, classes),
            partial(review, photos, classes, run),
            checkpoint,
        )
        write_history((row for result in results for row in result.history), run.history)
        answers = calibrated_answers(config, source, divided_by=results[-1].temperature)
    with clock.phase("export"):
        parity = export(config, model, classes, photos["validation"], answers, run.bundle)
    write_predictions(answers, photos, classes, run.predictions)
    return {
        "classes": list(classes),
        "photos": {split: len(photos[split]) for split in SPLITS},
        "class_weights": weights,
        "stages": [stage_values(result) for result in results],
        **{split: split_values(answers, split, targets_of(photos[split])) for split in SPLITS[1:]},
        "temperature": answers.temperature,
        "min_confidence": answers.min_confidence,
        "parity": dataclasses.asdict(parity),
        "seconds": clock.total(),
        "device": device_name(),
        "backend": keras.backend.backend(),
        "precision": trained,
        "frozen_precision": frozen if source.name == "disk" else trained,
        "cache": source.name,
        "views": source.views,
        "versions": library_versions(),
        "finished": finish_time(run),
    }


def arithmetic(config: TrainConfig) -> tuple[str, str]:
    """Return the arithmetic of trained and of frozen layers; only a cache freezes any for long."""
    trained = resolve_precision(config.precision)
    return trained, trained if config.cache == "off" else resolve_frozen_precision(config.precision)


def load_classifier(config: TrainConfig, num_classes: int) -> tuple[keras.Model, str]:
    """Build the classifier with the backbone's weights; return it and the weights' digest."""
    keras.utils.set_random_seed(config.seed)
    model = build_classifier(
        num_classes,
        image_size=config.image_size,
        backbone=config.backbone,
        precision=resolve_precision(config.precision),
    )
    if config.weights != "none":
        weights = load_weights(config.backbone, config.weights)
        set_weights(model, weights)
        return model, weights.digest
    say(RANDOM_WEIGHTS_WARNING)
    blocks = [layer for layer in model.layers if "_conv" in layer.name]
    return model, tensor_digest(
        {
            f"{layer.name}/{kind}": array
            for layer in blocks
            for kind, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)
        }
    )


# What the head was solved with, and descriptors of all photos → nothing; once a run.
Review = Callable[[SolvedHead, Mapping[Split, Labelled], Mapping[Split, Descriptors]], None]


def no_review(*_: object) -> None:
    """Look at no photo."""


def as_begun(config: TrainConfig, checkpoint: Checkpoint) -> TrainConfig:
    """Return the settings with the source of input that was chosen when the run began.

    ``auto`` measures, and might choose another one today.
    """
    begun = checkpoint.load(SOURCE)
    if begun is None:
        return config
    if begun.values["cache"] == "off":  # which ``config`` refuses beside int8
        precision: Any = resolve_precision(config.precision)
        return dataclasses.replace(config, cache="off", precision=precision)
    return dataclasses.replace(config, cache="disk", views=begun.values["views"])


def refuse_other_ways(source: Source, digest: str, trained: str, checkpoint: Checkpoint) -> None:
    """Note how the run computes; refuse to go on with it in another way.

    Raises:
        UsageError: with what differs from the run's beginning.
    """
    now = {
        "backend": keras.backend.backend(),
        "device": device_name(),
        "weights": digest,
        "precision": trained,
        "cache": source.name,
        "views": source.views,
        "frozen layers": source.frozen,
    }
    begun = checkpoint.load(SOURCE)
    if begun is None:
        checkpoint.save(SOURCE, {**now, "versions": library_versions()})
        return
    differ = [name for name in now if now[name] != begun.values[name]]
    if differ:
        raise UsageError(
            "expected to go on as the run was begun, with "
            f"{', '.join(f'{name} {begun.values[name]}' for name in differ)}; received "
            f"{', '.join(f'{name} {now[name]}' for name in differ)}; begin a new run"
        )
    if others := other_versions(begun.values):
        say(f"begun with other versions, so the figures may differ: {others}")


def by_number(
    weights: Mapping[str, float] | None, classes: Sequence[str]
) -> dict[int, float] | None:
    """Return the weights of classes by their numbers, as Keras and scikit-learn take them."""
    if weights is None:
        return None
    return {number: weights[label] for number, label in enumerate(classes)}


def train_stages(
    config: TrainConfig,
    model: keras.Model,
    source: Source,
    class_weight: dict[int, float] | None = None,
    review: Review = no_review,
    checkpoint: Checkpoint = KEEP_NOTHING,
) -> list[StageResult]:
    """Train the stages one after the other; ``model`` ends with the best weights of the last.

    A stage that ``checkpoint`` holds is put back, not trained again.
    """
    results = []
    for stage in config.stage_plan():
        open_layers(model, stage)
        if kept := checkpoint.load(stage.name):
            assign(model.trainable_variables, kept.arrays)
            results.append(StageResult.of_values(kept.values))
            say(f"stage {stage.name} was trained before")
            continue
        result = _train(config, stage, model, source, class_weight, review, checkpoint)
        checkpoint.save(
            stage.name, dataclasses.asdict(result), copies_of(model.trainable_variables)
        )
        checkpoint.remove(epochs_record(stage.name))
        results.append(result)
    return results


def _train(
    config: TrainConfig,
    stage: Stage,
    model: keras.Model,
    source: Source,
    class_weight: dict[int, float] | None,
    review: Review,
    checkpoint: Checkpoint,
) -> StageResult:
    """Train one stage, its layers already open."""
    if stage.opens:
        return train_stage(
            source.part(stage),
            stage,
            source.batches(stage, "train", shuffle=True),
            source.batches(stage, "validation"),
            checkpoint,
            class_weight,
        )
    return solve_and_review(config, stage, model, source, class_weight, review)


def solve_and_review(
    config: TrainConfig,
    stage: Stage,
    model: keras.Model,
    source: Source,
    class_weight: dict[int, float] | None,
    review: Review,
) -> StageResult:
    """Solve the head, then look at all photos with what it was solved with."""
    labelled, descriptors = {}, {}
    for split in SPLITS:
        photos = source.labelled(split)
        descriptors[split] = seen = Descriptors(len(photos.targets))
        labelled[split] = photos.watched(seen.watch)
    strengths = STRENGTHS if config.head_strength is None else (config.head_strength,)
    head = solve_head(
        model, stage, labelled["train"], labelled["validation"], strengths, class_weight
    )
    review(head, labelled, descriptors)
    return head.result


def review(
    photos: Photos,
    classes: Sequence[str],
    run: Run,
    head: SolvedHead,
    labelled: Mapping[Split, Labelled],
    descriptors: Mapping[Split, Descriptors],
) -> None:
    """List the photos that a person should look at, in ``audit.csv``; nothing else depends on it.

    Test photos are among them: their labels may be wrong as well, and nothing is chosen by it.
    """
    coordinates = [head.train, head.validation, head.coordinates(labelled["test"])]
    found = find(
        [photo for split in SPLITS for photo in photos[split]],
        classes,
        np.concatenate(coordinates),
        np.concatenate([descriptors[split].rows for split in SPLITS]),
        head.solver,
    )
    write_findings(found, run.audit)
    counts = Counter(finding.finding for finding in found)
    say(
        f"worth a look, in {run.audit}: {counts['label']} labels that may be wrong, "
        f"{counts['stranger']} photos unlike all others"
    )


def calibrated_answers(config: TrainConfig, source: Source, divided_by: float = 1.0) -> Answers:
    """Fit on validation what answers need, then answer for it and, this once, for test."""
    last = config.stage_plan()[-1]
    model = source.describing(last)
    train = source.batches(last, "train")
    train.keep(references(targets_of(train.photos)).tolist())
    _, reference = outputs_of(model, train)

    logits: dict[Split, Float32s] = {}
    looked: dict[Split, list[Float32s]] = {}
    targets: dict[Split, Int32s] = {}
    for split in SPLITS[1:]:
        views = looks(mirrored=config.mirror)
        batches = [source.batches(last, split, view=view) for view in views]
        # As the served model does it: see ``mirror`` in app.model.
        outputs = [outputs_of(model, look) for look in batches]
        logits[split] = np.mean([each for each, _ in outputs], axis=0)
        looked[split] = [descriptors for _, descriptors in outputs]
        targets[split] = targets_of(batches[0].photos)
    temperature = fit_temperature(logits["validation"], targets["validation"], divided_by)
    probabilities = {s: probabilities_of(logits[s] / temperature) for s in SPLITS[1:]}
    strange = fit_novelty(reference, looked["validation"])
    return Answers(
        temperature,
        fit_min_confidence(probabilities["validation"], targets["validation"]),
        strange,
        probabilities,
        {split: strange.of(strange.distances(looked[split])) for split in SPLITS[1:]},
    )


def split_values(answers: Answers, split: Split, targets: Int32s) -> dict[str, Any]:
    """Return a split's part of ``metrics.json``."""
    probabilities, novelty = answers.probabilities[split], answers.novelty[split]
    given = (probabilities.max(axis=1) >= answers.min_confidence) & (novelty <= STRANGE)
    wrong = probabilities.argmax(axis=1) != targets
    return {
        **dataclasses.asdict(score(targets, probabilities)),
        "reliability": [dataclasses.asdict(b) for b in reliability_bins(targets, probabilities)],
        "answers": {
            "neither": float((novelty > STRANGE).mean()),
            "unsure": float((~given & (novelty <= STRANGE)).mean()),
            "given": float(given.mean()),
            "given_wrong": float(wrong[given].mean()) if given.any() else None,
        },
    }


def export(
    config: TrainConfig,
    model: keras.Model,
    classes: Sequence[str],
    validation: Sequence[Photo],
    answers: Answers,
    folder: Path,
) -> Parity:
    """Build the served model (float32, temperature inside) and write the bundle."""
    served = build_classifier(
        len(classes),
        image_size=config.image_size,
        backbone=config.backbone,
        temperature=answers.temperature,
        mirror=config.mirror,
        novelty=answers.strange,
    )
    copy_weights(model, served)
    return export_bundle(
        served,
        folder,
        classes=classes,
        image_size=config.image_size,
        temperature=answers.temperature,
        min_confidence=answers.min_confidence,
        photos=[View(photo, 0, config.seed) for photo in validation],
        trained=answers.of("validation"),
    )


def stage_values(result: StageResult) -> dict[str, Any]:
    """Return a stage's part of ``metrics.json``; its epochs are in ``history.csv``."""
    values = dataclasses.asdict(result)
    del values["history"]
    return values


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
