"""What a person's corrections were, and what they changed on validation, photo by photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.core.console import say
from app.core.errors import BundleError
from app.core.labels import NEITHER
from app.core.run_folder import Run
from app.core.run_metrics import CorrectionMetrics, PairedGain
from app.data.apply_corrections import confirms
from app.data.corrections import Corrections, Key
from app.data.manifest import ManifestRow, read_manifest
from app.evaluation.paired_tests import stage_gain
from app.evaluation.prediction_set import PredictionSet, read_predictions


def correction_metrics(
    run: Run, rows: Sequence[ManifestRow], corrections: Corrections, files: Sequence[Path]
) -> CorrectionMetrics:
    """Count the corrections of a run that was just trained, and compare it with the one before.

    Args:
        run: with its ``predictions.csv``.
        rows: of its manifest.
        corrections: that it was trained with.
        files: where they stood; a run that one of them lies in, the last of these, is that before.
    """
    # Photos of a class that is new may be moved to test; they have the label that a person gave.
    test = {_key(row) for row in rows if row.split == "test" and row.corrected != row.label}
    learned = {_key(row): row for row in rows if _key(row) not in test}
    said = {key: each for key, each in corrections.items() if each.decision != "skip"}
    found = CorrectionMetrics(
        relabelled=sum(row.corrected not in ("", NEITHER) for row in learned.values()),
        neither=sum(
            row.corrected == NEITHER and row.code != "left_out" for row in learned.values()
        ),
        left_out=sum(row.code == "left_out" for row in learned.values()),
        right=sum(key in said and confirms(said[key], row) for key, row in learned.items()),
        test=sum(key in test for key in said),
        others=sum(key not in test and key not in learned for key in said),
    )
    before = next((Run(f.parent) for f in reversed(files) if Run(f.parent).is_complete()), None)
    if before is None:
        return found
    try:
        validation = _paired(before, run, rows)
    except (BundleError, OSError, ValueError, KeyError, TypeError) as error:
        say(f"no comparison with {before.folder}: one of its files is damaged or missing ({error})")
        return found
    return replace(found, validation=validation)


def _paired(before: Run, run: Run, rows: Sequence[ManifestRow]) -> PairedGain | None:
    """Compare two runs on the validation photos of both, by content, by the labels of ``rows``."""
    classes = before.read_metrics().classes
    now = sorted({row.label for row in rows if row.verdict == "used"} - {NEITHER})
    if list(classes) != now:
        return None
    old = _by_content(read_predictions(before.predictions, "validation", classes), before)
    new = _by_content(read_predictions(run.predictions, "validation", classes), run)
    common = [sha for sha in new[1] if sha in old[1]]
    if not common:
        return None
    first, second = (each.chosen([places[sha] for sha in common]) for each, places in (old, new))
    targets = second.targets
    gain = stage_gain(first.probabilities, second.probabilities, targets)
    was, now_right = (int(np.sum(each.answers == targets)) for each in (first, second))
    return PairedGain(before.folder.resolve().name, len(common), was, now_right, gain)


def _key(row: ManifestRow) -> Key:
    return row.name, row.sha256


def _by_content(predicted: PredictionSet, run: Run) -> tuple[PredictionSet, dict[str, int]]:
    """Return the predictions, and the place of each photo by its SHA-256."""
    contents = {row.name: row.sha256 for row in read_manifest(run.manifest)}
    return predicted, {contents[name]: place for place, name in enumerate(predicted.names)}
