"""Photos of any classes: this product and a plain Keras recipe on the same splits, side by side.

    python -m benchmarks.classes flowers/ digits drawn --weights vgg16_..._notop.h5

For each folder: ``train.py --stages head`` and ``train.py`` with its defaults, each with an empty
cache and measured from outside, and the recipe that readers know (``plain_recipe``, below), which
trains on the same photos and keeps its last epoch. All are scored on the same test photos. Times
are processor time of all cores, so that a benchmark of an hour can be paused (SIGSTOP), and other
work on the machine changes little.
``digits`` and ``drawn`` make their own pictures: scikit-learn's digits, enlarged, and the project's
drawn pets.

What follows a lone ``--`` goes to ``train.py``, for example ``-- --budget 10``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.core.cli import run
from app.core.console import say
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.run_metrics import Scores
from app.data.folder_layout import SPLITS
from app.data.manifest import class_names, read_manifest
from app.data.sets.synthetic_pets import draw_sample
from app.evaluation.metrics import score
from benchmarks.command import absolute, answer, parser_of, train_flags
from benchmarks.markdown import markdown_table
from benchmarks.measured import load_average, measure, train_command

DIGIT_SIDE = 64  # pixels that a digit of 8 × 8 is enlarged to
OURS = {"head": ["--stages", "head"], "default": []}

# ---- the plain recipe ---------------------------------------------------------------------------

RECIPE_SIZE, RECIPE_BATCH, RECIPE_RATE, RECIPE_EPOCHS = 160, 32, 3e-5, 5


def plain_recipe(data: Path, weights: str, epochs: int) -> dict[str, Any]:
    """Fine-tune VGG16 as tutorials do, and answer the test photos with the last epoch's weights.

    Args:
        data: holds ``train``, ``validation`` and ``test`` with a folder for each class.
        weights: a file for ``keras.applications.VGG16``, ``imagenet`` or ``none``.
        epochs: of training.

    Returns:
        The test photos' ``targets`` and ``probabilities``.
    """
    import keras

    keras.utils.set_random_seed(0)

    def read(split: str) -> Any:
        return keras.utils.image_dataset_from_directory(
            data / split,
            image_size=(RECIPE_SIZE, RECIPE_SIZE),
            batch_size=RECIPE_BATCH,
            shuffle=split == "train",
            verbose=False,
        )

    train, validation, test = map(read, SPLITS)
    base = keras.applications.VGG16(
        weights=None if weights == "none" else weights, include_top=False, pooling="avg"
    )
    for layer in base.layers:
        layer.trainable = layer.name.startswith(("block4", "block5"))
    inputs = keras.Input((RECIPE_SIZE, RECIPE_SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = base(keras.applications.vgg16.preprocess_input(x))
    x = keras.layers.Dropout(0.5)(x)
    outputs = keras.layers.Dense(len(train.class_names), activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(RECIPE_RATE), "sparse_categorical_crossentropy")
    model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
    targets = np.concatenate([labels for _, labels in test.as_numpy_iterator()])
    probabilities = model.predict(test, verbose=0)
    return {
        "targets": targets.tolist(),
        "probabilities": probabilities.tolist(),
    }


RECIPE_PROCESS = """
import json, logging, sys
from pathlib import Path
from app.core.console import quiet_native_stderr
from benchmarks.classes import plain_recipe
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every graph it traces
data, weights, epochs = sys.argv[1:]
with quiet_native_stderr():
    found = plain_recipe(Path(data), weights, int(epochs))
print(json.dumps(found))
"""

# ---- measuring all ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: one way of training on one folder, and what came of it.

    Attributes:
        folder: its name.
        name: ``head``, ``default`` or ``recipe``.
        seconds: of the whole process, on all cores (``Measured.cpu_seconds``).
        test: scores on the test photos.
        image_size: in pixels.
    """

    folder: str
    name: str
    seconds: float
    test: Scores
    image_size: int


def main(argv: Sequence[str]) -> int:
    """Measure, print a table; return 0."""
    arguments = _parser().parse_args(argv)
    rows, load = [], [load_average()]
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        for number, folder in enumerate(arguments.folders):
            place = Path(name) / str(number)
            place.mkdir()
            data = _photos(folder, place / "made")
            for row in measure_folder(folder, data, place, arguments):
                say(f"{row.folder}, {row.name}: {row.test.accuracy:.4f}, {row.seconds:.0f} s")
                rows.append(row)
                load.append(load_average())
    table = f"{_table(rows)}\n\nLoad average from {min(load):.1f} to {max(load):.1f}."
    answer(arguments, table, {"load": load, "rows": [asdict(row) for row in rows]})
    return 0


def measure_folder(
    folder: str, data: Path, place: Path, arguments: argparse.Namespace
) -> Iterator[Row]:
    """Train on a folder in all ways; ``place`` takes runs, caches and copies of the photos.

    Yields:
        A row when it is measured: the next may take half an hour.
    """
    name = Path(folder).resolve().name
    for run_name, flags in OURS.items():
        runs = place / run_name
        done = measure(train_command(data, runs, run_name, [*train_flags(arguments), *flags]))
        finished = Run(runs / run_name)
        metrics, config = finished.read_metrics(), json.loads(finished.config.read_text("utf-8"))
        yield Row(name, run_name, done.cpu_seconds, metrics.test, config["image_size"])
    split = copy_splits(finished, data, place / "split")
    weights = absolute(arguments.weights or "imagenet")
    done = measure(
        [sys.executable, "-c", RECIPE_PROCESS, str(split), weights, str(arguments.epochs)],
        env={
            "KERAS_BACKEND": "tensorflow",
            "PYTHONWARNINGS": "ignore",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    found = json.loads(done.stdout.splitlines()[-1])
    scores = score(np.array(found["targets"]), np.array(found["probabilities"]))
    yield Row(name, "recipe", done.cpu_seconds, scores, RECIPE_SIZE)


def copy_splits(finished: Run, data: Path, target: Path) -> Path:
    """Copy the photos that a run used into ``target/SPLIT/CLASS``; a split's class may be empty."""
    used = [row for row in read_manifest(finished.manifest) if row.verdict == "used"]
    for split in SPLITS:
        for label in class_names(used):
            (target / split / label).mkdir(parents=True)
    for number, row in enumerate(used):
        name = f"{number}{Path(row.name).suffix}"
        shutil.copy(data / row.name, target / str(row.split) / row.label / name)
    return target


def _photos(folder: str, made: Path) -> Path:
    """Return a folder of photos; those of ``digits`` and ``drawn`` are made in ``made``."""
    if folder == "digits":
        return draw_digits(made)
    if folder == "drawn":
        draw_sample(made)
        return made
    if not Path(folder).is_dir():
        raise UsageError(
            f"expected a folder of photos, digits or drawn; received {folder!r}, which is not there"
        )
    return Path(folder).resolve()


def draw_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 handwritten digits as ``folder/DIGIT/NUMBER.png``, enlarged."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(target) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8))
        small.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC).save(path)
    return folder


def _table(rows: Sequence[Row]) -> str:
    names = {"head": "`--stages head`", "default": "default", "recipe": "plain recipe"}
    header = ["photos", "what", "pixels", "test accuracy", "log-loss", "calibration error"]
    cells = []
    for row in rows:
        recipe = next(r for r in rows if (r.folder, r.name) == (row.folder, "recipe"))
        test = row.test
        cells.append(
            [
                f"{row.folder} ({test.n} to test)",
                names[row.name],
                str(row.image_size),
                *(f"{value:.4f}" for value in (test.accuracy, test.log_loss, test.ece)),
                f"{row.seconds / recipe.seconds:.2f}",
            ]
        )
    return markdown_table([*header, "time, recipe 1"], cells)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "classes", "This product and a plain Keras recipe, on photos of any classes, side by side."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="photos, only read, in any layout that train.py reads; or digits, or drawn",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=RECIPE_EPOCHS,
        metavar="N",
        help=f"of the recipe (default: {RECIPE_EPOCHS})",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where a temporary folder with the runs and caches is made (default: the system's)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
