"""The answers to one shard of files: the same in this process and in any worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from app.core.config import EngineName
from app.core.environment import usable_cores
from app.core.errors import ImageError
from app.data.decode import DECODERS, Pixels, load_image
from app.inference.prediction import failed_prediction
from app.inference.predictor import BATCH, Classifier, Precision
from app.scoring.archive_members import ArchiveReader
from app.scoring.index import Part, Waiting
from app.scoring.parts import PartRows, Row, write_part
from app.scoring.sources import Found

AHEAD = 2  # batches that are decoded before the network asks for them
Loaded = Future[Pixels]


class Shard(NamedTuple):
    """Some files, and the number of the part that gets their answers."""

    files: list[Waiting]
    number: int


class ShardScorer:
    """Answers shards; it loads the classifier once. Use it in a ``with`` block.

    Args:
        classifier: of a bundle.
        parts: the folder that parts are written to.
        threads: that decode; default: one for each core, four at most.
    """

    def __init__(self, classifier: Classifier, parts: Path, threads: int | None = None) -> None:
        self.classifier, self.parts = classifier, parts
        self._decoders = ThreadPoolExecutor(min(threads or usable_cores(), DECODERS))
        # One thread reads archives, since a .tar.gz is only read forwards.
        self._reader, self._archives = ThreadPoolExecutor(1), ArchiveReader()

    def __enter__(self) -> ShardScorer:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is under way; forget what is not begun."""
        for pool in (self._reader, self._decoders):
            pool.shutdown(cancel_futures=True)
        self._archives.close()

    def score(self, files: Sequence[Waiting], number: int) -> Part:
        """Answer for files and write the part with this number.

        A file that cannot be read becomes a row with its error; it does not stop the others.

        Args:
            files: some 10,000.
            number: of the part.

        Raises:
            BundleError: when the model is not one that this project exports.
            OSError: when the part cannot be written.
        """
        rows = PartRows(self.classifier.bundle.classes)
        for row in self.answers(files):
            rows.add(row)
        return write_part(rows.table(), self.parts, number, rows.unread)

    def answers(
        self, shard: Iterable[Waiting], advance: Callable[[int], None] = lambda files: None
    ) -> Iterator[Row]:
        """Yield the answers to a shard in its order, while the next files are decoded."""
        for files, loaded in self._batches(shard):
            results = [_result(one) for one in loaded]
            images = [image for image in results if not isinstance(image, ImageError)]
            outputs = self.classifier.outputs(np.stack(images)) if images else ((), ())
            answered = iter(zip(*outputs, strict=True))
            for (number, found), image in zip(files, results, strict=True):
                if isinstance(image, ImageError):
                    answer = failed_prediction(found.path, str(image))
                    yield Row(number, found, answer, image.code == "unreadable")
                else:
                    answer = self.classifier.answer(found.path, *next(answered))
                    yield Row(number, found, answer, False)
            advance(len(files))

    def _batches(
        self, shard: Iterable[Waiting]
    ) -> Iterator[tuple[Sequence[Waiting], Sequence[Loaded]]]:
        """Yield batches of files with their pixels, which are decoded meanwhile."""
        remaining = iter(shard)
        ahead: deque[tuple[Sequence[Waiting], Future[list[Loaded]]]] = deque()
        while files := list(islice(remaining, BATCH)):
            ahead.append((files, self._reader.submit(self._begin, files)))
            if len(ahead) > AHEAD:
                earlier, begun = ahead.popleft()
                yield earlier, begun.result()
        for earlier, begun in ahead:
            yield earlier, begun.result()

    def _begin(self, files: Sequence[Waiting]) -> list[Loaded]:
        """Read what lies in archives, and let all files be decoded."""
        return [self._decoders.submit(self._load, *self._source(found)) for _, found in files]

    def _source(self, found: Found) -> tuple[Path | bytes | ImageError]:
        if not found.member:
            return (Path(found.path),)
        try:
            return (self._archives.read(found.path, found.member, found.place, found.size or 0),)
        except ImageError as error:
            return (error,)

    def _load(self, source: Path | bytes | ImageError) -> Pixels:
        if isinstance(source, ImageError):
            raise source
        return load_image(source, self.classifier.bundle.image_size)


def shard_work(
    bundle: Path,
    confidence: float,
    precision: Precision,
    engine: EngineName,
    parts: Path,
    threads: int,
) -> Callable[[Shard], Part]:
    """Load a classifier; return what answers shards in a worker (``app.core.ray_workers``)."""
    classifier = Classifier(bundle, confidence, precision, engine, threads=threads)
    scorer = ShardScorer(classifier, parts, threads)
    return lambda shard: scorer.score(*shard)


def _result(loaded: Loaded) -> Pixels | ImageError:
    try:
        return loaded.result()
    except ImageError as error:
        return error
