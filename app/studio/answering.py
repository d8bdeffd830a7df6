"""Behind the tab Ask: a run's classifier, its evidence, and the training photos most like a photo.

Photos are decoded in other processes, and the network runs in one thread, as in ``app.serving``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from anyio import BrokenWorkerProcess

from app.core.errors import ImageError
from app.core.run_folder import Run
from app.core.sanitise import shown
from app.data.augmentation import unchanged_bytes
from app.data.decode import Pixels, load_image
from app.inference.heatmap import contrastive_cam
from app.inference.prediction import Prediction, failed_prediction
from app.inference.predictor import Classifier
from app.serving.decoders import Decoders
from app.serving.uploads import Upload
from app.studio.decoding import THUMBNAIL, for_screen
from app.studio.similar_photos import SimilarPhotos, similar_photos

ENDED = "the process that decoded it ended; try it again"
Result = TypeVar("Result")


class Answering:
    """Answers with one run.

    Args:
        run: a finished run.
        decoders: the processes that decode.

    Raises:
        BundleError: when its bundle is damaged.
    """

    def __init__(self, run: Run, decoders: Decoders) -> None:
        self.run, self.decoders = run, decoders
        self.classifier = Classifier(run.bundle)
        self.classes = self.classifier.bundle.classes
        self.size = self.classifier.bundle.image_size
        # A first run is slower, and shows whether the model runs.
        self.classifier.outputs(np.zeros((1, self.size, self.size, 3), np.uint8))
        self._network = ThreadPoolExecutor(1, "network")
        self._similar: SimilarPhotos | None = None
        self._looked = False  # whether similar photos were asked for

    def close(self) -> None:
        """End its thread."""
        self._network.shutdown(wait=False, cancel_futures=True)

    async def answer(self, upload: Upload) -> Prediction:
        """Return the prediction of one file; that of a file that is no photo has an ``error``."""
        try:
            pixels = await self._pixels(upload)
        except ImageError as error:
            return failed_prediction(upload.name, str(error))
        probabilities, novelty = await self._in_thread(self.classifier.outputs, pixels[None])
        return self.classifier.answer(upload.name, probabilities[0], novelty[0])

    async def evidence(self, upload: Upload) -> dict[str, Any]:
        """Return how much each place of a photo speaks for its likeliest class.

        Returns:
            ``label``, and ``grid``: rows of numbers, 1 for the place that says most; below 0 a
            place speaks against the class.

        Raises:
            ImageError: when the file is no photo.
        """
        pixels = await self._pixels(upload)
        maps = (await self._in_thread(self.classifier.activation_maps, pixels[None]))[0]
        likeliest = int(maps.sum(axis=(0, 1)).argmax())  # the sums are the logits
        cam = contrastive_cam(maps, likeliest).astype(np.float64)
        grid = cam / max(float(np.abs(cam).max()), 1e-9)
        return {"label": self.classes[likeliest], "grid": grid.round(4).tolist()}

    async def similar(self, upload: Upload) -> list[dict[str, Any]] | None:
        """Return the training photos that a photo is most like.

        Returns:
            What ``app.studio.similar_photos.Similar`` holds, each with ``there``: whether its file
            is still where it was. None where the run does not tell which photos it learned from.

        Raises:
            ImageError: when the file is no photo.
        """
        pixels = await self._pixels(upload)
        if not self._looked:
            self._similar = await self._in_thread(similar_photos, self.run)
            self._looked = True
        if self._similar is None:
            return None
        found = await self._in_thread(self._similar.find, pixels)
        photos = self._similar.photos
        return [
            {
                "number": each.number,
                "name": shown(each.name),
                "label": shown(each.label),
                "likeness": each.likeness,
                "there": photos[each.number].path.is_file(),
            }
            for each in found
        ]

    async def training_photo(self, number: int) -> bytes:
        """Return the thumbnail of a training photo that ``similar`` named.

        Raises:
            AppError: when there is none, or its file is another one now.
        """
        if self._similar is None or not 0 <= number < len(self._similar.photos):
            raise ImageError("expected a photo that was found before; received another number")
        data = await asyncio.to_thread(unchanged_bytes, self._similar.photos[number])
        return await decoded(self.decoders, for_screen, data, THUMBNAIL)

    async def _pixels(self, upload: Upload) -> Pixels:
        return await decoded(self.decoders, load_image, upload.data, self.size)

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._network, work, *arguments)


async def decoded(
    decoders: Decoders, work: Callable[[bytes, int], Result], data: bytes, size: int
) -> Result:
    """Call ``work(data, size)`` in a decoder's process.

    Raises:
        ImageError: as ``work``, and when the process ended.
    """
    try:
        return await decoders.decode(work, data, size)
    except BrokenWorkerProcess:
        raise ImageError(ENDED) from None
