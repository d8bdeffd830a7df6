"""Photos per second of each kind of work on a GPU, beside the GPU's own matrix rate.

    python -m benchmarks.gpu                     on a GPU: the sizes of train.py
    python -m benchmarks.gpu --data data/small   and the whole of train.py on these photos
    python -m benchmarks.gpu --small             any machine, a minute on two cores

Rows: the frozen prefix (all blocks; pixels are sent, features fetched), the head (solved on the
processor by scikit-learn), a step of stage block5 on cached activations, and a full fine-tuning
step. A step is forward, backward and the optimiser's update. FLOPs are those of the convolutions,
two for each multiplication and addition, counted from the layers: 30.7e9 for VGG16 at 224 pixels
forward. The
matrix rate is that of a large square bfloat16 product through ``keras.ops``, measured here, now.
Pixels are random (drawn once, in the processor's memory), weights too: neither changes the time.

Any backend of Keras will do: KERAS_BACKEND=jax or torch where TensorFlow is not installed. On a
machine with a GPU, JAX or PyTorch, and no TensorFlow, install requirements-base.txt. Without
photos, draw some:

    KERAS_BACKEND=jax python -m benchmarks.gpu --json > gpu.json
    python -m app fetch drawn data/drawn
    KERAS_BACKEND=jax python -m benchmarks.gpu --data data/drawn --weights none
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.core.cli import run
from app.core.config import LARGEST_AUTO_SIZE, STAGES, TrainConfig, help_of
from app.core.console import quiet_native_stderr, say
from app.core.errors import AppError
from app.network.batch_memory import halving

if TYPE_CHECKING:
    import keras

    from app.features.extractor import FeatureExtractor

ROOT = Path(__file__).resolve().parent.parent
CUTS = ("block4_pool", "block5_pool")  # what a run of two stages keeps
BACKBONE_LAYERS = "block"  # what the names of the layers that are counted begin with


@dataclass(frozen=True)
class Size:
    """How much is measured: pixels, photos a step, photos of the head, matrix side, repetitions."""

    image_size: int
    batch: int
    head_photos: int
    matrix: int
    repeat: int


# The batch of the stages. A matrix of 8,192 is 134 MB in bfloat16, and 1.1 TFLOP to square.
FULL = Size(LARGEST_AUTO_SIZE, STAGES["block5"].batch_size, 2000, 8192, 10)
SMALL = Size(64, 8, 500, 1024, 3)


@dataclass(frozen=True)
class Row:
    """What one kind of work reached; ``flops`` of one photo, 0 where they are not counted."""

    name: str
    batch: int
    photos_per_second: float
    flops: float

    @property
    def teraflops(self) -> float:
        """10^12 floating-point operations a second."""
        return self.photos_per_second * self.flops / 1e12


def main(argv: Sequence[str]) -> int:
    """Measure, print a table or JSON; return the exit code."""
    arguments = parse(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_native_stderr():
        import keras

        from app.network.device import device_name, on_gpu, resolve_precision

    size = SMALL if arguments.small or not (on_gpu() or arguments.full) else FULL
    if arguments.image_size:
        size = dataclasses.replace(size, image_size=arguments.image_size)
    precision = resolve_precision(arguments.precision)
    say(f"{device_name()}, {precision}, {size.image_size} pixels")
    peak = matrix_rate(size)
    rows = measure(size, precision)
    told: dict[str, Any] = {
        "device": device_name(),
        "backend": keras.backend.backend(),
        "precision": precision,
        "image_size": size.image_size,
        "matrix_teraflops": peak,
        "rows": [
            {**dataclasses.asdict(row), "teraflops": row.teraflops, "share": row.teraflops / peak}
            for row in rows
        ],
    }
    if arguments.data is not None:
        told["train"] = train_seconds(arguments.data, arguments.weights)
    print(json.dumps(told, indent=2) if arguments.json else table(told))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--small", action="store_true", help="64 pixels, a minute (default without a GPU)"
    )
    which.add_argument("--full", action="store_true", help="320 pixels (default on a GPU)")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="instead of 64 or 320")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "float32", "bfloat16"),
        help=help_of(TrainConfig, "precision"),
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write a JSON object")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="photos: train.py is run on them and timed too"
    )
    parser.add_argument("--weights", metavar="PATH", help="for --data: train.py's --weights")
    return parser.parse_args(argv)


def matrix_rate(size: Size) -> float:
    """Return the TFLOP/s of a square bfloat16 matrix product, the best of some chains of them."""
    import keras

    side, chain = size.matrix, 8
    numbers = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    # Scaled so that a chain of products neither grows nor vanishes: zeros would be faster.
    matrix = keras.ops.convert_to_tensor(numbers / math.sqrt(side), "bfloat16")

    def products() -> None:
        product = matrix
        for _ in range(chain):
            product = keras.ops.matmul(product, matrix)
        keras.ops.convert_to_numpy(product[:1, :1])  # waits for the device

    return chain * 2 * side**3 / best_seconds(products, size.repeat) / 1e12


def measure(size: Size, precision: str) -> list[Row]:
    """Return the rows of the table, the cheapest work first."""
    from app.features.extractor import make_extractor
    from app.network.classifier import build_classifier, suffix

    model = build_classifier(2, image_size=size.image_size, precision=precision)
    flops = convolution_flops(model)
    frozen = make_extractor(model, list(CUTS), precision)
    rows = [prefix_row(frozen, size, sum(flops.values())), head_row(model, size)]
    every = list(flops)
    upper = [name for name in every if name.startswith("block5")]
    for name, part, trained in (
        ("block5 step", suffix(model, "block4_pool"), upper),
        ("full fine-tuning step", model, every),
    ):
        for layer in model.layers:
            layer.trainable = layer.name in trained
        step = partial(step_row, name, part, step_flops(flops, trained), size.repeat)
        rows.append(halving(step, size.batch, name))
    return rows


def prefix_row(frozen: FeatureExtractor, size: Size, flops: float) -> Row:
    """Time the frozen layers: pixels are sent, features at both cuts are fetched as float16."""
    random = np.random.default_rng(0)
    shape = (frozen.batch, size.image_size, size.image_size, 3)
    images, batches = random.integers(0, 256, shape, np.uint8), 4 * size.repeat

    def stream() -> None:
        for _ in frozen.stream([images] * batches):
            pass

    photos = batches * frozen.batch
    return Row("frozen prefix", frozen.batch, photos / best_seconds(stream, 3), flops)


def convolution_flops(model: keras.Model) -> dict[str, float]:
    """Return the forward FLOPs of one photo in each convolution of the backbone, in order."""
    return {
        layer.name: 2.0 * math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        for layer in model.layers
        if layer.name.startswith(BACKBONE_LAYERS) and hasattr(layer, "kernel")
    }


def step_flops(flops: dict[str, float], trained: Sequence[str]) -> float:
    """Return the FLOPs of a training step through ``trained`` layers, one photo.

    Forward, the gradient of the weights, and the gradient of the input, each as much again; the
    lowest layer's input needs none.
    """
    return 3 * sum(flops[name] for name in trained) - flops[trained[0]]


def head_row(model: keras.Model, size: Size) -> Row:
    """Solve the head on random activations."""
    from app.features.batches import BATCH, LabelledMaps
    from app.features.dataset import HEAD_CUT
    from app.training.linear_probe import fit_linear_probe

    random = np.random.default_rng(0)
    shape = model.get_layer(HEAD_CUT).output.shape[1:]

    def labelled() -> LabelledMaps:
        targets = np.arange(size.head_photos) % 2
        maps = random.gamma(1.0, 1.0, (size.head_photos, *shape)).astype(np.float32)
        maps[..., ::8] += targets[:, None, None, None]  # something to learn

        def walk(numbers: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(numbers), BATCH):
                yield maps[numbers[start : start + BATCH]]

        return LabelledMaps(walk, targets)

    train, validation = labelled(), labelled()
    started = time.perf_counter()
    fit_linear_probe(model, STAGES["head"], train, validation)
    seconds = time.perf_counter() - started
    return Row("head, solved", size.head_photos, size.head_photos / seconds, 0.0)


def step_row(name: str, part: keras.Model, flops: float, repeat: int, batch: int) -> Row:
    """Time training steps on a constant batch."""
    import keras

    part.compile(
        optimizer=keras.optimizers.AdamW(1e-5, use_ema=True),  # as app.training.finetune has it
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    random = np.random.default_rng(0)
    inputs = random.integers(0, 256, (batch, *part.input.shape[1:]), np.uint8)
    if part.input.shape[-1] != 3:  # cached activations arrive as float32
        inputs = inputs.astype(np.float32)
    targets = np.arange(batch, dtype=np.int32) % 2
    seconds = best_seconds(lambda: part.train_on_batch(inputs, targets), repeat)
    return Row(name, batch, batch / seconds, flops)


def best_seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the seconds that ``work`` takes at its best, after a first call that compiles."""
    work()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def train_seconds(data: Path, weights: str | None) -> dict[str, Any]:
    """Run train.py on photos in a process of its own, nothing cached, and time it.

    All but the report: a machine for computing need not have Matplotlib, which draws it.
    """
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "train.py", "--data", str(data.resolve()), "--runs", runs]
        command += ["--run", "timed", "--no-report"]
        command += [] if weights is None else ["--weights", weights]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise AppError(f"expected train.py to end well; received exit code {done.returncode}")
        metrics = json.loads((Path(runs) / "timed" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "photos": metrics["photos"],
        "seconds": seconds,
        "phases": metrics["seconds"],
        "cache": metrics["cache"],
    }


def table(told: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    peak = told["matrix_teraflops"]
    lines = [
        f"{told['device']}, {told['backend']}, {told['precision']}, {told['image_size']} pixels; "
        f"bfloat16 matrix product {peak:.4g} TFLOP/s",
        "",
        "| work | batch | photos a second | TFLOP/s | of the matrix rate |",
        "|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        counted = f"{row['teraflops']:.4g} | {row['share']:.0%}" if row["flops"] else "- | -"
        lines.append(
            f"| {row['name']} | {row['batch']} | {row['photos_per_second']:.4g} | {counted} |"
        )
    if "train" in told:
        photos = ", ".join(f"{n} {split}" for split, n in told["train"]["photos"].items())
        lines += ["", f"train.py, {photos}: {told['train']['seconds']:.1f} s, all but the report"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main))
