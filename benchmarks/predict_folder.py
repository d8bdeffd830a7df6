"""How fast ``predict.py`` goes through a folder, against the bare engines on ready arrays.

    python -m benchmarks.predict_folder photos/ --run NAME

Measured in turn, several times, the medians compared:

- int8 against float32: seconds a photo of ONNX Runtime alone (bar: a third), and whether both say
  the same; OpenVINO beside it, where it is installed;
- ``predict.py`` on the folder, a whole process with start and decoding, against the fastest engine
  alone on as many ready arrays (bar: 0.85 of its photos a second);
- its memory with all photos against that with a fifth of them, and with one (bar: 300 MB).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from app.core.cli import run
from app.core.config import EngineName
from app.core.errors import UsageError
from app.core.run_folder import Run, newest_complete_run
from app.data.decode import Pixels, load_image
from app.data.folder_layout import files_below
from app.inference.bundle_format import INT8_FILE, ONNX_FILE
from app.inference.engine_choice import ENGINES, WORTH_MEASURING
from app.inference.engines import compile_model
from app.inference.predictor import Classifier, Precision
from benchmarks.command import answer
from benchmarks.markdown import markdown_table, verdict
from benchmarks.measured import load_average, measure

INT8_BAR, FOLDER_BAR, MEMORY_BAR = 1 / 3, 0.85, 300e6
BATCHES = (1, 8)  # the better one counts
ANSWERS = ["probabilities", "novelty"]
READY = 64  # arrays that are gone through again and again
Work = Callable[[Pixels], Any]


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, return 0 when all bars are met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict_folder",
        description="predict.py on a folder against the bare engines on ready arrays.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run", help="default: the newest complete run")
    parser.add_argument("--photos", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    arguments = parser.parse_args(argv)
    chosen = (
        Run(arguments.runs / arguments.run)
        if arguments.run
        else newest_complete_run(arguments.runs)
    )
    paths = evenly(sorted(files_below(arguments.folder)), arguments.photos)
    values = measured(chosen.bundle.resolve(), paths, arguments.repeat)
    answer(arguments, table(values), values)
    return 0 if all(row["met"] for row in values["rows"]) else 1


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """Return ``count`` of the paths, evenly spaced."""
    if len(paths) < count:
        raise UsageError(f"expected {count} photos; received {len(paths)}; see --photos")
    return [paths[i].resolve() for i in np.linspace(0, len(paths) - 1, count).astype(int)]


def measured(bundle: Path, paths: Sequence[Path], repeat: int) -> dict[str, Any]:
    """Return every figure and whether its bar is met."""
    few = [str(path) for path in paths[: max(1, len(paths) // 5)]]
    if len(paths) >= WORTH_MEASURING:
        measure(command(bundle, list(map(str, paths))))  # the engine is measured, and kept
    # First: a process starts with the peak of the one that started it, and this one will grow.
    one, with_few, with_all = (
        measure(command(bundle, some)).peak_rss for some in (few[:1], few, list(map(str, paths)))
    )
    classifiers = {name: Classifier(bundle, precision=name) for name in precisions(bundle)}
    works = {
        f"{engine} {name}": bare_work(bundle, engine, name)
        for name in classifiers
        for engine in ENGINES
        if find_spec(engine)
    }
    size = next(iter(classifiers.values())).bundle.image_size
    ready = np.stack([load_image(path, size) for path in paths[:READY]])
    seconds: dict[str, list[float]] = {name: [] for name in works}
    folder: list[float] = []
    load = load_average()
    for _ in range(repeat):
        for name, work in works.items():
            seconds[name].append(min(bare(work, ready, batch) for batch in BATCHES))
        done = measure(command(bundle, list(map(str, paths))))
        folder.append(len(paths) / done.seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians.values())
    share = statistics.median(folder) * best
    rows = [row("predict.py, photos a second, of bare", share, FOLDER_BAR, least=True)]
    if "int8" in classifiers:
        ratio = medians["onnxruntime int8"] / medians["onnxruntime float32"]
        rows.append(row("int8, seconds a photo, of float32's", ratio, INT8_BAR))
        rows.append(row("labels that int8 changes, of the ready", changed(classifiers, ready), 0.0))
    if len(few) > BATCHES[-1]:  # of fewer not one batch is full
        rows.append(row("memory of all photos, of a fifth of them", with_all / with_few, 1.1))
    rows.append(row("memory of one photo, MB", one / 1e6, MEMORY_BAR / 1e6))
    return {
        "photos": len(paths),
        "load": load,
        "milliseconds": {name: 1e3 * median for name, median in medians.items()},
        "photos_a_second": statistics.median(folder),
        "peak_mb": with_all / 1e6,
        "rows": rows,
    }


def precisions(bundle: Path) -> tuple[Precision, ...]:
    """Return what the bundle can compute in."""
    default = Classifier(bundle).precision
    return ("float32",) if default == "float32" else ("float32", "int8")


def bare_work(bundle: Path, engine: EngineName, precision: Precision) -> Work:
    """Return what asks an engine for answers without maps; ONNX Runtime without our settings."""
    path = bundle / (INT8_FILE if precision == "int8" else ONNX_FILE)
    if engine != "onnxruntime":
        return partial(compile_model(engine, path).run, names=ANSWERS)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return lambda images: session.run(ANSWERS, {"image": images}, options)


def bare(work: Work, ready: Pixels, batch: int) -> float:
    """Return the seconds a photo of an engine alone."""
    work(ready[:batch])
    started = time.perf_counter()
    for start in range(0, len(ready), batch):
        work(ready[start : start + batch])
    return (time.perf_counter() - started) / len(ready)


def changed(classifiers: dict[Precision, Classifier], ready: Pixels) -> float:
    """Return the share of photos whose likeliest class differs between the precisions."""
    first, second = (
        np.concatenate([c.outputs(ready[i : i + 8])[0] for i in range(0, len(ready), 8)])
        for c in classifiers.values()
    )
    return float((first.argmax(axis=1) != second.argmax(axis=1)).mean())


def command(bundle: Path, paths: Sequence[str]) -> list[str]:
    """Return the command line of predict.py."""
    return [sys.executable, "predict.py", "--json", "--bundle", str(bundle), *paths]


def row(what: str, value: float, bar: float, *, least: bool = False) -> dict[str, Any]:
    """Return a line of the table."""
    met = value >= bar if least else value <= bar
    return {"what": what, "value": value, "bar": bar, "least": least, "met": met}


def table(values: dict[str, Any]) -> str:
    """Return the figures for people."""
    rows = [
        [
            r["what"],
            f"{r['value']:.3g}",
            f"{'≥' if r['least'] else '≤'} {r['bar']:.3g}",
            verdict(r["met"]),
        ]
        for r in values["rows"]
    ]
    each = ", ".join(f"{name} {value:.1f} ms" for name, value in values["milliseconds"].items())
    return (
        markdown_table(["", "measured", "bar", ""], rows)
        + f"\n\n{values['photos']} photos, bare {each} a photo; predict.py "
        + f"{values['photos_a_second']:.1f} photos a second, {values['peak_mb']:.0f} MB; "
        + f"load before {values['load']:.1f}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
