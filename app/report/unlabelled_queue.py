"""The photos of a folder without labels that a person should label first.

In the order of ``app.evaluation.label_next``. What a run's model has learned from counts as
labelled, so that photos like these wait; so does what a person has decided about already. Without a
run nothing has a label yet: the pretrained backbone alone looks at the photos, and typical ones
come first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.core.config import read_config
from app.core.console import heeding_ctrl_c, progress_bar, quiet_native_stderr, say
from app.core.errors import ImageError, UsageError
from app.core.labels import NEITHER
from app.core.run_folder import Run, check_complete
from app.data.corrections import read_all_corrections
from app.data.folder_layout import files_below
from app.data.folder_names import is_photo_name
from app.data.manifest import ManifestRow, read_manifest
from app.evaluation.label_next import FEW_LABELS, label_next
from app.inference.embedder import EmbeddedPhoto, Embedder


@dataclass(frozen=True)
class UnlabelledItem:
    """One photo to label.

    Attributes:
        place: in the queue, from 1.
        name: relative to the run's data folder where it lies in it, else its whole path; without a
            run relative to the folder asked for.
        sha256: of its bytes; with ``name`` what ``CorrectionsLog.decide`` takes.
        likeliest: the class that the run's model thinks it shows; empty without a run.
        probability: of that class, 0 to 1; None without a run.
        novelty: 0 to 1; above 0.5 it is unlike all that the model learned from; None without a run.
    """

    place: int
    name: str
    sha256: str
    likeliest: str = ""
    probability: float | None = None
    novelty: float | None = None


def unlabelled_queue(run: Run, folder: Path, count: int) -> list[UnlabelledItem]:
    """Return the photos of a folder whose labels would teach a run's model most.

    Photos that the run has a label for are not listed, nor those that a person has decided about,
    in this run's review or in one that this run was trained with.

    Args:
        run: a finished one.
        folder: of the photos, in it or below, in the run's data folder or elsewhere; it is only
            read.
        count: how many are wanted.

    Raises:
        UsageError: when there is no such folder, no photo in it, or nothing is wanted.
        BundleError: when the run's bundle is missing or damaged.
    """
    check_complete(run)
    folder = folder.resolve()
    paths = _paths(folder, count)
    embedder = Embedder(run.bundle)
    photos = _looked_at(embedder.look(paths), folder, len(paths))
    rows = read_manifest(run.manifest)
    data = read_config(run.config, exact=False).data.resolve()
    names = [_name(photo, data) for photo in photos]
    waiting = _waiting(run, rows, names, photos)
    known, classes = len(embedder.reference), embedder.bundle.classes
    labels = Counter(
        row.label
        for row in rows
        if row.verdict == "used" and row.split == "train" and row.label != NEITHER
    )
    answers = np.array([photo.probabilities for photo in photos])
    chosen = label_next(
        np.concatenate([embedder.reference, [photo.embedding for photo in photos]]),
        np.concatenate([np.arange(known), known + np.flatnonzero(~waiting)]),
        count,
        None
        if min(labels.values()) < FEW_LABELS
        else np.concatenate([np.zeros((known, len(classes))), answers]),
    )
    return [
        UnlabelledItem(
            place,
            names[number],
            photos[number].sha256,
            classes[int(answers[number].argmax())],
            float(answers[number].max()),
            photos[number].novelty,
        )
        for place, number in enumerate((chosen - known).tolist(), start=1)
    ]


def _waiting(
    run: Run, rows: Iterable[ManifestRow], names: Iterable[str], photos: Iterable[EmbeddedPhoto]
) -> NDArray[np.bool_]:
    """Return which photos ``(n,)`` have neither a label nor a decision."""
    decided = read_all_corrections(
        path for path in (run.applied, run.corrections) if path.is_file()
    )
    labelled = {row.sha256 for row in rows if row.verdict == "used"}
    return np.array(
        [
            photo.sha256 not in labelled and (name, photo.sha256) not in decided
            for name, photo in zip(names, photos, strict=True)
        ]
    )


def first_queue(folder: Path, count: int, weights: str | None = None) -> list[UnlabelledItem]:
    """Return the photos of a folder to label first, where none has a label yet.

    Args:
        folder: as for ``unlabelled_queue``.
        count: likewise.
        weights: of the backbone: a file, ``none`` for random ones, None to find the official ones.

    Raises:
        UsageError: as ``unlabelled_queue``.
        WeightsError: when the pretrained weights cannot be found.
    """
    folder = folder.resolve()
    paths = _paths(folder, count)
    say("Starting Keras")
    with heeding_ctrl_c(), quiet_native_stderr():
        from app.features.backbone_embedder import BackboneEmbedder  # brings Keras

    photos = _looked_at(BackboneEmbedder(weights).look(paths), folder, len(paths))
    embeddings = np.array([photo.embedding for photo in photos])
    chosen = label_next(embeddings, np.empty(0, np.int64), count)
    return [
        UnlabelledItem(place, _name(photos[number], folder), photos[number].sha256)
        for place, number in enumerate(chosen.tolist(), start=1)
    ]


def _paths(folder: Path, count: int) -> list[Path]:
    """Return the files of a folder that may be photos."""
    if count < 1:
        raise UsageError(f"expected --count of 1 or more; received {count}")
    if not isdir(folder):
        raise UsageError(f"expected a folder of photos; received {folder}, which is none")
    return [path for path in files_below(folder) if is_photo_name(path.name)]


def _looked_at(
    looks: Iterable[EmbeddedPhoto | ImageError], folder: Path, files: int
) -> list[EmbeddedPhoto]:
    """Return the photos that could be read, and say how many could not."""
    photos: list[EmbeddedPhoto] = []
    with progress_bar() as bar:
        task = bar.add_task("Looking at photos", total=files)
        for found in looks:
            if not isinstance(found, ImageError):
                photos.append(found)
            bar.advance(task)
    if not photos:
        raise UsageError(
            f"expected a folder of photos; received {folder} with {files} files that could be "
            "some, none of which can be read"
        )
    if refused := files - len(photos):
        say(f"{refused} of {files} files cannot be read as photos")
    return photos


def _name(photo: EmbeddedPhoto, base: Path) -> str:
    """Return a photo's path below a folder, or its whole path where it lies elsewhere."""
    path = photo.path
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
