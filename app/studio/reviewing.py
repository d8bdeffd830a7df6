"""Behind the tab Review: the queue of a run, its photos, and decisions, a line each on the disk.

The queue is read once; decisions go through ``app.data.corrections``, and no photo is touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from typing import Any

from app.core.config import read_config
from app.core.errors import ImageError, UsageError
from app.core.run_folder import Run
from app.data.corrections import Correction, CorrectionsLog, Decision
from app.data.photo_file import read_bytes
from app.report.review_queue import KINDS, ReviewItem, read_review_queue
from app.serving.decoders import Decoders
from app.studio.answering import decoded
from app.studio.decoding import for_screen


class Reviewing:
    """The review of one run.

    Args:
        run: a finished run.
        decoders: the processes that decode.

    Raises:
        AppError: when a file of the run is damaged.
    """

    def __init__(self, run: Run, decoders: Decoders) -> None:
        self.run, self.decoders = run, decoders
        self.items: list[ReviewItem] = read_review_queue(run)
        self.log = CorrectionsLog(run.corrections)
        self.data = read_config(run.config, exact=False).data
        self.classes = run.read_metrics().classes
        self._places = {(item.name, item.sha256): n for n, item in enumerate(self.items)}
        self._one = asyncio.Lock()  # decisions are written one after the other

    def state(self) -> dict[str, Any]:
        """Return what the page shows: all photos, with what was decided about them."""
        return {
            "run": self.run.folder.name,
            "classes": list(self.classes),
            "kinds": KINDS,
            "file": str(self.run.corrections),
            "photos": [dataclasses.asdict(item) for item in self.items],
        }

    async def decide(self, number: int, decision: str, label: str) -> dict[str, Any]:
        """Write a decision about a photo; return the photo as it stands then.

        Raises:
            UsageError: when there is no such photo or decision.
            OSError: when the disk refuses it.
        """
        item = self._item(number)
        if decision == "class" and label not in self.classes:
            raise UsageError(
                f"expected a class out of {', '.join(self.classes)}; received {label!r}"
            )
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
            return {"number": None, "name": taken.name}
        return self._decided(number, self.log.standing.get(taken.key))

    async def picture(self, number: int, longest: int) -> bytes:
        """Return a photo as a JPEG of at most so many pixels.

        Raises:
            ImageError: when it is no photo, gone, or another file now.
        """
        item = self._item(number)
        data = await asyncio.to_thread(read_bytes, self.data / item.name)
        if item.sha256 and hashlib.sha256(data).hexdigest() != item.sha256:
            raise ImageError("another file has this name now")
        return await decoded(self.decoders, for_screen, data, longest)

    def command(self, name: str) -> list[str]:
        """Return the arguments of the command that trains with the corrections."""
        arguments = ["train", "--config", str(self.run.config), "--runs"]
        arguments += [str(self.run.folder.parent), "--run", name]
        return [*arguments, "--corrections", str(self.run.corrections)]

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
            "name": item.name,
            "decision": item.decision,
            "decided_label": item.decided_label,
        }
