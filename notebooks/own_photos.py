"""The photos of ``notebooks/1_transfer_learning.py``: from a folder, or drawn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from lesson import OWN_PHOTOS, PHOTOS_VARIABLE, named_folder, whole_photos
from numpy.typing import NDArray

from app.core.errors import DataError
from app.core.labels import NEITHER
from app.data.decode import Pixels, load_image
from app.data.folder_layout import LabelledFile, data_folder, find_files
from app.data.sets.synthetic_pets import draw_sample

SHOWN_VARIABLE = "CATS_DOGS_SHOWN"  # a folder whose photos the pictures show instead
FEWEST = 10  # photos of each class: 5 to learn from and 5 to ask about
DRAWN = 40  # drawings of each kind, where there are no photos
MOST_SHOWN = 40  # photos of each class: so many features are computed twice

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Photos:
    """Photos of one purpose, those of the first class first.

    Attributes:
        pixels: uint8, ``(n, size, size, 3)``, RGB.
        labels: the number of each photo's class, ``(n,)``.
        classes: the names of the classes, sorted.
    """

    pixels: Pixels
    labels: Ints
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """The name of each photo's class."""
        return [self.classes[label] for label in self.labels]


def load_photos(
    folder: str | Path = "", *, size: int = 160, per_class: int = 200
) -> tuple[Photos, Photos, Photos]:
    """Read a folder of photos as ``train.py`` does, for a lesson: some to learn from, some to ask.

    Without a folder it takes the one that ``CATS_DOGS_PHOTOS`` names, then ``data/small``, then
    drawings. Test photos are left alone.

    Args:
        folder: a folder for each class inside it, or any other layout that ``train.py`` reads.
        size: height and width in pixels.
        per_class: at most so many photos of each class are read, half of them to learn from.

    Returns:
        Train photos, validation photos, and those that may be shown: up to 40 of each class of
        both, or the photos of the folder that ``CATS_DOGS_SHOWN`` names.

    Raises:
        DataError: when there are fewer than two classes, or fewer than 10 photos of one.
        UsageError: when there is no such folder.
    """
    given = str(folder) or os.environ.get(PHOTOS_VARIABLE, "")
    project = Path(__file__).resolve().parents[1]
    root = named_folder(given, project) if given else project / OWN_PHOTOS
    with tempfile.TemporaryDirectory() as sketchbook:
        if not given and not root.is_dir():
            root = Path(sketchbook) / "drawn"
            draw_sample(root, per_class=DRAWN)
        with data_folder(root) as data:
            train, validation = _read(data, given or str(root), size, per_class // 2)
    named = os.environ.get(SHOWN_VARIABLE)
    if named:
        return train, validation, _shown(named_folder(named, project), size, train.classes)
    pixels = np.concatenate([train.pixels, validation.pixels])
    labels = np.concatenate([train.labels, validation.labels])
    every = range(len(train.classes))
    order = np.concatenate([np.flatnonzero(labels == label)[:MOST_SHOWN] for label in every])
    return train, validation, Photos(pixels[order], labels[order], train.classes)


def _read(root: Path, name: str, size: int, half: int) -> tuple[Photos, Photos]:
    files = [file for file in find_files(root) if file.label != NEITHER and file.split != "test"]
    classes = tuple(sorted({file.label for file in files}))
    if len(classes) < 2:
        raise DataError(
            f"expected photos of two classes or more in {name}; received "
            f"{', '.join(classes) or 'none'}; make one folder for each class"
        )
    parts: tuple[list[list[Pixels]], list[list[Pixels]]] = ([], [])
    for label in classes:
        own = [file for file in files if file.label == label]
        for part, pixels in zip(parts, _halves(own, label, name, size, half), strict=True):
            part.append(pixels)
    train, validation = (
        Photos(
            np.stack([one for own in part for one in own]),
            np.repeat(np.arange(len(classes)), [len(own) for own in part]),
            classes,
        )
        for part in parts
    )
    return train, validation


def _halves(
    files: Sequence[LabelledFile], label: str, name: str, size: int, half: int
) -> tuple[list[Pixels], list[Pixels]]:
    """Read one class: its own validation photos if it has some, else every second photo."""
    given = [file for file in files if file.split == "validation"]
    rest = [file for file in files if file.split != "validation"]
    if given:
        both = [_pixels(rest, size, half), _pixels(given, size, half)]
    else:
        read = _pixels(rest, size, 2 * half)
        both = [read[0::2], read[1::2]]
    found = sum(map(len, both))
    if found < FEWEST or not both[0] or not both[1]:
        raise DataError(
            f"expected at least {FEWEST} photos of {label} in {name}; received {found}; add some, "
            'or leave PHOTOS = "" for drawings'
        )
    return both[0], both[1]


def _pixels(files: Sequence[LabelledFile], size: int, most: int) -> list[Pixels]:
    return [load_image(photo.path, size) for photo in islice(whole_photos(files, 0), most)]


def _shown(root: Path, size: int, classes: tuple[str, ...]) -> Photos:
    files = [file for file in find_files(root) if file.label in classes]
    if {file.label for file in files} != set(classes):
        raise DataError(
            f"expected photos of {', '.join(classes)} in {root}; received "
            f"{', '.join(sorted({file.label for file in files})) or 'none of them'}; "
            f"name another folder in {SHOWN_VARIABLE}"
        )
    labels = np.array([classes.index(file.label) for file in files])
    order = np.argsort(labels, kind="stable")
    pixels = np.stack([load_image(files[place].path, size) for place in order])
    return Photos(pixels, labels[order], classes)
