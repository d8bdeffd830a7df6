"""What ``notebooks/2_vgg16_in_depth.py`` works on: how much, which photos, which weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import escape

from app.core.errors import DataError, ImageError, WeightsError
from app.core.labels import NEITHER
from app.core.sanitise import shown
from app.data.decode import Pixels, decode, load_image
from app.data.folder_layout import LabelledFile, Split, find_files
from app.data.manifest import Photo
from app.data.photo_file import read_bytes
from app.data.sets.synthetic_pets import draw_sample
from app.network.pretrained_weights import Weights, load_weights, set_weights
from app.report.html import Parts

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

PHOTOS_VARIABLE = "CATS_DOGS_PHOTOS"  # a folder as --data takes it
WEIGHTS_VARIABLE = "CATS_DOGS_WEIGHTS"  # as --weights: a file, or none
SMALL_VARIABLE = "CATS_DOGS_SMALL"  # anything but nothing: the small settings
OWN_PHOTOS = Path("data") / "small"  # where ``app.data.sets.fetch small data/small`` puts them


@dataclass(frozen=True)
class Settings:
    """How much the notebook computes: so much that two cores of a laptop need some minutes.

    Attributes:
        train: photos of each class to train on.
        validation: others of each class to ask about.
        scratch_train: of ``train``, those that the networks from random weights see.
        scratch_size: height and width in pixels for these networks.
        scratch_steps: steps of training of each.
        transfer_size: height and width in pixels for the pretrained network.
        photos: a folder as ``--data`` takes it; empty: the one that ``CATS_DOGS_PHOTOS`` names.
    """

    train: int = 100
    validation: int = 100
    scratch_train: int = 64
    scratch_size: int = 64
    scratch_steps: int = 112
    transfer_size: int = 160
    photos: str = ""


# For a test that every cell runs: nothing is learned well.
SMALL = Settings(
    train=16,
    validation=8,
    scratch_train=16,
    scratch_size=32,
    scratch_steps=8,
    transfer_size=64,
)


@dataclass(frozen=True)
class LessonPhotos:
    """Photos to learn from and others to ask about.

    Attributes:
        splits: ``"train"`` and ``"validation"``; in each the first class comes first.
        classes: the two names, sorted.
        drawn: whether they are drawings of ``app.data.sets.synthetic_pets``.
    """

    splits: Mapping[Split, list[Photo]]
    classes: tuple[str, ...]
    drawn: bool

    def pixels(
        self, split: Split, size: int, each: int | None = None
    ) -> tuple[Pixels, NDArray[np.int64]]:
        """Read the photos of a split, or the first ``each`` of either class.

        Returns:
            uint8 ``(n, size, size, 3)``, RGB; the number of each photo's class, ``(n,)``.
        """
        chosen = self.splits[split]
        half = len(chosen) // 2
        chosen = chosen[: each or half] + chosen[half:][: each or half]
        targets = np.array([photo.target for photo in chosen])
        return np.stack([load_image(photo.path, size) for photo in chosen]), targets


@dataclass(frozen=True)
class LessonWeights:
    """The ImageNet weights, if there are any; ``bool`` says whether.

    Attributes:
        found: the weights.
        reason: why there are none.
    """

    found: Weights | None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.found is not None

    def put_into(self, model: keras.Model) -> None:
        """Put the weights into the convolutions of a network; without weights, do nothing."""
        if self.found is not None:
            set_weights(model, self.found)


def chosen_settings(photos: str = "") -> Settings:
    """Return the small settings where ``CATS_DOGS_SMALL`` is set, else the real ones."""
    return replace(SMALL if os.environ.get(SMALL_VARIABLE) else Settings(), photos=photos)


def lesson_photos(project: Path, settings: Settings, sketchbook: Path) -> LessonPhotos:
    """Take the first photos of the settings' folder, or of that which ``CATS_DOGS_PHOTOS`` names.

    Without it those of ``data/small``; where that is not there either, drawings.

    Args:
        project: the folder of the checkout.
        settings: how many photos are wanted.
        sketchbook: a folder that does not exist yet, for the drawings.

    Raises:
        DataError: when the folder does not hold enough whole photos of two classes.
    """
    named = settings.photos or os.environ.get(PHOTOS_VARIABLE)
    root = named_folder(named, project) if named else project / OWN_PHOTOS
    drawn = not named and not root.is_dir()
    if drawn:
        root = sketchbook
        draw_sample(root, per_class=settings.train + settings.validation)
    files = [file for file in find_files(root) if file.label != NEITHER]
    classes = tuple(sorted({file.label for file in files}))
    if len(classes) != 2:
        raise DataError(
            f"expected photos of two classes in {root}; received {', '.join(classes)}; "
            f"name another folder in {PHOTOS_VARIABLE}"
        )
    splits: dict[Split, list[Photo]] = {"train": [], "validation": []}
    for target, label in enumerate(classes):
        own = [file for file in files if file.label == label]
        given = [file for file in own if file.split == "validation"]
        rest = whole_photos((f for f in own if f.split in ("train", None)), target)
        splits["train"] += _some(rest, settings.train, root, label)
        asked = whole_photos(given, target) if given else rest  # those that are left
        splits["validation"] += _some(asked, settings.validation, root, label)
    return LessonPhotos(splits, classes, drawn)


def named_folder(name: str, project: Path) -> Path:
    """Return the folder of a name, from the current folder or else from the project's.

    Jupyter runs a notebook in the notebook's folder; a terminal is mostly in the project's.
    """
    here = Path(name).expanduser()
    return here if here.exists() else project / here


def whole_photos(files: Iterable[LabelledFile], target: int) -> Iterator[Photo]:
    """Yield the files that decode; what does not is left out."""
    for file in files:
        try:
            data = read_bytes(file.path)
            decode(data)
        except ImageError:
            continue
        yield Photo(file.path, file.name, sha256(data).hexdigest(), target)


def lesson_weights() -> LessonWeights:
    """Return the ImageNet weights as ``CATS_DOGS_WEIGHTS`` says, or why there are none."""
    source = os.environ.get(WEIGHTS_VARIABLE)
    if source == "none":
        return LessonWeights(None, f"{WEIGHTS_VARIABLE} says none")
    try:
        return LessonWeights(load_weights("vgg16", source))
    except WeightsError as error:
        return LessonWeights(None, str(error))


def _some(photos: Iterator[Photo], wanted: int, root: Path, label: str) -> list[Photo]:
    found = list(islice(photos, wanted))
    if len(found) < wanted:
        raise DataError(
            f"expected {wanted} more photos of {label} in {root}; received {len(found)}; "
            f"name a larger folder in {PHOTOS_VARIABLE}"
        )
    return found


@dataclass(frozen=True)
class Table:
    """A table; numbers stand right, words left, by the type of the first row's cells.

    Where the first title is empty, the first column names the rows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def _repr_html_(self) -> str:
        return str(Parts("parts.html.j2").table(self.header, self.rows))

    def __repr__(self) -> str:
        return f"a table of {len(self.rows)} rows"


@dataclass(frozen=True)
class Words:
    """A paragraph made of data."""

    text: str

    def _repr_html_(self) -> str:
        text = shown(" ".join(self.text.split())).replace(" %", "\xa0%")
        return f"<p>{escape(text)}</p>"

    def __repr__(self) -> str:
        return shown(self.text)
