"""The frozen prefix: which engine runs it fastest, and what the road around it costs.

    python -m benchmarks.frozen --only engines --image-size 224
    python -m benchmarks.frozen --only road --data cats_vs_dogs_small

*Engines*: Keras, ONNX Runtime and OpenVINO on the same constant batch. *Road*: photos a second
through ``app.features.store.compute_features`` (decoding files, drawing views, the prefix, writing
the cache) against the bare prefix on a constant batch of the same size, in the precision and by the
engine that training takes.
The bar: at least 0.9 of the bare rate.

Random weights: they do not change the time. All are run in turn, and the best time of each counts,
since other work on the machine can only make it longer; the first round, which includes tracing,
never counts. The files come from the system's memory after that round.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.core.cli import run
from app.core.config import LARGEST_AUTO_SIZE, TrainConfig
from app.core.console import quiet_native_stderr
from app.core.errors import UsageError
from app.data.augmentation import BATCH, View
from app.data.decode import Pixels
from app.data.folder_layout import find_files
from app.data.manifest import Photo
from app.data.sets.synthetic_pets import draw_sample
from benchmarks.command import answer
from benchmarks.markdown import markdown_table, verdict
from benchmarks.measured import load_average

BAR = 0.9
VIEWS = 2  # of each photo: itself and a crop, in equal parts, as in a training set of two views
MANY = 10**6  # photos: the engine is measured
CUTS = list(dict.fromkeys(stage.cut for stage in TrainConfig().stage_plan()))
Work = Callable[[], Any]


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for, print it; return 0 when the bar is met."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_native_stderr():
        import app.features.extractor  # noqa: F401  it brings Keras, whose remarks on GPUs help nobody
    values: dict[str, Any] = {"image_size": arguments.image_size, "load": [load_average()]}
    lines, met = [], True
    if arguments.only != "road":
        values["ms_a_photo"] = time_engines(arguments)
        rows = [[name, f"{value:.1f}"] for name, value in values["ms_a_photo"].items()]
        lines.append(markdown_table(["engine", "ms a photo"], rows))
    if arguments.only != "engines":
        values["road"] = road = time_road(arguments)
        met = road["ratio"] >= BAR
        rows = [[name, f"{road[name]:.2f}"] for name in ("bare", "road")]
        lines.append(markdown_table(["photos a second", road["precision"]], rows))
        lines.append(
            f"Ratio {road['ratio']:.3f} (bar {BAR}), {verdict(met)}; in the single rounds "
            f"{min(road['ratios']):.3f} to {max(road['ratios']):.3f}, median "
            f"{statistics.median(road['ratios']):.3f}."
        )
    values["load"].append(load_average())
    lines.append(f"Load average {values['load'][0]:.1f} before, {values['load'][1]:.1f} after.")
    answer(arguments, "\n\n".join(lines), values)
    return 0 if met else 1


def time_engines(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds a photo of each engine."""
    from app.features.extractor import make_extractor
    from app.features.int8_backbone import make_int8_backbone
    from app.network.classifier import build_classifier, prefix

    model = build_classifier(2, image_size=arguments.image_size)
    rounded = build_classifier(2, image_size=arguments.image_size, precision="bfloat16")
    images = constant_batch(arguments.image_size)
    keras_float32, keras_bfloat16 = (prefix(each, CUTS) for each in (model, rounded))
    onnx = make_extractor(model, CUTS, "float32")
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        photos = some_photos(None, 8, Path(name) / "drawn")
        layers = make_int8_backbone(Path(name), model, "random", photos)
        int8 = make_extractor(model, CUTS, "float32", int8=layers)
        by_openvino = openvino_works(model, layers, images) if find_spec("openvino") else {}
    works: dict[str, Work] = {
        "keras float32": lambda: keras_float32.predict_on_batch(images),
        "keras bfloat16": lambda: keras_bfloat16.predict_on_batch(images),
        # On a GPU make_extractor answers with Keras here as well.
        "onnxruntime float32": lambda: onnx(images),
        "onnxruntime int8": lambda: int8(images),
        **by_openvino,
    }
    rounds = in_turn(works, arguments.repeat)
    return {name: 1000 * min(seconds) / len(images) for name, seconds in rounds.items()}


def openvino_works(model: Any, layers: Any, images: Pixels) -> dict[str, Work]:
    """Return what computes the same in OpenVINO."""
    from app.features.extractor import make_extractor

    exact, int8 = (
        make_extractor(model, CUTS, "float32", int8=each, engine_of_onnx="openvino")
        for each in (None, layers)
    )
    return {
        "openvino float32": lambda: exact(images),
        "openvino int8": lambda: int8(images),
    }


def time_road(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return photos a second of the bare prefix and of the road, and their ratio."""
    from app.features.extractor import make_extractor, onnx_engine
    from app.features.int8_backbone import make_int8_backbone
    from app.features.store import FeatureSpec, FeatureStore, compute_features
    from app.network.classifier import build_classifier
    from app.network.device import resolve_frozen_precision, resolve_precision

    size = arguments.image_size
    precision, trained = resolve_frozen_precision("auto"), resolve_precision("auto")
    model = build_classifier(2, image_size=size, precision=trained)
    images = constant_batch(size)
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        photos = some_photos(arguments.data, arguments.photos, Path(name) / "drawn")
        int8 = None
        if precision == "int8":
            int8 = make_int8_backbone(Path(name), model, "random", photos)
        engine = onnx_engine(model, CUTS, int8, "auto", MANY)
        frozen = make_extractor(model, CUTS, trained, int8=int8, engine_of_onnx=engine)
        views = [View(photo, number, seed=0) for photo in photos for number in range(VIEWS)]
        constant = np.resize(images, (frozen.batch, *images.shape[1:]))
        fresh = (Path(name) / f"cache{number}" for number in itertools.count())

        def bare() -> None:
            given = [constant[: len(views) - start] for start in range(0, len(views), frozen.batch)]
            for _ in frozen.stream(given):
                pass

        def road() -> None:
            folder = next(fresh)
            stores = [
                FeatureStore(folder, FeatureSpec(cut, "vgg16", "random", size, precision))
                for cut in CUTS
            ]
            compute_features(frozen, stores, views, size)

        rounds = in_turn({"bare": bare, "road": road}, arguments.repeat)
    ratios = [b / r for b, r in zip(rounds["bare"], rounds["road"], strict=True)]
    rates = {name: len(views) / min(seconds) for name, seconds in rounds.items()}
    ratio = rates["road"] / rates["bare"]
    return {**rates, "ratio": ratio, "ratios": ratios, "views": len(views), "precision": precision}


def in_turn(works: dict[str, Work], repeat: int) -> dict[str, list[float]]:
    """Run the works in turn, once to warm up and ``repeat`` times; return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeat + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def constant_batch(size: int) -> Pixels:
    """Return a batch of random pixels, the same every time."""
    shape = (BATCH, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def some_photos(data: Path | None, count: int, drawn: Path) -> list[Photo]:
    """Return photos of a data folder, spread evenly over it, or drawn ones where there is none."""
    if data is None:
        draw_sample(drawn, per_class=-(-count // 2))
    files = find_files(data or drawn)
    if len(files) < count:
        raise UsageError(
            f"expected {count} photos in {data}; received {len(files)}; lower --photos"
        )
    chosen = [files[number * len(files) // count] for number in range(count)]
    return [
        Photo(file.path, file.name, hashlib.sha256(file.path.read_bytes()).hexdigest(), 0)
        for file in chosen
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frozen",
        description="The frozen prefix: its engines, and the road around it.",
    )
    parser.add_argument("--only", choices=("engines", "road"), help="default: both")
    parser.add_argument("--data", type=Path, metavar="DIR", help="photos (default: drawn ones)")
    parser.add_argument(
        "--photos",
        type=int,
        default=128,
        metavar="N",
        help=f"of the road, {VIEWS} views each (default: 128)",
    )
    parser.add_argument("--image-size", type=int, default=LARGEST_AUTO_SIZE, metavar="PIXELS")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where caches are written for a while"
    )
    parser.add_argument(
        "--json", action="store_true", help="JSON on stdout, the tables on stderr instead"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
