"""How long one photo takes from a cold start: predict.py against Keras, measured side by side.

    python -m benchmarks.predict_start --run NAME photo.jpg

Both are whole processes, started in turn; the median of each is compared. Asked for float32,
predict.py must give the same answer; it is timed as a user starts it, in int8 where that was
exported. The bar: it takes at most a tenth of the time. What it takes of memory:
``benchmarks.predict_folder``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.core.cli import run
from app.core.errors import AppError
from app.core.run_folder import Run, newest_complete_run

ROOT = Path(__file__).resolve().parent.parent
BAR = 0.1
# What a person would write who has only Keras: load the model, load the photo, predict.
WITH_KERAS = """
import json, sys
from pathlib import Path
import keras
from app.data.decode import load_image
bundle, photo = Path(sys.argv[1]), Path(sys.argv[2])
model = keras.models.load_model(bundle / "classifier.keras")
about = json.loads((bundle / "bundle.json").read_text())
image = load_image(photo, about["image_size"])
logits = model.predict(image[None], verbose=0)["logits"]
row = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
print(json.dumps({"probabilities": dict(zip(about["classes"], map(float, row)))}))
"""


def main(argv: Sequence[str]) -> int:
    """Measure, print one line, return 0 when the bar is met."""
    parser = argparse.ArgumentParser(description="Cold start of predict.py against Keras.")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run", help="default: the newest complete run")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args(argv)
    chosen = (
        Run(arguments.runs / arguments.run)
        if arguments.run
        else newest_complete_run(arguments.runs)
    )
    bundle, photo = str(chosen.bundle.resolve()), str(arguments.photo.resolve())
    ours = [sys.executable, "predict.py", "--json", "--bundle", bundle, photo]
    commands = {"predict.py": ours, "keras": [sys.executable, "-c", WITH_KERAS, bundle, photo]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    answers: dict[str, dict[str, float]] = {}
    for _ in range(arguments.repeat):
        for name, command in commands.items():
            started = time.perf_counter()
            answers[name] = answer_of(command)
            seconds[name].append(time.perf_counter() - started)
    exact = answer_of([*ours, "--precision", "float32"])
    difference = max(abs(answers["keras"][label] - p) for label, p in exact.items())
    if difference > 1e-3:
        raise AppError(f"expected the same answer from both; received a difference of {difference}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["predict.py"] / medians["keras"]
    print(
        f"predict.py {medians['predict.py']:.2f} s, keras {medians['keras']:.2f} s, "
        f"ratio {ratio:.3f} (bar {BAR}), answers differ by {difference:.1e}"
    )
    return 0 if ratio <= BAR else 1


def answer_of(command: Sequence[str]) -> dict[str, float]:
    """Run a process and return the probabilities that it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    probabilities: dict[str, float] = json.loads(done.stdout)["probabilities"]
    return probabilities


if __name__ == "__main__":
    sys.exit(run(main))
