"""A review of training and validation photos: which of them are worth checking by a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from app.core.console import percent, say
from app.core.run_folder import Run
from app.data.manifest import Photo, Photos
from app.evaluation.findings import (
    Finding,
    OutOfFoldAnswer,
    write_findings,
    write_out_of_fold,
)
from app.evaluation.label_issues import SURE, find_label_issues
from app.evaluation.metrics import Floats, Ints
from app.evaluation.ood import distances_to_others
from app.features.batches import Float32s
from app.inference.wording import percentage
from app.training.linear_probe import LinearProbe

MANY_UNSURE = 0.2  # from this share of photos on it is said that nothing can be told of them
OUTLIERS_SHARE = 0.01  # listed: this share of the photos,
FEWEST_OUTLIERS, FEW_SHARE = 20, 0.1  # but at least 20 of 200 or more, and a tenth of fewer


def review(photos: Photos, classes: Sequence[str], probe: LinearProbe, run: Run) -> None:
    """List the photos worth checking in ``audit.csv``, and all out-of-fold answers.

    Nothing else of the run depends on either.

    Args:
        photos: of the splits that have projections.
        classes: names by number.
        probe: the solved head, with its out-of-fold answers.
        run: that gets the lists.
    """
    learned = [*photos["train"], *photos["validation"]]
    embeddings = np.concatenate([probe.train.embeddings, probe.validation.embeddings])
    found = find(learned, classes, embeddings, probe.out_of_fold)
    write_findings(found, run.audit)
    if probe.out_of_fold is not None:
        write_out_of_fold(_answers(learned, classes, probe.out_of_fold), run.out_of_fold)
    counts = Counter(finding.finding for finding in found)
    say(
        f"photos worth checking, in {run.audit}: {counts['label']} look like another class, "
        f"{counts['outlier']} are unlike all others; most are hard, not wrong"
    )
    if line := cannot_tell(probe.out_of_fold):
        say(line)


def _answers(
    photos: Sequence[Photo], classes: Sequence[str], probabilities: Floats
) -> Iterator[OutOfFoldAnswer]:
    for photo, row in zip(photos, probabilities, strict=True):
        likely = int(row.argmax())
        yield OutOfFoldAnswer(
            photo.name,
            classes[photo.target],
            classes[likely],
            float(row[likely]),
            float(row[photo.target]),
        )


def cannot_tell(out_of_fold: Floats | None) -> str:
    """Say for how many photos no label can be doubted; empty where these are few."""
    if out_of_fold is None:
        return "no label is doubted: a class has too few photos for folds"
    unsure = int((out_of_fold.max(axis=1) < SURE).sum())
    if unsure < MANY_UNSURE * len(out_of_fold):
        return ""
    return (
        f"for {unsure} of {len(out_of_fold)} photos the linear probe cannot tell whether the label "
        f"is wrong: it gives no class {percent(SURE)} or more"
    )


def find(
    photos: Sequence[Photo],
    classes: Sequence[str],
    embeddings: Float32s,
    out_of_fold: Floats | None,
) -> list[Finding]:
    """Return both lists, each from its first place downwards.

    Args:
        photos: of training and validation.
        classes: names by number.
        embeddings: of these photos (``app.evaluation.ood``).
        out_of_fold: probabilities ``(n, classes)`` by models that did not learn from them; None
            where a class has too few photos for folds: no label is doubted then.
    """
    issues: list[Finding] = []
    if out_of_fold is not None:
        targets = np.array([photo.target for photo in photos])
        issues = _label_issues(photos, classes, out_of_fold, targets)
    return issues + _outliers(photos, distances_to_others(embeddings))


def _label_issues(
    photos: Sequence[Photo], classes: Sequence[str], probabilities: Floats, targets: Ints
) -> list[Finding]:
    return [
        Finding(
            photos[issue.number].name,
            "label",
            rank,
            -issue.margin,
            f"labelled {classes[targets[issue.number]]}; a model that never saw it says "
            f"{classes[issue.likely]} ({percentage(issue.probability)})",
        )
        for rank, issue in enumerate(find_label_issues(probabilities, targets), start=1)
    ]


def _outliers(photos: Sequence[Photo], distances: Floats) -> list[Finding]:
    fewest = min(FEWEST_OUTLIERS, round(FEW_SHARE * len(photos)))
    count = max(fewest, round(OUTLIERS_SHARE * len(photos)))
    usual = float(np.median(distances))
    return [
        Finding(
            photos[number].name,
            "outlier",
            rank,
            float(distances[number]),
            f"distance {distances[number]:.3f} to the most similar photos; {usual:.3f} is usual",
        )
        for rank, number in enumerate(np.argsort(-distances, kind="stable")[:count], start=1)
    ]
