"""Which engine runs a model here: measured once on this machine, then known.

The first work on many photos times the installed engines on the model itself, for a second or so.
The result is kept in the user's cache folder by processor, versions and the model's digest. Few
photos go through ONNX Runtime without asking: another engine would take longer to load.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.core.atomic_files import write_json
from app.core.config import Engine, EngineName
from app.core.environment import installed_version, processor_name, require_engine, usable_cores
from app.core.errors import AppError, out_of_memory
from app.core.records import read_record, values_of
from app.inference.engines import Arrays, compile_model

USUAL: EngineName = "onnxruntime"
OTHER: EngineName = "openvino"
ENGINES = get_args(EngineName)
APPLICATION = "cats-vs-dogs"  # the name of the cache folder
FEW = 50  # so many photos do not make up for loading another engine: 0.5 s of processor time
WORTH_MEASURING = 200  # photos: 7 s in int8 on two Zen 5 cores
BATCH = 2  # photos that are timed at once; more take as long each
SECONDS = 0.6  # of timing, after the first batch of each engine
GAIN = 1.05  # how many times as fast as the usual engine another one must be
# How far the other engine's answers may lie from the usual one's, on average, as a share of these.
SAME, NOTHING = 0.05, 1e-3
# Where OpenVINO was tried. Elsewhere it runs only where --engine openvino says so.
TRIED = ("x86_64", "AMD64")


class Task(NamedTuple):
    """What a model will be asked.

    Attributes:
        model: the file, or what it holds (``app.inference.engines.compile_model``).
        digest: of the model.
        names: of the outputs.
        size: of a photo, height and width in pixels.
    """

    model: Path | bytes
    digest: str
    names: Sequence[str]
    size: int


@dataclass(frozen=True)
class Measured:
    """What is kept: milliseconds a photo by engine, why one is missing, and which is taken."""

    milliseconds: dict[str, float]
    why_not: str
    engine: EngineName

    def summary(self) -> str:
        """Return in one line what was found."""
        times = ", ".join(f"{name} {value:.1f}" for name, value in self.milliseconds.items())
        return f"engine {self.engine}: {times} ms a photo{self.why_not and '; ' + self.why_not}"


def choose_engine(
    task: Callable[[], Task], engine: Engine = "auto", photos: float = 1
) -> EngineName:
    """Return the engine that is asked for, or the fastest one.

    Args:
        task: returns what the engine will be asked; called where that is to be known.
        engine: ``auto`` measures where that pays, and says in a line what it found.
        photos: how many are to come.

    Raises:
        UsageError: when the engine that is asked for is not installed.
        Exception: of ONNX Runtime, when it cannot run the model.
    """
    require_engine(engine)
    if engine != "auto":
        return engine
    if photos < FEW or platform.machine() not in TRIED or find_spec(OTHER) is None:
        return USUAL
    asked = task()
    record = record_path(asked.digest)
    with suppress(AppError):
        return read_record(record, Measured, AppError, "").engine
    if photos < WORTH_MEASURING:
        return USUAL
    from app.core.console import say  # Rich: not for a lone photo

    measured = _measure(asked)
    if measured is None:
        return USUAL
    say(measured.summary())
    with suppress(OSError):  # it is measured again the next time
        write_json(values_of(measured), record)
    return measured.engine


def record_path(digest: str) -> Path:
    """Return the file that keeps what was measured of a model, here and with these versions."""
    import platformdirs

    versions = [f"{name} {installed_version(name)}" for name in (USUAL, OTHER)]
    place = f"{processor_name()}, {usable_cores()} cores"
    key = hashlib.sha256("\n".join([place, *versions, digest]).encode())
    folder = platformdirs.user_cache_path(APPLICATION) / "engines"
    return folder / f"{key.hexdigest()[:16]}.json"


def _measure(task: Task) -> Measured | None:
    """Time the engines in turn; None where the other one lacks memory now, which may change."""
    images = pictures(BATCH, task.size)
    models, why_not = [compile_model(USUAL, task.model)], ""
    expected = models[0].run(images, task.names)
    try:
        other = compile_model(OTHER, task.model)
        if same_answers(expected, other.run(images, task.names)):
            models.append(other)
        else:
            why_not = f"{OTHER} answers otherwise, it is not used"
    except Exception as error:  # of a foreign library: it may raise anything
        if out_of_memory(error):
            return None
        why_not = f"{OTHER} cannot run this model ({' '.join(str(error).split())[:80]})"
    best = fastest_times([partial(each.run, images, task.names) for each in models], SECONDS)
    times: dict[str, float] = {
        each.engine: 1000 * took / BATCH for each, took in zip(models, best, strict=True)
    }
    chosen = models[-1] if best[0] > GAIN * best[-1] else models[0]
    return Measured(times, why_not, chosen.engine)


def pictures(count: int, size: int) -> NDArray[np.uint8]:
    """Return pictures of soft blots, uint8 ``(count, size, size, 3)``: noise is unlike a photo."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((size, size))) for each in coarse])


def same_answers(expected: Arrays, received: Arrays) -> bool:
    """Say whether two engines differ by no more than rounding; never where one gives NaN."""
    return all(
        np.abs(np.subtract(one, other, dtype=np.float64)).mean()
        <= NOTHING + SAME * np.abs(one, dtype=np.float64).mean()
        for one, other in zip(expected, received, strict=True)
    )


def fastest_times(works: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Return the shortest time of each work in seconds.

    They run in turn, at least once and until ``seconds`` have passed: other work on the machine can
    only make a time longer.
    """
    times: list[list[float]] = [[] for _ in works]
    began = time.perf_counter()
    while not times[-1] or time.perf_counter() - began < seconds:
        for work, of_work in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            of_work.append(time.perf_counter() - started)
    return [min(of_work) for of_work in times]
