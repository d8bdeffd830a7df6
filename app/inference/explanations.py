"""``predict.py --explain``: a folder of heat maps, one for each photo that was answered."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, count
from os.path import exists, isdir
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from app.core.atomic_files import whole
from app.core.errors import ImageError, UsageError
from app.core.safe_output import GENERATOR
from app.data.decode import read_image, resize
from app.inference.heatmap import contrastive_cam, overlay
from app.inference.prediction import Prediction
from app.inference.predictor import Classifier

ENDING = ".heat.png"
LONGEST_NAME = 150  # characters kept of a photo's name: 255 bytes are the most for a file's
NOT_FILES = {"thumbs.db", "desktop.ini"}  # what systems put into folders; hidden ones besides


class Explanations:
    """Writes ``<name>.heat.png`` for answers, into a folder that holds nothing else.

    Args:
        folder: made if missing. Maps that an earlier call left for photos of the same names are
            replaced, others stay.
        asked: the files and folders that were asked about: the maps must not lie among them, or
            they would be taken for photos the next time.

    Raises:
        UsageError: when the folder holds anything else, lies among the photos, or cannot be
            written.
    """

    def __init__(self, folder: Path, asked: Iterable[str] = ()) -> None:
        self.folder = folder
        self._written: set[str] = set()
        if exists(folder) and not isdir(folder):
            raise UsageError(
                f"expected a folder for heat maps; received {folder}, a file; name another"
            )
        for name in asked:
            if isdir(name) and folder.resolve().is_relative_to(Path(name).resolve()):
                raise UsageError(
                    f"expected a folder for heat maps outside of {name}, whose photos are asked "
                    f"about; received {folder}; name another"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [path.name for path in folder.iterdir() if not _is_ours(path)]
        except OSError as error:
            raise self._unwritable(error) from error
        if others:
            raise UsageError(
                f"expected a new folder for heat maps, or one that holds nothing else; received "
                f"{folder}, which holds {min(others)!r}; name another"
            )

    def write(self, classifier: Classifier, answer: Prediction) -> Path | None:
        """Write why a photo is likeliest what it is said to be; None for a file without an answer.

        Raises:
            UsageError: when the folder cannot be written, or another program's picture has the
                name of the map.
            ImageError: when the photo was changed since it was answered, and is none any more.
        """
        if answer.likeliest is None:
            return None
        try:
            pixels = read_image(Path(answer.path))
        except ImageError as error:
            raise ImageError(f"{answer.path}: no heat map, {error}") from error
        (maps,) = classifier.activation_maps(resize(pixels, classifier.bundle.image_size)[None])
        number = classifier.bundle.classes.index(answer.likeliest[0])
        path = self.folder / self._free_name(Path(answer.path).name)
        if exists(path) and not _is_heat_map(path):
            raise UsageError(
                f"expected heat maps only in {self.folder}; received {path.name}, which this "
                "program has not written; name another folder"
            )
        try:
            with whole(path) as temporary:
                picture = overlay(pixels, contrastive_cam(maps, number))
                picture.save(temporary, "PNG", pnginfo=_mark())
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def _free_name(self, name: str) -> str:
        """Return a name for the heat map of a file; of the same name in other folders, numbered."""
        name = name[-LONGEST_NAME:]
        while len(os.fsencode(name)) > LONGEST_NAME:  # letters of several bytes
            name = name[1:]
        numbered = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(n for n in numbered if n.casefold() not in self._written)
        self._written.add(free.casefold())
        return free + ENDING

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"expected a folder for heat maps; received {self.folder} "
            f"({error.strerror or error}); name another"
        )


def _is_ours(path: Path) -> bool:
    """Say whether something in the folder is a heat map, or nothing that a person put there."""
    name = path.name
    hidden = name.startswith(".") or name.lower() in NOT_FILES
    return path.is_file() and (hidden or name.endswith(ENDING))


def _mark() -> PngInfo:
    """Return what makes a heat map known as ours, in its first bytes."""
    result = PngInfo()
    result.add_text("Software", GENERATOR)
    return result


def _is_heat_map(path: Path) -> bool:
    """Say whether this program wrote a picture, which may then be replaced."""
    with suppress(OSError), path.open("rb") as file:
        return f"tEXtSoftware\0{GENERATOR}".encode() in file.read(200)
    return False
