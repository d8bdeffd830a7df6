"""Behind the tab Review: the queue of a run, its photos, and decisions, a line each on the disk.

The queue is read once; decisions go through ``app.data.corrections``, and no photo is touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
from pathlib import Path
from typing import Any

from app.core.config import read_config
from app.core.errors import ImageError, UsageError
from app.core.run_folder import Run
from app.core.sanitise import shown
from app.data.corrections import Correction, CorrectionsLog, Decision
from app.data.photo_file import read_bytes
from app.report.review_queue import KINDS, ReviewItem, read_review_queue
from app.report.unlabelled_queue import unlabelled_queue
from app.serving.decoders import Decoders
from app.serving.uploads import Upload
from app.studio.answering import decoded
from app.studio.decoding import for_screen

UNLABELLED = 100  # photos without labels that are queued


class Reviewing:
    """The review of one run.

    Args:
        run: a finished run.
        decoders: the processes that decode.
        unlabelled: a folder of photos without labels, anywhere on the disk; those come first whose
            labels would teach most. None: the photos of the run that are worth a look.

    Raises:
        AppError: when a file of the run is damaged, or the folder has no photos.

    Attributes:
        key: of this list of photos, random. The page names photos by their number, which another
            list, such as one of another window, has for another photo.
    """

    def __init__(self, run: Run, decoders: Decoders, unlabelled: Path | None = None) -> None:
        self.run, self.decoders, self.key = run, decoders, secrets.token_urlsafe(8)
        self.log = CorrectionsLog(run.corrections)
        self.data = read_config(run.config, exact=False).data
        self.items: list[ReviewItem] = (
            read_review_queue(run) if unlabelled is None else self._queue_of(unlabelled)
        )
        self.classes = run.read_metrics().classes
        self._places = {(item.name, item.sha256): n for n, item in enumerate(self.items)}
        self._one = asyncio.Lock()  # decisions are written one after the other

    def state(self) -> dict[str, Any]:
        """Return what the page shows: all photos, with what was decided about them."""
        return {
            "key": self.key,
            "run": self.run.folder.name,
            "classes": [shown(name) for name in self.classes],
            "kinds": KINDS,
            "file": shown(self.run.corrections),
            "unlabelled": shown(self.data / "unlabeled"),
            "photos": [_as_shown(dataclasses.asdict(item)) for item in self.items],
        }

    async def decide(self, number: int, decision: str, class_number: int | None) -> dict[str, Any]:
        """Write a decision about a photo; return the photo as it stands then.

        Args:
            number: of the photo in the list.
            decision: as ``CorrectionsLog.decide`` has it.
            class_number: for the decision ``class``.

        Raises:
            UsageError: when there is no such photo or decision.
            OSError: when the disk refuses it.
        """
        item = self._item(number)
        label = ""
        if decision == "class":
            if class_number is None or not 0 <= class_number < len(self.classes):
                raise UsageError(f"expected a class of the run; received number {class_number}")
            label = self.classes[class_number]
        known: Decision = decision  # type: ignore[assignment]  # the log refuses others
        async with self._one:
            made = await asyncio.to_thread(self.log.decide, item.name, item.sha256, known, label)
        return self._decided(number, made)

    async def undo(self) -> dict[str, Any] | None:
        """Take the last decision back; return its photo as it stands then, None without one."""
        async with self._one:
            taken = await asyncio.to_thread(self.log.undo)
        if taken is None:
            return None
        number = self._places.get(taken.key)
        if number is None:  # decided elsewhere, about a photo that is not in the queue
            return {"number": None, "name": shown(taken.name)}
        return self._decided(number, self.log.standing.get(taken.key))

    async def photo(self, number: int) -> Upload:
        """Return the file of a photo.

        Raises:
            UsageError: when there is no such photo.
            ImageError: when it is gone, or another file now.
        """
        item = self._item(number)
        data = await asyncio.to_thread(read_bytes, self.data / item.name)
        if item.sha256 and hashlib.sha256(data).hexdigest() != item.sha256:
            raise ImageError("another file has this name now")
        return Upload(shown(item.name), data)

    async def picture(self, number: int, longest: int) -> bytes:
        """Return a photo as a JPEG of at most so many pixels.

        Raises:
            UsageError: as ``photo``.
            ImageError: as ``photo``, or when it is no photo.
        """
        photo = await self.photo(number)
        return await decoded(self.decoders, for_screen, photo.data, longest)

    def command(self, name: str) -> list[str]:
        """Return the arguments of the command that trains with the corrections."""
        arguments = ["train", "--config", str(self.run.config), "--runs"]
        arguments += [str(self.run.folder.parent), "--run", name]
        return [*arguments, "--corrections", str(self.run.corrections)]

    def _queue_of(self, folder: Path) -> list[ReviewItem]:
        """Return the photos of a folder to label first, of those without a decision."""
        return [
            ReviewItem(
                place=each.place,
                name=each.name,
                sha256=each.sha256,
                split="",
                label="",
                kinds=(),
                reasons=("it has no label; this one would teach much",),
                likeliest=each.likeliest,
                probability=each.probability,
            )
            for each in unlabelled_queue(self.run, folder, UNLABELLED)
        ]

    def _item(self, number: int) -> ReviewItem:
        if not 0 <= number < len(self.items):
            raise UsageError(f"expected a photo of the list; received number {number}")
        return self.items[number]

    def _decided(self, number: int, made: Correction | None) -> dict[str, Any]:
        self.items[number] = dataclasses.replace(
            self.items[number],
            decision=None if made is None else made.decision,
            decided_label="" if made is None else made.label,
        )
        item = self.items[number]
        return {
            "number": number,
            "name": shown(item.name),
            "decision": item.decision,
            "decided_label": shown(item.decided_label),
        }


def _as_shown(values: dict[str, Any]) -> dict[str, Any]:
    """Return a photo's values, its names harmless; the page names it by its number."""
    return {name: _text_shown(value) for name, value in values.items()}


def _text_shown(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    return [shown(each) for each in value] if isinstance(value, tuple) else value
