"""Photos that arrive at the same time → answers, together (micro-batching).

Photos are decoded in other processes while the network runs in a thread. What has been decoded
meanwhile is the next batch; a batch that is not full waits a few milliseconds, but only for photos
that are already being decoded.
"""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.core.errors import ImageError
from app.data.decode import Pixels, load_image
from app.inference.heatmap import contrastive_cam, overlay
from app.inference.prediction import Prediction, failed_prediction
from app.inference.predictor import Classifier
from app.serving.decoders import Decoders, for_page
from app.serving.metrics import Metrics
from app.serving.uploads import Limits, Upload

Row = tuple[NDArray[np.float32], np.float32]  # probabilities (classes,) and novelty of one photo


class Waiting(NamedTuple):
    """A decoded photo, uint8 ``(size, size, 3)``, and where its row is expected."""

    pixels: Pixels
    row: asyncio.Future[Row]


class Batcher:
    """Predicts photos; everything in it but the network's thread belongs to one event loop.

    It predicts a blank picture first: a first run is slower, and a model that does not run is
    reported before a request comes.

    Args:
        classifier: used by one thread only, on all cores.
        limits: ``batch``, ``wait``, and ``body`` and ``seconds`` for decoding are used.
        metrics: count photos, batches and times.

    Attributes:
        decoders: the processes that decode.
        seconds_a_photo: of the network for one photo, a running average.

    Raises:
        BundleError: when the model does not run.
    """

    def __init__(self, classifier: Classifier, limits: Limits, metrics: Metrics) -> None:
        self.classifier, self.limits, self.metrics = classifier, limits, metrics
        self._size = classifier.bundle.image_size
        self.decoders = Decoders(
            limits.seconds, limits.body, metrics.count_lost, workers=limits.workers
        )
        self._network = ThreadPoolExecutor(1, "network")
        self._ready: asyncio.Queue[Waiting] = asyncio.Queue()
        self._decoding = 0  # photos on their way into that queue
        started = time.perf_counter()
        classifier.outputs(np.zeros((1, self._size, self._size, 3), np.uint8))
        self.seconds_a_photo = time.perf_counter() - started

    async def run(self) -> None:
        """Predict batches until cancelled."""
        while True:
            await self._predict(await self._collect())

    async def close(self) -> None:
        """End the decoders and the thread; what has not begun is dropped."""
        await self.decoders.close()
        self._network.shutdown(wait=True, cancel_futures=True)

    async def answer(self, upload: Upload) -> Prediction:
        """Return the prediction of one file; that of a file that is no photo has an ``error``."""
        self._decoding += 1
        try:
            with self.metrics.decode_seconds.time():
                pixels = await self.decoders.decode(load_image, upload.data, self._size)
        except ImageError as error:
            self.metrics.count_answer("error")
            return failed_prediction(upload.name, str(error))
        finally:
            self._decoding -= 1
        waiting = Waiting(pixels, asyncio.get_running_loop().create_future())
        self._ready.put_nowait(waiting)
        answer = self.classifier.answer(upload.name, *await waiting.row)
        self.metrics.count_answer(str(answer.label))
        return answer

    async def explain(self, upload: Upload) -> bytes:
        """Return a PNG: the heat map of a photo's likeliest class over the photo.

        Raises:
            ImageError: when the file is no photo.
        """
        with self.metrics.decode_seconds.time():
            pixels, shown = await self.decoders.decode(for_page, upload.data, self._size)
        loop = asyncio.get_running_loop()
        heat = await loop.run_in_executor(self._network, self._evidence, pixels)
        return await asyncio.to_thread(_png, shown, heat)

    async def _collect(self) -> list[Waiting]:
        """Wait for a photo; return it with those that are there or come within ``wait``."""
        batch = [await self._ready.get()]
        latest = asyncio.get_running_loop().time() + self.limits.wait
        while len(batch) < self.limits.batch:
            if not self._ready.empty():
                batch.append(self._ready.get_nowait())
            elif not self._decoding:
                break  # none is on its way: begin at once
            else:
                try:
                    async with asyncio.timeout_at(latest):
                        batch.append(await self._ready.get())
                except TimeoutError:
                    break
        return [waiting for waiting in batch if not waiting.row.cancelled()]

    async def _predict(self, batch: list[Waiting]) -> None:
        """Run the network; hand each photo its row, or the error to all of them."""
        if not batch:  # the clients of all of them have disconnected
            return
        started = time.perf_counter()
        try:
            images = np.stack([waiting.pixels for waiting in batch])
            loop = asyncio.get_running_loop()
            rows = await loop.run_in_executor(self._network, self.classifier.outputs, images)
        except Exception as error:
            for waiting in batch:
                if not waiting.row.done():
                    waiting.row.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self.metrics.network_seconds.observe(seconds)
        self.metrics.batch_photos.observe(len(batch))
        self.seconds_a_photo += 0.1 * (seconds / len(batch) - self.seconds_a_photo)
        for waiting, row in zip(batch, zip(*rows, strict=True), strict=True):
            if not waiting.row.done():
                waiting.row.set_result(row)

    def _evidence(self, pixels: Pixels) -> NDArray[np.float32]:
        maps = self.classifier.activation_maps(pixels[None])[0]
        likeliest = int(maps.sum(axis=(0, 1)).argmax())  # the sums are the logits
        return np.asarray(contrastive_cam(maps, likeliest), np.float32)


def _png(shown: Pixels, heat: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    overlay(shown, heat).save(file, "PNG", compress_level=3)  # 6 takes three times as long
    return file.getvalue()
