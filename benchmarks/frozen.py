"""The frozen prefix in Keras and in ONNX Runtime, photos a second, measured side by side.

    python -m benchmarks.frozen --image-size 224

Random weights and pixels: neither changes the time. The two are run in turn, and the best time of
each counts, since other work on the machine can only make it longer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from app.cli import run


def main(argv: Sequence[str]) -> int:
    """Measure and print one line for each engine."""
    parser = argparse.ArgumentParser(description="Keras against ONNX Runtime on the prefix.")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from app.frozen import frozen_prefix
    from app.model import build_classifier, prefix

    cuts = ["pooled", "block4_pool"]
    model = build_classifier(2, image_size=arguments.image_size)
    rounded = build_classifier(2, image_size=arguments.image_size, precision="bfloat16")
    shape = (arguments.batch, arguments.image_size, arguments.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    engines: dict[str, Callable[[Any], Any]] = {
        "keras float32": prefix(model, cuts).predict_on_batch,
        "keras bfloat16": prefix(rounded, cuts).predict_on_batch,
        "onnxruntime float32": frozen_prefix(model, cuts, "float32"),
    }
    best = dict.fromkeys(engines, float("inf"))
    for _ in range(arguments.repeat + 1):  # the first round includes tracing and never wins
        for name, engine in engines.items():
            started = time.perf_counter()
            engine(images)
            best[name] = min(best[name], time.perf_counter() - started)
    for name, seconds in best.items():
        print(f"{name}: {1000 * seconds / arguments.batch:.0f} ms a photo")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
