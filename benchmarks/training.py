"""Our runs and the tutorial recipe on the same photos, side by side: seconds, ratio, accuracy.

    python -m benchmarks.training --data cats_vs_dogs_small --weights vgg16_..._notop.h5

Ours is ``train.py`` as a user starts it, each time with an empty cache, measured from outside,
everything included: ``--stages head``, the default stages, and these once more with another setting
of the head, which finds the first one's cache. The recipe (``time_recipe``, below) is that of the
book's second edition. It would take hours, so one epoch of each of its two phases is timed and
multiplied out; our figures are of whole runs. What is left out makes the recipe look faster:
tracing (a short warm-up comes before each timed epoch) and saving the best weights.

What follows a lone ``--`` goes to ``train.py``, for example ``-- --image-size 128``.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.core.cli import run
from app.core.console import say
from app.core.errors import UsageError
from app.core.records import values_of
from app.core.run_folder import Run
from app.data.folder_layout import SPLITS
from benchmarks.command import absolute, answer, parser_of, train_flags
from benchmarks.markdown import GIB, gib, markdown_table, verdict
from benchmarks.measured import folder_bytes, load_average, measure, train_command

# The bars: of the recipe's time, and of memory for 5,000 photos.
HEAD_BAR, STAGED_BAR, MEMORY_BAR = 1 / 40, 1 / 12, 4 * GIB
OTHER_STRENGTH = "3"  # any setting of the head that is not the default
PARTS = ("recipe", "head", "staged")

# ---- the tutorial recipe ------------------------------------------------------------------------

RECIPE_SIZE, RECIPE_BATCH = 180, 32
RECIPE_EPOCHS = {"frozen base": 50, "last four layers open": 30}
WARM_UP = 2  # batches; they trace the graph, once for each phase


def time_recipe(data: Path, weights: str, fraction: float) -> dict[str, Any]:
    """Walk through the tutorial recipe, timing one epoch of each phase, in this process.

    Source: F. Chollet, Deep Learning with Python, second edition (2021), chapter 8, "Feature
    extraction together with data augmentation" and "Fine-tuning a pretrained model"; the notebook
    ``chapter08_intro-to-dl-for-computer-vision.ipynb`` of the repository
    ``fchollet/deep-learning-with-python-notebooks`` at commit 60e4956. Image size, batch,
    augmentation, layers, optimisers and epochs are those.

    Args:
        data: holds ``train``, ``validation`` and ``test`` with two class folders each.
        weights: a file for ``keras.applications.VGG16``, ``imagenet`` or ``none``.
        fraction: of each epoch's batches that is run; the time is scaled by photos.

    Returns:
        ``load_seconds`` (imports, datasets, network), ``epoch_seconds`` by phase (training and
        validation) and ``test_seconds`` (loading the best weights and asking them once).
    """
    started = time.perf_counter()
    import keras

    read = partial(
        keras.utils.image_dataset_from_directory,
        image_size=(RECIPE_SIZE, RECIPE_SIZE),
        batch_size=RECIPE_BATCH,
        verbose=False,
    )
    train, validation, test = (read(data / split) for split in SPLITS)
    model, base = _recipe_network(weights)
    times: dict[str, Any] = {"load_seconds": time.perf_counter() - started, "epoch_seconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "best.keras"
        for phase in RECIPE_EPOCHS:
            optimiser: Any = "rmsprop"
            if phase == "last four layers open":
                base.trainable = True
                for layer in base.layers[:-4]:
                    layer.trainable = False
                optimiser = keras.optimizers.RMSprop(learning_rate=1e-5)
            model.compile(loss="binary_crossentropy", optimizer=optimiser, metrics=["accuracy"])
            times["epoch_seconds"][phase] = _time_epoch(model, train, validation, best, fraction)
        started = time.perf_counter()
        model = keras.models.load_model(best)
        loaded = time.perf_counter()
        some, scale = _first_batches(test, fraction)
        model.evaluate(some, verbose=0)
        times["test_seconds"] = loaded - started + scale * (time.perf_counter() - loaded)
    return times


def _recipe_network(weights: str) -> tuple[Any, Any]:
    """Return the recipe's network and its frozen convolutional base."""
    import keras
    from keras import layers

    base = keras.applications.vgg16.VGG16(
        weights=None if weights == "none" else weights, include_top=False
    )
    base.trainable = False
    augmentation = keras.Sequential(
        [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.2)]
    )
    inputs = keras.Input((RECIPE_SIZE, RECIPE_SIZE, 3))
    x = augmentation(inputs)
    x = keras.applications.vgg16.preprocess_input(x)
    x = base(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256)(x)  # no activation there either
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x)), base


def _time_epoch(model: Any, train: Any, validation: Any, best: Path, fraction: float) -> float:
    """Return the seconds of one epoch of a compiled model, validation included."""
    import keras

    model.fit(train.take(WARM_UP), validation_data=validation.take(1), verbose=0)
    some, scale = _first_batches(train, fraction)
    some_validation, validation_scale = _first_batches(validation, fraction)
    clock = _epoch_clock(keras.callbacks.Callback)
    saving = keras.callbacks.ModelCheckpoint(best, save_best_only=True, monitor="val_loss")
    # The clock comes first: it has stopped when the best weights are saved.
    model.fit(some, validation_data=some_validation, verbose=0, callbacks=[clock, saving])
    return float(scale * clock.training + validation_scale * clock.validation)


def _first_batches(dataset: Any, fraction: float) -> tuple[Any, float]:
    """Return the first batches of a dataset and by what their time is to be multiplied."""
    photos = len(dataset.file_paths)
    batches = math.ceil(fraction * len(dataset))
    return dataset.take(batches), photos / min(photos, batches * RECIPE_BATCH)


def _epoch_clock(callback: type[Any]) -> Any:
    """Return a callback that times the training and the validation of an epoch."""

    class Clock(callback):  # type: ignore[misc]
        training = validation = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_test_begin(self, logs: Any = None) -> None:
            self.middle = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.training = self.middle - self.started
            self.validation = time.perf_counter() - self.middle

    return Clock()


RECIPE_PROCESS = """
import json, logging, sys
from pathlib import Path
from app.core.console import quiet_native_stderr
from benchmarks.training import time_recipe
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every graph it traces
data, weights, fraction = sys.argv[1:]
with quiet_native_stderr():
    times = time_recipe(Path(data), weights, float(fraction))
print(json.dumps(times))
"""


def whole_recipe(times: dict[str, Any]) -> float:
    """Return the seconds of the whole recipe, its timed epochs multiplied out."""
    epochs = sum(RECIPE_EPOCHS[phase] * times["epoch_seconds"][phase] for phase in RECIPE_EPOCHS)
    return float(times["load_seconds"] + epochs + times["test_seconds"])


# ---- measuring both -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: one way of training and what it cost.

    Attributes:
        name: what was run.
        seconds: of the whole, for the recipe multiplied out.
        peak_rss: see ``Measured``.
        peak_anonymous: see ``Measured``.
        details: the recipe's times, or of a run its test scores, its seconds by phase, and the
            bytes that it added to the cache.
    """

    name: str
    seconds: float
    peak_rss: int
    peak_anonymous: int | None
    details: dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Measure, print a table; return 0 when the bars are met."""
    arguments = _parser().parse_args(argv)
    _check_photos(arguments.data)
    if not 0 < arguments.epoch_fraction <= 1:
        raise UsageError(
            f"expected --epoch-fraction above 0 and up to 1; received {arguments.epoch_fraction}"
        )
    load = [load_average()]
    best: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        data = arguments.data
        if arguments.limit:
            data = copy_some(data, Path(name) / "photos", arguments.limit)
        measured = _measures(data, arguments)
        for number in range(arguments.repeat):
            for part in [arguments.only] if arguments.only else PARTS:
                say(f"round {number + 1}/{arguments.repeat}, {part}; load {load_average():.2f}")
                with tempfile.TemporaryDirectory(dir=name) as runs:
                    for row in measured[part](Path(runs)):
                        keep_faster(best, row)
                load.append(load_average())
    rows = list(best.values())
    table = "\n".join([_table(rows), "", *_notes(rows, load, arguments.repeat)])
    answer(arguments, table, {"load": load, "rows": [asdict(row) for row in rows]})
    return 0 if all(met for _, _, met in bars(rows)) else 1


def keep_faster(best: dict[str, Row], row: Row) -> None:
    """Keep the faster of two measurements: other work on the machine can only make one longer."""
    best[row.name] = min(best.get(row.name, row), row, key=lambda kept: kept.seconds)


def bars(rows: Sequence[Row]) -> list[tuple[str, str, bool]]:
    """Return what is judged, the figure beside its bar, and whether it is met."""
    seconds = {row.name: row.seconds for row in rows}
    found = []
    for name, bar in (("head", HEAD_BAR), ("staged", STAGED_BAR)):
        if name in seconds and "recipe" in seconds:
            ratio = seconds[name] / seconds["recipe"]
            told = f"1/{1 / ratio:.1f} (bar 1/{1 / bar:.0f})"
            found.append((f"{name}, of the recipe's time", told, ratio <= bar))
    for row in rows:
        if row.name != "recipe":
            told = f"{gib(row.peak_rss)} GiB (bar {gib(MEMORY_BAR)})"
            found.append((f"{row.name}, peak memory", told, row.peak_rss <= MEMORY_BAR))
        if row.name == "staged again":
            told = f"{row.details['cache_bytes']} bytes added to the cache (bar 0)"
            found.append((row.name, told, row.details["cache_bytes"] == 0))
    return found


def copy_some(data: Path, target: Path, limit: int) -> Path:
    """Copy the first photos of each split, ``limit`` in all and equally many of each class."""
    for split in SPLITS:
        labels = [path for path in sorted((data / split).iterdir()) if path.is_dir()]
        for label in labels:
            (target / split / label.name).mkdir(parents=True)
            for path in sorted(label.iterdir())[: limit // len(labels)]:
                shutil.copy(path, target / split / label.name)
    return target


def _measures(
    data: Path, arguments: argparse.Namespace
) -> dict[str, Callable[[Path], Iterator[Row]]]:
    """Return for each part what measures it in a given empty folder for runs."""
    flags = train_flags(arguments)

    def recipe(_: Path) -> Iterator[Row]:
        settings = [absolute(arguments.weights or "imagenet"), str(arguments.epoch_fraction)]
        done = measure(
            [sys.executable, "-c", RECIPE_PROCESS, str(data.resolve()), *settings],
            env={
                "KERAS_BACKEND": "tensorflow",
                "PYTHONWARNINGS": "ignore",  # Keras remarks on its own default of fit(shuffle=)
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
        )
        times = json.loads(done.stdout.splitlines()[-1])
        yield Row("recipe", whole_recipe(times), done.peak_rss, done.peak_anonymous, times)

    def head(runs: Path) -> Iterator[Row]:
        yield _ours("head", data, runs, [*flags, "--stages", "head"])

    def staged(runs: Path) -> Iterator[Row]:
        yield _ours("staged", data, runs, flags)
        other = [*flags, "--head-strength", OTHER_STRENGTH]
        yield _ours("staged again", data, runs, other)

    return {"recipe": recipe, "head": head, "staged": staged}


def _ours(name: str, data: Path, runs: Path, flags: Sequence[str]) -> Row:
    """Train once and return its row; the cache of runs that are there already is used."""
    folder = name.replace(" ", "-")
    before = folder_bytes(runs)
    done = measure(train_command(data, runs, folder, flags))
    finished = Run(runs / folder)
    metrics = finished.read_metrics()
    details = {
        "test": values_of(metrics.test),
        "seconds": metrics.seconds,
        "cache": metrics.cache,
        # What lies under runs/ and is no run is the cache.
        "cache_bytes": folder_bytes(runs) - before - folder_bytes(finished.folder),
    }
    return Row(name, done.seconds, done.peak_rss, done.peak_anonymous, details)


def _table(rows: Sequence[Row]) -> str:
    names = {
        "recipe": "tutorial recipe, multiplied out",
        "head": "`--stages head`, cold cache",
        "staged": "default stages, cold cache",
        "staged again": f"the same with `--head-strength {OTHER_STRENGTH}`",
    }
    whole = next((row.seconds for row in rows if row.name == "recipe"), None)
    header = ["what", "seconds", "ratio", "test accuracy", "log-loss", "calibration error"]
    cells = []
    for row in rows:
        test = row.details.get("test")
        scores = [f"{test[key]:.4f}" for key in ("accuracy", "log_loss", "ece")] if test else []
        cells.append(
            [
                names[row.name],
                f"{row.seconds:,.0f}",
                "–" if whole is None or row.name == "recipe" else f"1/{whole / row.seconds:.1f}",
                *(scores or ["–"] * 3),
                gib(row.peak_rss),
                gib(row.peak_anonymous),
            ]
        )
    return markdown_table([*header, "peak GiB", "of it not mapped"], cells)


def _notes(rows: Sequence[Row], load: Sequence[float], repeat: int) -> list[str]:
    """Return the sentences below the table: what it is made of, the bars, the machine's load."""
    notes = []
    for row in rows:
        if row.name == "recipe":
            times = row.details
            epochs = " + ".join(
                f"{count} epochs of {times['epoch_seconds'][phase]:.1f} s ({phase})"
                for phase, count in RECIPE_EPOCHS.items()
            )
            notes.append(
                f"The recipe: {times['load_seconds']:.1f} s to load, {epochs}, "
                f"{times['test_seconds']:.1f} s for the test photos."
            )
        else:
            phases = {k: v for k, v in row.details["seconds"].items() if k != "total"}
            phases["imports, report and the rest"] = row.seconds - sum(phases.values())
            told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
            grown = row.details["cache_bytes"] / 1e9
            notes.append(f"{row.name}: {told}; {grown:.2f} GB added to the cache.")
    notes += [f"{name}: {told}, {verdict(met)}." for name, told, met in bars(rows)]
    best = f", the fastest of {repeat} rounds" if repeat > 1 else ""
    notes.append(f"Load average from {min(load):.1f} to {max(load):.1f}{best}.")
    return notes


def _check_photos(data: Path) -> None:
    for split in SPLITS:
        labels = [path for path in (data / split).glob("*") if path.is_dir()]
        if len(labels) != 2:
            raise UsageError(
                f"expected two class folders in {data / split}; received {len(labels)}; the recipe "
                "needs train/, validation/ and test/ with the same two classes"
            )


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "training",
        "Our runs and the tutorial recipe, the same photos and weights: seconds, accuracy.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="train/, validation/ and test/ with two class folders each; only read",
    )
    parser.add_argument("--only", choices=PARTS, help="measure this part alone, without ratios")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="take N photos of each split, to try this program; the ratios mean nothing then",
    )
    parser.add_argument(
        "--epoch-fraction",
        type=float,
        default=1.0,
        metavar="F",
        help="time this share of the recipe's epochs and scale it up (default: 1)",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="measure all parts N times in turn; the fastest of each counts (default: 1)",
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
