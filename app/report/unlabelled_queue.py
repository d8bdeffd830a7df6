"""The photos of a folder without labels that a person should label first.

In the order of ``app.evaluation.label_next``: what the run's model has learned from counts as
labelled, so that photos like these wait.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

import numpy as np

from app.core.config import read_config
from app.core.console import progress_bar, say
from app.core.errors import ImageError, UsageError
from app.core.labels import NEITHER
from app.core.run_folder import Run, check_complete
from app.data.folder_layout import files_below
from app.data.folder_names import is_photo_name
from app.data.manifest import read_manifest
from app.evaluation.label_next import FEW_LABELS, label_next
from app.inference.embedder import EmbeddedPhoto, Embedder


@dataclass(frozen=True)
class UnlabelledItem:
    """One photo to label.

    Attributes:
        place: in the queue, from 1.
        name: relative to the run's data folder where it lies in it, else to the folder asked for.
        sha256: of its bytes; with ``name`` what ``CorrectionsLog.decide`` takes.
        likeliest: the class that the model thinks it shows.
        probability: of that class, 0 to 1.
        novelty: 0 to 1; above 0.5 it is unlike all that the model learned from.
    """

    place: int
    name: str
    sha256: str
    likeliest: str
    probability: float
    novelty: float


def unlabelled_queue(run: Run, folder: Path, count: int) -> list[UnlabelledItem]:
    """Return the photos of a folder to label first; files that are no photos are counted.

    Args:
        run: a finished one, whose model looks at them.
        folder: of the photos, in it or below; it is only read.
        count: how many are wanted.

    Raises:
        UsageError: when there is no such folder, no photo in it, or nothing is wanted.
        BundleError: when the run's bundle is missing or damaged.
    """
    check_complete(run)
    if count < 1:
        raise UsageError(f"expected --count of 1 or more; received {count}")
    if not isdir(folder):
        raise UsageError(f"expected a folder of photos; received {folder}, which is none")
    paths = [path for path in files_below(folder) if is_photo_name(path.name)]
    embedder = Embedder(run.bundle)
    photos: list[EmbeddedPhoto] = []
    with progress_bar() as bar:
        task = bar.add_task("Looking at photos", total=len(paths))
        for found in embedder.look(paths):
            if not isinstance(found, ImageError):
                photos.append(found)
            bar.advance(task)
    if refused := len(paths) - len(photos):
        say(f"{refused} of {len(paths)} files cannot be read as photos")
    if not photos:
        raise UsageError(
            f"expected a folder of photos; received {folder} with {len(paths)} files that could be "
            "some, none of which can be read"
        )
    data = read_config(run.config, exact=False).data
    base = data if folder.resolve().is_relative_to(data.resolve()) else folder
    classes = embedder.bundle.classes
    return [
        UnlabelledItem(
            place,
            photo.path.resolve().relative_to(base.resolve()).as_posix(),
            photo.sha256,
            classes[int(photo.probabilities.argmax())],
            float(photo.probabilities.max()),
            photo.novelty,
        )
        for place, photo in enumerate(_ordered(run, embedder, photos, count), start=1)
    ]


def _ordered(
    run: Run, embedder: Embedder, photos: list[EmbeddedPhoto], count: int
) -> list[EmbeddedPhoto]:
    known = len(embedder.reference)
    labels = Counter(
        row.label
        for row in read_manifest(run.manifest)
        if row.verdict == "used" and row.split == "train" and row.label != NEITHER
    )
    probabilities = np.stack([photo.probabilities for photo in photos])
    chosen = label_next(
        np.concatenate([embedder.reference, [photo.embedding for photo in photos]]),
        np.arange(known),
        count,
        None
        if min(labels.values()) < FEW_LABELS
        else np.concatenate([np.zeros((known, probabilities.shape[1])), probabilities]),
    )
    return [photos[number - known] for number in chosen.tolist()]
