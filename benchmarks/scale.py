"""What more photos cost in time, disk and memory: measured on few, computed for many.

    python -m benchmarks.scale

``train.py`` is run on 500, 1,000, 2,000, 3,000 and 4,000 photos, each time with an empty cache,
everything included, and straight lines are laid through the figures by least squares; through
those of memory only where the head has all its landmarks, since below that it grows faster. Of a
stage that is trained by epochs only one is run. Further epochs cost no imports and no tracing, only
photos: each is counted with the slope of the first one's seconds, as many as the stage has at most;
early stopping makes a real run shorter.

The photos are drawn, or those of ``--data``, each as often as needed with another comment in the
file: other bytes, so nobody takes them for copies, but the same picture, and so always in the same
split, or the audit would leave it out. 80 % are for training, 10 % to choose by, 10 % to test, as
where the user gives no splits. Weights are random unless given:
neither changes the time. What follows a lone ``--`` goes to ``train.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from scipy.stats import linregress

from app.core.cli import run
from app.core.config import STAGES
from app.core.console import say
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.run_metrics import read_history
from app.data.folder_layout import SPLITS, find_files
from app.data.sets.synthetic_pets import draw_sample
from app.data.splits import SHARES
from app.training.nystroem import LANDMARKS
from app.training.schedule import SECOND
from benchmarks.command import answer, parser_of, train_flags
from benchmarks.markdown import GB, gib, markdown_table
from benchmarks.measured import folder_bytes, load_average, measure, train_command

SIZES = (500, 1000, 2000, 3000, 4000)
TARGET = 25_000  # Kaggle's whole training set
DRAWN = 100  # of each class; drawing takes 20 ms, and views of a repeated picture cost the same
MIN_SIZE = 40  # a class needs a photo in each split, and ten in all


@dataclass(frozen=True)
class Cost:
    """What one training run cost.

    Attributes:
        photos: of all splits.
        seconds: wall time of the process, with one epoch of each stage.
        feature_seconds: of these, for the frozen features.
        epoch_seconds: of the one epoch, for each stage that is trained by epochs.
        disk: bytes that the run left behind, the cache for the greater part.
        peak_rss: see ``benchmarks.measured.Measured``.
        peak_anonymous: likewise.
    """

    photos: int
    seconds: float
    feature_seconds: float
    epoch_seconds: dict[str, float]
    disk: int
    peak_rss: int
    peak_anonymous: int | None


@dataclass(frozen=True)
class Line:
    """A straight line through the measurements: ``intercept + slope * photos``.

    ``stderr`` is the slope's standard error, ``r_squared`` the share of the variance it explains.
    """

    slope: float
    intercept: float
    stderr: float
    r_squared: float

    def at(self, photos: int) -> float:
        """Return the value on the line."""
        return self.intercept + self.slope * photos


def main(argv: Sequence[str]) -> int:
    """Measure each size, print the table with the computed row."""
    arguments = _parser().parse_args(argv)
    sizes = sorted(set(arguments.sizes))
    if len(sizes) < 2 or sizes[0] < MIN_SIZE:
        raise UsageError(
            f"expected two sizes or more of at least {MIN_SIZE} photos; received {arguments.sizes}"
        )
    load, costs = [load_average()], []
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        sources = jpegs(arguments.data, Path(name) / "drawn")
        for size in sizes:
            say(f"{size} photos; load {load_average():.2f}")
            with tempfile.TemporaryDirectory(dir=name) as place:
                photos = repeat_photos(sources, size, Path(place) / "photos")
                runs = Path(place) / "runs"
                costs.append(cost_of(photos, runs, size, train_flags(arguments)))
            load.append(load_average())
    lines = lines_of(costs)
    text = f"{table(costs, lines, arguments.target)}\n\n{_notes(costs, lines, load)}"
    answer(arguments, text, _values(costs, lines, arguments.target, load))
    return 0


def jpegs(data: Path | None, drawn: Path) -> dict[str, list[bytes]]:
    """Return the JPEG files of a data folder by class, or drawn ones where there is none.

    Drawn dogs are bluish: random filters see colours, not shapes, and a head that cannot tell the
    classes ends so weakly regularised that float16 alone moves its answers beyond the parity gate.
    """
    if data is None:
        draw_sample(drawn, per_class=DRAWN)
        for path in (drawn / "dog").iterdir():
            with Image.open(path) as image:
                Image.blend(image, Image.new("RGB", image.size, "navy"), 0.5).save(path)
    found: dict[str, list[bytes]] = {}
    for file in find_files(data or drawn):
        content = file.path.read_bytes()
        if content.startswith(b"\xff\xd8"):
            found.setdefault(file.label, []).append(content)
    if len(found) < 2 or min(map(len, found.values())) < len(SPLITS):
        counts = ", ".join(f"{label}: {len(files)}" for label, files in found.items()) or "none"
        raise UsageError(
            f"expected JPEG files of two classes in {data}, three of each or more; received "
            f"{counts}"
        )
    return found


def with_comment(jpeg: bytes, comment: str) -> bytes:
    """Return the same picture in other bytes: a comment segment (JPEG's COM) at its beginning."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def repeat_photos(sources: dict[str, list[bytes]], size: int, target: Path) -> Path:
    """Write ``size`` photos with splits, no two of the same bytes, equally many of each class.

    No picture is in two splits; each class has at least three.
    """
    for label, files in sources.items():
        each = size // len(sources)
        counts = {split: round(SHARES[split] * each) for split in SPLITS[1:]}
        counts["train"] = each - sum(counts.values())
        few = max(1, round(SHARES["test"] * len(files)))
        own = {"test": files[:few], "validation": files[few : 2 * few], "train": files[2 * few :]}
        number = 0
        for split in SPLITS:
            folder = target / split / label
            folder.mkdir(parents=True)
            for _ in range(counts[split]):
                content = with_comment(own[split][number % len(own[split])], f"copy {number:06}")
                (folder / f"{label}.{number}.jpg").write_bytes(content)
                number += 1
    return target


def cost_of(photos: Path, runs: Path, size: int, flags: Sequence[str]) -> Cost:
    """Train with one epoch a stage and return what it cost."""
    done = measure(train_command(photos, runs, "run", [*flags, "--epochs", "1", "--cache", "disk"]))
    finished = Run(runs / "run")
    return Cost(
        photos=size,
        seconds=done.seconds,
        feature_seconds=finished.read_metrics().seconds["features"],
        # The head is solved, not trained: its time is in the run as a whole.
        epoch_seconds={
            row.stage: row.seconds
            for row in read_history(finished.history)
            if STAGES[row.stage.removesuffix(SECOND)].epochs
        },
        disk=folder_bytes(runs),
        peak_rss=done.peak_rss,
        peak_anonymous=done.peak_anonymous,
    )


def line_through(photos: Sequence[int], values: Sequence[float]) -> Line:
    """Return the line of least squares."""
    found = linregress(photos, values)
    return Line(
        float(found.slope), float(found.intercept), float(found.stderr), float(found.rvalue**2)
    )


def lines_of(costs: Sequence[Cost]) -> dict[str, Line]:
    """Return a line for each column of the table; ``seconds`` with all epochs.

    The further epochs of a stage add their number times the slope of its epoch; what does not grow
    with the photos is in the measured run already, once.
    """
    photos = [cost.photos for cost in costs]
    further = sum(
        (STAGES[stage].epochs - 1)
        * line_through(photos, [cost.epoch_seconds[stage] for cost in costs]).slope
        for stage in costs[0].epoch_seconds
    )
    columns = {
        "seconds": [cost.seconds + further * cost.photos for cost in costs],
        "feature_seconds": [cost.feature_seconds for cost in costs],
        "disk": [float(cost.disk) for cost in costs],
    }
    lines = {name: line_through(photos, values) for name, values in columns.items()}
    return lines | _memory_lines(costs)


def _memory_lines(costs: Sequence[Cost]) -> dict[str, Line]:
    """Return the lines of memory, through the sizes at which the head has all its landmarks.

    Below that (``app.training.nystroem``) memory grows with the features of each photo, above it
    no more. Where
    fewer than two sizes are large enough, the line goes through all of them, and rises too steeply.
    """
    large = [cost for cost in costs if _training_photos(cost.photos) >= LANDMARKS]
    used = large if len(large) > 1 else costs
    photos = [cost.photos for cost in used]
    lines = {"peak_rss": line_through(photos, [float(cost.peak_rss) for cost in used])}
    if all(cost.peak_anonymous is not None for cost in used):
        own = [float(cost.peak_anonymous or 0) for cost in used]
        lines["peak_anonymous"] = line_through(photos, own)
    return lines


def _training_photos(photos: int) -> int:
    return photos - sum(round(SHARES[split] * photos) for split in SPLITS[1:])


def table(costs: Sequence[Cost], lines: dict[str, Line], target: int) -> str:
    """Return the measured rows, the slopes and the computed row as Markdown."""
    further = (
        lines["seconds"].slope
        - line_through([cost.photos for cost in costs], [cost.seconds for cost in costs]).slope
    )
    header = ["photos", "hours", "of it frozen features", "disk GB", "peak GiB", "of it not mapped"]
    rows = [
        _cells(
            f"{cost.photos:,}",
            {**asdict(cost), "seconds": cost.seconds + further * cost.photos},
        )
        for cost in costs
    ]
    slopes = {name: 1000 * line.slope for name, line in lines.items()}
    rows.append(_cells("each 1,000 more", slopes))
    rows.append(_cells(f"{target:,}, computed", {k: line.at(target) for k, line in lines.items()}))
    return markdown_table(header, rows)


def _cells(name: str, values: dict[str, Any]) -> list[str]:
    hours = [f"{values[key] / 3600:.3f}" for key in ("seconds", "feature_seconds")]
    memory = [gib(values["peak_rss"]), gib(values.get("peak_anonymous"))]
    return [name, *hours, f"{values['disk'] / GB:.2f}", *memory]


def _notes(costs: Sequence[Cost], lines: dict[str, Line], load: Sequence[float]) -> str:
    epochs = ", ".join(f"{STAGES[stage].epochs} of {stage}" for stage in costs[0].epoch_seconds)
    planned = (
        f"with all epochs ({epochs}); measured with one of each: " if epochs else "as measured: "
    )
    fits = ", ".join(f"{name} {line.r_squared:.4f}" for name, line in lines.items())
    return (
        f"Hours {planned}"
        + ", ".join(f"{cost.seconds:.0f} s" for cost in costs)
        + f". Variance explained by the lines: {fits}. "
        f"Load average from {min(load):.1f} to {max(load):.1f}."
    )


def _values(
    costs: Sequence[Cost], lines: dict[str, Line], target: int, load: Sequence[float]
) -> dict[str, Any]:
    return {
        "measured": [asdict(cost) for cost in costs],
        "lines": {name: asdict(line) for name, line in lines.items()},
        "computed": {"photos": target, **{name: line.at(target) for name, line in lines.items()}},
        "load": list(load),
    }


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "scale", "What more photos cost in time, disk and memory; weights are random unless given."
    )
    parser.set_defaults(weights="none")
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(word) for word in text.split(",")],
        default=list(SIZES),
        metavar="N,N",
        help=f"how many photos are trained on (default: {','.join(map(str, SIZES))})",
    )
    parser.add_argument(
        "--target", type=int, default=TARGET, metavar="N", help=f"computed for (default: {TARGET})"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="JPEGs (default: drawn ones)")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where photos, caches and runs lie for a while (default: the system's)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
