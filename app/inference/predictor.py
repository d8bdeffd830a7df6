"""A bundle and photos → answers. Imports NumPy, Pillow and one engine, never Keras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.core.config import Engine
from app.core.environment import has_dot_product, has_vnni, usable_cores
from app.core.errors import BundleError, ImageError, UsageError, out_of_memory
from app.data.decode import DECODERS, Pixels, load_image
from app.evaluation.decision import Thresholds, decide, label_of
from app.inference.bundle_format import CONFIDENCE, INT8_FILE, NOVELTY, ONNX_FILE, Bundle
from app.inference.engine_choice import Task, choose_engine
from app.inference.engines import EXTERNAL_DATA, compile_model
from app.inference.prediction import Prediction, failed_prediction

ANSWERS = ("probabilities", "novelty")  # outputs of the model
BATCH = 8  # photos at once; ONNX Runtime took as long for 16 at once as one by one


Precision = Literal["auto", "int8", "float32"]
Loaded = tuple[str, Pixels | ImageError]


class Classifier:
    """A trained classifier, ready to answer.

    Example:
        >>> classifier = Classifier(Path("runs/first/bundle"))  # doctest: +SKIP
        >>> for answer in classifier.answers([Path("cat.jpg")]):  # doctest: +SKIP
        ...     print(answer.label)
        cat

    Args:
        folder: a run's ``bundle/``.
        min_confidence: below it an answer is ``unsure`` (default: the bundle's).
        precision: ``auto`` computes in int8 where the bundle has such a model and the processor
            has instructions for it (``app.core.environment.has_vnni``), else in float32.
        engine: ``auto`` takes the fastest (``app.inference.engine_choice``).
        photos: how many are to come, as far as is known: for few no time is spent on choosing.
        threads: that compute; default: one for each core.

    Attributes:
        bundle: what it says of itself.
        engine: that computes.

    Raises:
        UsageError: when the engine that is asked for is not installed.
        BundleError: when the bundle is missing, incomplete or was changed, has its weights
            elsewhere, or has no int8 model and it was asked for.
        MemoryError: when there is too little memory for it.
    """

    def __init__(
        self,
        folder: Path,
        min_confidence: float | None = None,
        precision: Precision = "auto",
        engine: Engine = "auto",
        photos: float = 1,
        threads: int | None = None,
    ) -> None:
        self.bundle = Bundle.read(folder)
        default = self.bundle.thresholds[CONFIDENCE]
        self.thresholds = Thresholds(
            confidence=default if min_confidence is None else min_confidence,
            novelty=self.bundle.thresholds[NOVELTY],
        )
        self.precision = self._resolve(precision)
        self.file = INT8_FILE if self.precision == "int8" else ONNX_FILE
        path = self._path = self._checked(folder, self.file)
        task = Task(path, self.bundle.sha256[self.file], ANSWERS, self.bundle.image_size)
        try:
            self._model = compile_model(choose_engine(lambda: task, engine, photos), path, threads)
        except UsageError:
            raise
        except Exception as error:  # the engines' exceptions have no common class but this
            if out_of_memory(error):  # the bundle is not to blame
                raise MemoryError from error
            if EXTERNAL_DATA in str(error).lower():
                raise BundleError(
                    f"expected {path} to hold its weights itself; received one with external data, "
                    "which no digest covers; train again"
                ) from error
            raise BundleError(
                f"expected a model that ONNX Runtime and OpenVINO can run; received {path} "
                f"({error}); update onnxruntime, or train again"
            ) from error
        self.engine = self._model.engine

    @property
    def computing(self) -> str:
        """Say in which numbers it computes, and by which engine."""
        return f"{self.precision} by {self.engine}"

    def _resolve(self, precision: Precision) -> Literal["int8", "float32"]:
        if precision == "int8" and not self.bundle.has_int8:
            raise BundleError(
                f"expected a bundle with {INT8_FILE}; received none ("
                f"{self.bundle.why_no_int8 or 'it was not exported'}); "
                "leave --precision out, or take float32"
            )
        if precision == "int8" and not (has_vnni() or has_dot_product()):
            raise BundleError(
                "expected a processor with VNNI instructions for int8, or ARM's dot products; "
                "received one without, on which it would be slow and partly wrong; leave "
                "--precision out"
            )
        if precision == "auto":
            return "int8" if self.bundle.has_int8 and has_vnni() else "float32"
        return precision

    def _checked(self, folder: Path, name: str) -> Path:
        try:
            return self.bundle.check_file(folder, name)
        except BundleError as error:
            if name == ONNX_FILE:
                raise
            raise BundleError(f"{error}, or --precision float32") from error

    def outputs(self, images: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer for arrays.

        Args:
            images: uint8 ``(n, image_size, image_size, 3)``, RGB, as ``app.data.decode.load_image``
                makes them.

        Returns:
            Probabilities, float32 ``(n, classes)``, each row adding up to 1, and novelties, float32
            ``(n,)``, 0 to 1.

        Raises:
            BundleError: when the model is not one that this project exports.
        """
        probabilities, novelty = self._run(images, ANSWERS)
        for result, width in ((probabilities, len(self.bundle.classes)), (novelty, 1)):
            if result.shape != (len(images), width):
                raise self._useless(f"numbers of shape {result.shape}")
        return probabilities, novelty[:, 0]

    def activation_maps(self, images: Pixels) -> NDArray[np.float32]:
        """Say what each place of photos contributes to each class's logit, exactly.

        Some MB of memory for each photo and class: ask for a few photos at a time.

        Args:
            images: as for ``outputs``.

        Returns:
            float32 ``(n, height, width, classes)``, see ``app.network.activation_maps``; what it
            says for an answer: ``app.inference.heatmap.contrastive_cam``.

        Raises:
            BundleError: as ``outputs``.
        """
        (maps,) = self._run(images, ("activation_maps",))
        if maps.ndim != 4 or maps.shape[::3] != (len(images), len(self.bundle.classes)):
            raise self._useless(f"maps of shape {maps.shape}")
        return maps

    def _run(self, images: Pixels, names: Sequence[str]) -> list[NDArray[np.float32]]:
        try:
            results = self._model.run(images, names)
        except Exception as error:  # the engines' exceptions have no common class but this
            if out_of_memory(error):  # the bundle is not to blame
                raise MemoryError from error
            raise self._useless(str(error)) from error
        if not all(np.isfinite(result).all() for result in results):
            raise self._useless("numbers that are none")
        return results

    def _useless(self, received: str) -> BundleError:
        return BundleError(
            f"expected {self._path} to take photos and give probabilities of "
            f"{len(self.bundle.classes)} classes; received {received}; train again"
        )

    def answers(self, paths: Iterable[str | Path]) -> Iterator[Prediction]:
        """Answer for files, in their order, a batch at a time; decoding goes on meanwhile.

        A file that cannot be read gets an answer with ``error``; it does not stop the others.
        """
        remaining = iter(paths)
        with ThreadPoolExecutor(min(DECODERS, usable_cores())) as pool:
            batch = [pool.submit(self._load, path) for path in islice(remaining, BATCH)]
            while batch:
                loaded = [future.result() for future in batch]
                batch = [pool.submit(self._load, path) for path in islice(remaining, BATCH)]
                yield from self._answer_batch(loaded)

    def _answer_batch(self, loaded: Sequence[Loaded]) -> Iterator[Prediction]:
        images = [image for _, image in loaded if not isinstance(image, ImageError)]
        rows = zip(*self.outputs(np.stack(images)), strict=True) if images else iter(())
        for path, image in loaded:
            if isinstance(image, ImageError):
                yield failed_prediction(path, str(image))
            else:
                yield self.answer(path, *next(rows))

    def answer(
        self, path: str, probabilities: NDArray[np.float32], novelty: np.float32
    ) -> Prediction:
        """Say in words what ``outputs`` says of one photo: ``(classes,)`` and a number."""
        by_class = dict(zip(self.bundle.classes, map(float, probabilities), strict=True))
        (number,) = decide(probabilities[None], np.asarray([novelty]), self.thresholds)
        label = label_of(number, self.bundle.classes)
        return Prediction(path, label, by_class, float(novelty), None)

    def _load(self, path: str | Path) -> Loaded:
        try:
            return str(path), load_image(Path(path), self.bundle.image_size)
        except ImageError as error:
            return str(path), error
