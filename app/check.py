"""What comes before training: the photos are read, judged and split; ``--check`` ends here.

The estimate of what training takes rests on straight lines through measured runs
(docs/results.md, "More photos", and docs/experiments.md) and on how fast this processor multiplies.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from app.core.config import AUTO_SIZE, SECOND_ROUND_EPOCHS, STAGES, TrainConfig
from app.core.console import say
from app.core.environment import has_vnni, usable_cores
from app.core.errors import UsageError
from app.core.labels import NEITHER
from app.core.sanitise import for_json, for_terminal
from app.data.corrections import Corrections, read_all_corrections
from app.data.folder_layout import SPLITS, LayoutSettings, data_folder
from app.data.image_size import fitting_image_size
from app.data.inventory import take_inventory
from app.data.manifest import REASONS, ManifestRow, class_names

# Measured on two cores (AMD EPYC, Zen 5) with VNNI instructions, photos of 320 pixels.
MEASURED_SIZE = 320
MEASURED_SPEED = 2 * 92e9  # float32 operations a second, by ``_speed``
SECONDS_A_VIEW = 1 / 28.8  # the frozen layers in int8, with decoding and writing
WITHOUT_INT8 = 4.0  # times as long in float32
# A photo in an epoch: what is left of 0.031 h for 1,000 photos, 800 of them trained on. Of block4,
# by its operations: 4.3 times as many.
SECONDS_AN_EPOCH = {"block5": 0.054, "block4": 0.23}
# A photo, where the head is solved twice more, in a second round: not measured by itself. Of two
# passes through block5, by its operations, 0.012; the rest for solving.
HEADS_AGAIN = 0.03
LEAST_VALIDATION = 230  # photos; fewer are small (app.evaluation.calibration, which brings SciPy)
SECONDS_BESIDES = 30.0  # imports, the head, the export and the report
BYTES_BESIDES = 400e6  # what --resume needs, the exported models, the report
MEMORY = 1.6e9  # Keras, ONNX Runtime and the network
MEMORY_OF_BATCHES = 0.8e9  # grows with the area of a photo
# Where there are more than 2,048 to train on: 13.6 kB of coordinates, embeddings and copies of them
# while the head is solved (docs/experiments.md), and the photo's records.
MEMORY_A_PHOTO = 16e3
# What a view takes in the cache at a cut: channels, and by how much height and width are divided.
CHANNELS = {"block5_pool": (512, 32), "block4_pool": (512, 16), "block3_pool": (256, 8)}


@dataclass(frozen=True)
class Estimate:
    """What training would take on this machine's processor; not a promise."""

    seconds: float  # where no stage has a second round
    seconds_at_most: float  # where each has one (app.training.schedule)
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Duplicates:
    """How many files show what others show."""

    copies: int  # left out: another file of the class has the same bytes
    near_duplicates_left_out: int  # nearly the same as a photo in test or validation
    near_duplicates_used: int  # nearly the same as other used photos
    in_several_classes: int  # of these, and of copies: those whose group has several classes


def inventory_of(
    config: TrainConfig,
    root: Path,
    corrections: Corrections | None = None,
    *,
    counts: bool = True,
) -> list[ManifestRow]:
    """Read, judge and split the photos of a run, as its settings say.

    Args:
        config: the settings.
        root: the folder of the photos.
        corrections: what ``config.corrections`` hold.
        counts: whether to say how many photos each split has.

    Raises:
        AppError: as ``app.data.inventory.take_inventory``, or for settings that do not fit.
    """
    if config.exclude_from_test and config.exclude is None:
        raise UsageError(
            "expected --exclude-from-test beside --exclude FILE; received it alone; name the list "
            "of photos"
        )
    return take_inventory(
        root,
        data=config.data,
        seed=config.seed,
        exclude=config.exclude,
        exclude_from_test=config.exclude_from_test,
        corrections=corrections,
        layout=LayoutSettings(config.layout, config.labels, config.neither, config.join_case),
        counts=counts,
    )


def fit_to_photos(config: TrainConfig, rows: Sequence[ManifestRow]) -> TrainConfig:
    """Return the settings with a number for ``--image-size auto``."""
    if config.image_size != AUTO_SIZE:
        return config
    size = fitting_image_size(rows)
    say(f"image size {size}: from the training photos' own sizes (--image-size auto)")
    return replace(config, image_size=size)


def check(config: TrainConfig, *, as_json: bool = False) -> None:
    """Print what a run would train on and what that would take; nothing is written.

    Args:
        config: the settings of the run.
        as_json: print one JSON object: ``classes`` (name → split → photos), ``neither`` (split →
            photos), ``left_out`` (code of the reason → files), ``duplicates`` and ``estimate``.

    Raises:
        AppError: for everything about the photos that would stop the run.
    """
    corrections = read_all_corrections(config.corrections)
    with data_folder(config.data) as root:
        rows = inventory_of(config, root, corrections, counts=False)
    config = fit_to_photos(config, rows)
    found = {
        "data": str(config.data),
        "classes": {name: _by_split(rows, name) for name in class_names(rows)},
        "neither": _by_split(rows, NEITHER),
        "left_out": dict(Counter(row.code for row in rows if row.verdict == "skipped")),
        "duplicates": asdict(duplicates(rows)),
        "estimate": asdict(estimate(config, rows)),
    }
    print(for_json(found) if as_json else "\n".join(_lines(config, rows)))


def duplicates(rows: Sequence[ManifestRow]) -> Duplicates:
    """Count the files that show what others show."""
    codes = Counter(row.code for row in rows)
    used = [row for row in rows if row.verdict == "used" and row.group]
    sizes = Counter(row.group for row in used)
    near = [row for row in used if sizes[row.group] > 1]
    labels = Counter(group for group, _ in {(row.group, row.label) for row in near})
    across = sum(labels[row.group] > 1 for row in near)
    return Duplicates(
        codes["copy"], codes["near_duplicate"], len(near), codes["several_classes"] + across
    )


def estimate(config: TrainConfig, rows: Sequence[ManifestRow]) -> Estimate:
    """Estimate what training takes on this processor; a GPU is faster."""
    splits = Counter(row.split for row in rows if row.verdict == "used")
    train, others = splits["train"], splits["validation"] + splits["test"]
    area = (config.image_size / MEASURED_SIZE) ** 2
    stages = [stage for stage in config.stage_plan() if stage.opens]
    views = train * config.training_views() + others
    frozen = views * SECONDS_A_VIEW * (1 if has_vnni() else WITHOUT_INT8)
    first = second = 0.0
    for stage in stages:
        epoch = train * SECONDS_AN_EPOCH[stage.name]
        if config.cache == "off":
            epoch += train * SECONDS_A_VIEW * WITHOUT_INT8
        first += stage.epochs * epoch
        if splits["validation"] >= LEAST_VALIDATION:
            second += SECOND_ROUND_EPOCHS * stage.epochs * epoch + HEADS_AGAIN * train
    disk = 0.0
    if config.cache != "off":
        cuts = {STAGES["head"].cut, *(stage.cut for stage in stages)}
        kept = views - (splits["test"] if stages else 0)  # a head run keeps those of test too
        pixels = config.image_size**2
        disk = sum(kept * 2 * CHANNELS[cut][0] * pixels / CHANNELS[cut][1] ** 2 for cut in cuts)
        if disk > config.cache_limit * 1e9 and config.cache == "auto":
            disk = 0.0  # as --cache off
    slowness = area * MEASURED_SPEED / _speed()
    return Estimate(
        seconds=round(SECONDS_BESIDES + slowness * (frozen + first)),
        seconds_at_most=round(SECONDS_BESIDES + slowness * (frozen + first + second)),
        disk_bytes=round(disk + BYTES_BESIDES),
        memory_bytes=round(MEMORY + MEMORY_OF_BATCHES * area + MEMORY_A_PHOTO * (train + others)),
    )


def _speed() -> float:
    """Return how many float32 operations a second all cores make; takes 10 ms.

    Small matrices stay on one core, and the time of the thread does not count other work.
    """
    matrices = np.ones((400, 64, 64), np.float32)
    result = np.empty_like(matrices)
    times = []
    for _ in range(6):
        start = time.thread_time()
        np.matmul(matrices, matrices, out=result)
        times.append(time.thread_time() - start)
    cores = usable_cores()
    return float(cores * 2 * len(matrices) * 64**3 / max(min(times), 1e-6))


def _by_split(rows: Sequence[ManifestRow], label: str) -> dict[str, int]:
    found = Counter(row.split for row in rows if row.verdict == "used" and row.label == label)
    return {split: found[split] for split in SPLITS}


def _lines(config: TrainConfig, rows: Sequence[ManifestRow]) -> list[str]:
    """Return what a person is told."""
    names = [*class_names(rows), *([NEITHER] if any(_by_split(rows, NEITHER).values()) else [])]
    counts = {for_terminal(name): _by_split(rows, name) for name in names}
    width = max(map(len, ("class", *counts)))
    lines = [f"{'class':{width}}" + "".join(f"  {split:>10}" for split in SPLITS)]
    lines += [
        f"{name:{width}}" + "".join(f"  {each[split]:>10,}" for split in SPLITS)
        for name, each in counts.items()
    ]
    left = Counter(row.code for row in rows if row.verdict == "skipped")
    lines += ["", f"left out: {left.total():,} files"]
    lines += [f"{count:>10,}  {REASONS[code]}" for code, count in left.most_common()]
    same, needed = duplicates(rows), estimate(config, rows)
    kinds = {
        f"{REASONS['copy']}: left out": same.copies,
        f"{REASONS['near_duplicate']}: left out": same.near_duplicates_left_out,
        "nearly the same picture as another one: used": same.near_duplicates_used,
        "in several classes: a label may be wrong": same.in_several_classes,
    }
    shown = [f"{count:>10,}  {what}" for what, count in kinds.items() if count]
    lines += ["", "duplicates:", *shown] if shown else ["", "duplicates: none"]
    more = ""
    if needed.seconds_at_most > needed.seconds:
        more = f" ({_duration(needed.seconds_at_most)} where fine-tuning pays)"
    lines += [
        "",
        f"training would take about {_duration(needed.seconds)}{more}, "
        f"{decimal(needed.disk_bytes)} of disk and {decimal(needed.memory_bytes)} of memory: an "
        "estimate for this processor when it does nothing else",
    ]
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
