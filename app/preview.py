"""What corrections would change, in seconds: the head is solved again on the cached features.

Nothing is exported, and no test photo is looked at, so it may be asked as often as one likes. The
two heads that are compared differ in labels alone: same photos, features, space and strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.core.config import TrainConfig, read_config
from app.core.errors import DataError
from app.core.run_folder import Run
from app.core.run_metrics import Metrics, PairedGain
from app.data.apply_corrections import corrected_row
from app.data.corrections import Corrections
from app.data.folder_layout import data_folder
from app.data.manifest import (
    ManifestRow,
    Photos,
    photos_of,
    read_manifest,
    training_photos_before_corrections,
)
from app.data.splits import class_weights
from app.evaluation.metrics import Floats, Ints, probabilities_of
from app.evaluation.paired_tests import stage_gain
from app.experiment_setup import set_up
from app.training.linear_probe import STRENGTHS, Search, fit_linear_probe

LEFT_OUT = -1  # in place of a class's number


def preview_corrections(run: Run, corrections: Corrections) -> PairedGain:
    """Return how a run's head would answer the validation photos if its labels were corrected.

    Args:
        run: a finished one, whose photos are where they were.
        corrections: by name and content. What they leave out, or call ``neither``, is not used.

    Raises:
        AppError: when a file of the run is missing or damaged, or the features have no room.
        DataError: when a correction names a class that the run does not have, or leaves a class
            without photos.
    """
    config, metrics = read_config(run.config, exact=False), run.read_metrics()
    config = replace(config, runs=run.folder.resolve().parent)
    rows = read_manifest(run.manifest)
    classes = metrics.classes
    with data_folder(config.data) as root:
        train, validation = photos_of(rows, "train", root), photos_of(rows, "validation", root)
        scales = training_photos_before_corrections(rows, root)
        photos: Photos = {"train": train, "validation": validation}
        setup = set_up(config, len(classes), photos, [], scales)
        probe = fit_linear_probe(
            setup.model,
            config.stage_plan()[0],
            setup.source.labelled("train"),
            setup.source.labelled("validation"),
            [_strength(config, metrics)],
            cross_validate=False,
        )
    given = [np.array([photo.target for photo in some]) for some in (train, validation)]
    changed = _corrected(rows, corrections, classes)
    said = [
        np.array([changed.get(photo.name, photo.target) for photo in some])
        for some in (train, validation)
    ]
    kept = said[1] != LEFT_OUT
    if set(said[0].tolist()) - {LEFT_OUT} != set(range(len(classes))) or not kept.any():
        raise DataError(
            "expected photos of every class in training, and some in validation; received "
            "corrections that leave none of one; take some of them back"
        )
    x = probe.train.coordinates, probe.validation.coordinates
    strength = _strength(config, metrics)
    before, after = (_answers(x, labels, strength, classes)[kept] for labels in (given, said))
    truth = said[1][kept]
    return PairedGain(
        run.folder.resolve().name,
        int(kept.sum()),
        int((before.argmax(axis=1) == truth).sum()),
        int((after.argmax(axis=1) == truth).sum()),
        stage_gain(before, after, truth),
    )


def _strength(config: TrainConfig, metrics: Metrics) -> float:
    """Return the strength of regularisation that the run's head was solved with."""
    if config.head_strength is not None:
        return config.head_strength
    return float(STRENGTHS[metrics.stages[0].kept_epoch - 1])


def _corrected(
    rows: Sequence[ManifestRow], corrections: Corrections, classes: Sequence[str]
) -> dict[str, int]:
    """Return the photos that corrections change: name → number of the class, or ``LEFT_OUT``."""
    numbers = {name: number for number, name in enumerate(classes)}
    found = {}
    for row in rows:
        correction = corrections.get((row.name, row.sha256))
        if correction is None or row.verdict != "used" or row.split == "test":
            continue
        new = corrected_row(row, correction)
        if correction.decision == "class" and new.label not in numbers:
            raise DataError(
                f"expected classes of the run ({', '.join(classes)}) for a look ahead; received "
                f"{new.label!r} for {row.name!r}; train.py --corrections learns a new class"
            )
        if new != row:
            found[row.name] = (
                numbers.get(new.label, LEFT_OUT) if new.verdict == "used" else LEFT_OUT
            )
    return found


def _answers(
    x: tuple[Floats, Floats], labels: Sequence[Ints], strength: float, classes: Sequence[str]
) -> Floats:
    """Return probabilities ``(n, classes)`` of the validation photos by a head of these labels."""
    (train, validation), used = x, [each != LEFT_OUT for each in labels]
    weights = class_weights(classes[number] for number in labels[0][used[0]])
    by_number = {n: weights[name] for n, name in enumerate(classes)} if weights else None
    learned = train[used[0]], labels[0][used[0]]
    judged = validation[used[1]], labels[1][used[1]]
    (trial,) = Search(learned, judged, learned, [], by_number).solve([strength])
    return probabilities_of(validation @ trial.coefficients + trial.intercept)
