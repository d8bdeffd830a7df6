"""Behind the tab Teach: classes and their photos in memory, a lesson, and a folder with a run.

Features are computed as photos arrive, so that little is left to do when the last one is there.
Nothing is on disk before it is saved. Then there is an ordinary folder of photos.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.core.atomic_files import whole_folder
from app.core.errors import AppError, ImageError, UsageError
from app.core.labels import NEITHER, is_reserved, plain_name
from app.core.run_folder import FEATURES_FOLDER, refuse_existing
from app.core.sanitise import for_terminal
from app.data.decode import Pixels, load_image
from app.data.folder_layout import ENOUGH
from app.data.folder_names import holds_unlabelled, is_helper, is_photo_name, split_of, suffix_of
from app.inference.prediction import Prediction, failed_prediction
from app.serving.decoders import Decoders
from app.serving.uploads import Upload
from app.studio.answering import decoded
from app.studio.backbone import FrozenBackbone, Seen
from app.studio.decoding import for_teaching
from app.studio.lesson import Lesson, groups_of, learn

MOST_PHOTOS = 600  # 0.5 MB of features each; who has more has a folder, and train.py
MOST_BYTES = 1_000_000_000  # of their files
MOST_CLASSES = 20
LONGEST_NAME = 60  # characters of a class or a folder
AT_ONCE = 8  # photos through the network; few, so that a live answer need not wait long
Result = TypeVar("Result")


@dataclass(eq=False)
class TaughtPhoto:
    """One photo of a class.

    Attributes:
        number: by which the page names it.
        upload: the file as it came.
        content: its SHA-256.
        pixels: uint8 ``(size, size, 3)``.
        thumbnail: a JPEG.
        moment: when the camera took it, in any words; empty for a file.
        seen: its features; None until they are computed.
    """

    number: int
    upload: Upload
    content: str
    pixels: Pixels
    thumbnail: bytes
    moment: str
    seen: Seen | None = None


@dataclass(eq=False)
class TaughtClass:
    """A class, or photos of none of the classes, whose name is ``neither``."""

    number: int
    name: str
    photos: list[TaughtPhoto] = field(default_factory=list)


class Teaching:
    """The classes of the page and what was learned of them.

    Args:
        decoders: the processes that decode.
        data: the folder below which photos are saved.
        runs: the folder of all runs.
        image_size: height and width in pixels that the network sees.
        weights: of the backbone, as ``train.py --weights`` has it.
    """

    def __init__(
        self, decoders: Decoders, data: Path, runs: Path, image_size: int, weights: str | None
    ) -> None:
        self.decoders, self.data, self.runs = decoders, data, runs
        self.image_size, self.weights = image_size, weights
        self._numbers = count(1)
        self.classes = [TaughtClass(next(self._numbers), f"class {n}") for n in (1, 2)]
        self.lesson: Lesson | None = None
        self._learned_from: list[tuple[str, list[int]]] = []  # what the lesson was learned from
        self._thread = ThreadPoolExecutor(1, "teach")
        self._backbone: asyncio.Future[FrozenBackbone] | None = None
        self._work: asyncio.Task[None] | None = None

    def close(self) -> None:
        """End its thread."""
        if self._work is not None:
            self._work.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def start(self) -> None:
        """Begin to load the network, if that has not begun or has failed."""
        loaded = self._backbone
        if loaded is None or (loaded.done() and loaded.exception() is not None):
            loop = asyncio.get_running_loop()
            self._backbone = loop.run_in_executor(
                self._thread, FrozenBackbone, self.image_size, self.weights
            )

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        trouble = ""
        ready = self._backbone is not None and self._backbone.done()
        if self._backbone is not None and ready and (error := self._backbone.exception()):
            ready, trouble = False, str(error)
        lesson = self.lesson
        return {
            "classes": [
                {
                    "number": each.number,
                    "name": each.name,
                    "photos": [photo.number for photo in each.photos],
                    "waiting": sum(photo.seen is None for photo in each.photos),
                }
                for each in self.classes
            ],
            "enough": ENOUGH,
            "most": MOST_PHOTOS,
            "ready": ready,
            "trouble": trouble,
            "lesson": None
            if lesson is None
            else {
                "classes": lesson.classes,
                "score": None if lesson.score is None else asdict(lesson.score),
                "stale": self._learned_from != self._content(),
            },
        }

    # ---- classes and photos ----------------------------------------------------------------------

    def add_class(self, name: str) -> None:
        """Add a class; the one called ``neither`` shows none of the others."""
        if len(self.classes) >= MOST_CLASSES:
            raise UsageError(
                f"expected at most {MOST_CLASSES} classes here; received one more; put photos into "
                "folders and use train.py"
            )
        self.classes.append(TaughtClass(next(self._numbers), self._new_name(name)))

    def rename(self, number: int, name: str) -> None:
        """Give a class another name."""
        taught = self._class(number)
        taught.name = self._new_name(name, taught)

    def remove_class(self, number: int) -> None:
        """Remove a class with its photos."""
        self.classes.remove(self._class(number))

    def photo(self, number: int) -> TaughtPhoto:
        """Return a photo; raise ``UsageError`` where there is none of that number."""
        for photo in self._photos():
            if photo.number == number:
                return photo
        raise UsageError(f"expected a photo of this page; received number {number}; load it again")

    def forget(self, number: int) -> None:
        """Remove a photo."""
        photo = self.photo(number)
        for each in self.classes:
            if photo in each.photos:
                each.photos.remove(photo)

    def empty(self, number: int) -> None:
        """Remove the photos of a class."""
        self._class(number).photos.clear()

    async def add(
        self, number: int, uploads: Sequence[Upload], moment: str
    ) -> list[dict[str, Any]]:
        """Add photos to a class; its features are computed from then on.

        Returns:
            For each ``number`` and ``error``, one of them None.
        """
        self.start()
        taught = self._class(number)
        results: list[dict[str, Any]] = []
        for upload in uploads:
            try:
                photo = await self._read(taught, upload, moment)
            except ImageError as error:
                results.append({"number": None, "error": str(error)})
                continue
            taught.photos.append(photo)
            results.append({"number": photo.number, "error": None})
        self._begin_work()
        return results

    async def _read(self, taught: TaughtClass, upload: Upload, moment: str) -> TaughtPhoto:
        sizes = [len(photo.upload.data) for photo in self._photos()]
        if len(sizes) >= MOST_PHOTOS or sum(sizes) + len(upload.data) > MOST_BYTES:
            raise ImageError(
                f"not added: at most {MOST_PHOTOS} photos, and {MOST_BYTES / 1e9:g} GB, are taken "
                "here; put more into folders and use train.py"
            )
        content = hashlib.sha256(upload.data).hexdigest()
        pixels, thumbnail = await decoded(self.decoders, for_teaching, upload.data, self.image_size)
        if any(photo.content == content for photo in taught.photos):
            raise ImageError("not added: the same file is there already")
        return TaughtPhoto(next(self._numbers), upload, content, pixels, thumbnail, moment)

    def _begin_work(self) -> None:
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._compute())
            # Retrieved: what went wrong is in the state, and is told to who needs the features.
            self._work.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _all_seen(self) -> None:
        """Wait until each photo has its features."""
        while any(photo.seen is None for photo in self._photos()):
            self._begin_work()
            assert self._work is not None  # noqa: S101  it was begun
            await asyncio.shield(self._work)

    async def _compute(self) -> None:
        """Compute the features of all photos that wait for them."""
        while waiting := [photo for photo in self._photos() if photo.seen is None][:AT_ONCE]:
            images = np.stack([photo.pixels for photo in waiting])
            backbone = await self._loaded()
            for photo, seen in zip(waiting, await self._run(backbone.look, images), strict=True):
                photo.seen = seen

    # ---- what is learned -------------------------------------------------------------------------

    async def solve(self) -> None:
        """Learn from the photos that are there.

        Raises:
            UsageError: when a class has too few, or there are fewer than two classes.
        """
        self._refuse_few()
        await self._all_seen()
        self._refuse_few()  # photos may have been removed meanwhile
        known = [each for each in self.classes if each.name != NEITHER]
        photos = [photo for each in known for photo in each.photos]
        targets = np.array([n for n, each in enumerate(known) for _ in each.photos])
        strangers = [p for each in self.classes if each not in known for p in each.photos]
        content = self._content()

        def work() -> Lesson:
            groups = groups_of([photo.pixels for photo in photos], [p.moment for p in photos])
            names = [each.name for each in known]
            return learn(names, targets, groups, _seen(photos), _seen(strangers))

        self.lesson = await self._run(work)
        self._learned_from = content

    async def answer(self, upload: Upload) -> Prediction:
        """Return the lesson's answer to a photo.

        Raises:
            UsageError: when nothing was learned yet.
        """
        lesson = self.lesson
        if lesson is None:
            raise UsageError("expected something learned; received a question; teach first")
        try:
            pixels = await decoded(self.decoders, load_image, upload.data, self.image_size)
        except ImageError as error:
            return failed_prediction(upload.name, str(error))
        backbone = await self._loaded()
        return await self._run(lambda: lesson.answer(upload.name, backbone.look(pixels[None])[0]))

    # ---- what is saved ---------------------------------------------------------------------------

    async def save(self, name: str) -> list[str]:
        """Write the photos into class folders, and their features into the feature cache.

        Args:
            name: of the folder and of the run.

        Returns:
            The arguments of the command that trains on that folder.

        Raises:
            AppError: when the name is none for a folder or is taken, when photos are too few, or
                the disk cannot be written.
        """
        refuse_name(name, "a folder")
        self._refuse_few()
        refuse_existing(self.runs, name)
        await self._all_seen()
        self._refuse_few()  # photos may have been removed meanwhile
        folder = self.data / name
        # Copies: photos may come and go while this is written.
        photos = [(each.name, list(each.photos)) for each in self.classes if each.photos]
        rows = [
            (photo.upload.data, photo.seen) for photo in self._photos() if photo.seen is not None
        ]
        await asyncio.to_thread(_write, photos, folder)
        backbone = await self._loaded()
        await self._run(lambda: backbone.keep(rows, self.runs / FEATURES_FOLDER))
        arguments = ["train", "--data", str(folder), "--runs", str(self.runs), "--run", name]
        arguments += ["--stages", "head", "--image-size", str(self.image_size)]
        arguments += ["--precision", "float32"]  # as the features were computed
        return arguments if self.weights is None else [*arguments, "--weights", self.weights]

    # ---- helpers ---------------------------------------------------------------------------------

    def _photos(self) -> Iterator[TaughtPhoto]:
        for each in self.classes:
            yield from each.photos

    def _content(self) -> list[tuple[str, list[int]]]:
        return [(each.name, [photo.number for photo in each.photos]) for each in self.classes]

    def _class(self, number: int) -> TaughtClass:
        for each in self.classes:
            if each.number == number:
                return each
        raise UsageError(f"expected a class of this page; received number {number}; load it again")

    def _new_name(self, name: str, itself: TaughtClass | None = None) -> str:
        """Return the name of a class, as the folder will have it.

        Raises:
            UsageError: when no folder of a class can be called so.
        """
        name = plain_name(name)
        refuse_name(name, "a class")
        if is_reserved(name) and name != NEITHER:
            raise UsageError(
                f"expected another name of a class; received {name!r}, which is an answer; write "
                f"{NEITHER} in small letters for photos of none of the classes"
            )
        if split_of(name) or is_helper(name) or holds_unlabelled(name):
            raise UsageError(
                f"expected a name that says what the photos show; received {name!r}, which folders "
                "of data sets are called; choose another"
            )
        others = {each.name.casefold() for each in self.classes if each is not itself}
        if name.casefold() in others:
            raise UsageError(f"expected different names; received {name!r} twice; choose another")
        return name

    def _refuse_few(self) -> None:
        known = [each for each in self.classes if each.name != NEITHER]
        if len(known) < 2:
            raise UsageError(f"expected two classes or more; received {len(known)}; add one")
        few = [each for each in known if len(each.photos) < ENOUGH]
        if few:
            raise UsageError(
                f"expected {ENOUGH} photos of each class or more; received {len(few[0].photos)} of "
                f"{for_terminal(few[0].name)}; add some"
            )

    async def _loaded(self) -> FrozenBackbone:
        self.start()
        assert self._backbone is not None  # noqa: S101  it was started
        try:
            return await asyncio.shield(self._backbone)
        except AppError as error:
            raise UsageError(f"nothing can be learned here: {error}") from error

    async def _run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _write(classes: Sequence[tuple[str, Sequence[TaughtPhoto]]], folder: Path) -> None:
    """Write the photos of each class into a folder of its name, whole or not at all."""
    with whole_folder(folder) as temporary:
        for name, photos in classes:
            place = temporary / name
            place.mkdir()
            for photo in photos:
                file = photo.upload.name
                suffix = suffix_of(file) if is_photo_name(file) else ".jpg"
                (place / f"{photo.number:05}{suffix}").write_bytes(photo.upload.data)


def _seen(photos: Sequence[TaughtPhoto]) -> list[Seen]:
    return [photo.seen for photo in photos if photo.seen is not None]


def refuse_name(name: str, what: str) -> None:
    """Raise ``UsageError`` for what cannot be the name of a folder on every system."""
    good = (
        0 < len(name) <= LONGEST_NAME
        and len(name.encode(errors="replace")) <= 3 * LONGEST_NAME
        and name.isprintable()
        and not set(name) & set("/\\:")
        and name[0] not in ".-~"
        and name[-1] not in ". "
    )
    if not good:
        raise UsageError(
            f"expected as the name of {what} 1 to {LONGEST_NAME} letters without / \\ : and not "
            f"beginning with . or -; received {for_terminal(name[:LONGEST_NAME])!r}; choose another"
        )
