"""``predict.py --explain``: a folder of heat maps, one for each photo that was answered."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path

from app.answer import Answer
from app.atomic import whole
from app.errors import UsageError
from app.heat import evidence, overlay
from app.images import read_image, resize
from app.inference import Classifier
from app.paths import exists, is_folder

ENDING = ".heat.png"


class Explanations:
    """Writes ``<name>.heat.png`` for answers, into a folder that holds nothing else.

    Args:
        folder: made if missing; heat maps of an earlier call are replaced.

    Raises:
        UsageError: when the folder holds anything else, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: set[str] = set()
        if exists(folder) and not is_folder(folder):
            raise UsageError(
                f"expected a folder for heat maps; received {folder}, a file; name another"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [path.name for path in folder.iterdir() if not path.name.endswith(ENDING)]
        except OSError as error:
            raise self._unwritable(error) from error
        if others:
            raise UsageError(
                f"expected a new folder for heat maps, or one that holds nothing else; received "
                f"{folder}, which holds {min(others)!r}; name another"
            )

    def write(self, classifier: Classifier, answer: Answer) -> Path | None:
        """Write why a photo is likeliest what it is said to be; None for a file without an answer.

        Raises:
            UsageError: when the folder cannot be written.
            ImageError: when the photo was changed since it was answered, and is none any more.
        """
        if answer.likeliest is None:
            return None
        pixels = read_image(Path(answer.path))
        (maps,) = classifier.activation_maps(resize(pixels, classifier.bundle.image_size)[None])
        number = classifier.bundle.classes.index(answer.likeliest[0])
        path = self.folder / self._free_name(Path(answer.path).name)
        try:
            with whole(path) as temporary:
                overlay(pixels, evidence(maps, number)).save(temporary, "PNG")
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def _free_name(self, name: str) -> str:
        """Return a name for the heat map of a file; of the same name in other folders, numbered."""
        numbered = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(n for n in numbered if n.casefold() not in self._written)
        self._written.add(free.casefold())
        return free + ENDING

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"expected a folder for heat maps; received {self.folder} "
            f"({error.strerror or error}); name another"
        )
