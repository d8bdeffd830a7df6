"""``app score`` measured: its rate, its memory, its listing, its resuming, and workers of Ray.

    python -m benchmarks.score rate photos/ --run NAME
    python -m benchmarks.score memory photos/ --run SMALL
    python -m benchmarks.score listing photos/ --run SMALL --files 1000000
    python -m benchmarks.score kills photos/ --run SMALL
    python -m benchmarks.score ray photos/ --run NAME

- ``rate``: photos a second of one process, with its start and without, against the bare engine on
  ready arrays (bar: 0.85, without the start, which does not grow). What the engine takes of all
  processor time says the same, and depends less on what else the machine does.
- ``memory``: the peak of what cannot be dropped, for 1,000, 10,000 and 100,000 files, which are
  hard links to the photos (bar: 1.1 of the least).
- ``listing``: finding empty files, 1,000 in a folder: seconds, memory, the size of the index; and
  finding them again.
- ``kills``: ``kill -9`` at ten moments, then the same command again (bar: the same rows each time).
- ``ray``: two workers on a core each against one process on two (bar: 0.8), without the start.

``memory`` and ``kills`` need many answers: take a run of ``train.py --smoke``, or less ``--files``.
Links and answers lie in the system's temporary folder meanwhile (``TMPDIR``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from app.core.cli import run
from app.core.environment import require_package
from app.core.errors import AppError, UsageError
from app.core.ray_workers import LOCAL, RayCluster
from app.data.decode import load_image
from app.data.folder_layout import files_below
from app.data.folder_names import is_photo_name
from app.inference.arguments import bundle_folder
from app.inference.predictor import BATCH, Classifier
from app.scoring.index import Index
from app.scoring.parts import part_files, require_pyarrow
from app.scoring.parts import rows_of as rows_of_part
from app.scoring.score import PARTS, answer_shards, shard_workers
from app.scoring.shard import ShardScorer
from app.scoring.sources import find
from benchmarks.command import answer
from benchmarks.markdown import markdown_table, verdict
from benchmarks.measured import ROOT, folder_bytes, load_average, measure
from benchmarks.predict_folder import BATCHES, READY, bare, bare_work, evenly, row

RATE_BAR, MEMORY_BAR, RAY_BAR = 0.85, 1.1, 0.8
SIZES = (1_000, 10_000, 100_000)
IN_A_FOLDER = 1_000
KILLS = 10
CORES = 2  # of the comparison with Ray


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, return 0 when all bars are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run", help="default: the newest complete run")
    parser.add_argument("--photos", type=int, default=500, help="rate, ray; default: %(default)s")
    parser.add_argument("--repeat", type=int, default=3, help="rate, ray; default: %(default)s")
    parser.add_argument("--files", type=int, default=1_000_000, help="listing, kills, memory: most")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    arguments = parser.parse_args(argv)
    bundle = bundle_folder(arguments).resolve()
    below = filter(lambda path: is_photo_name(path.name), files_below(arguments.folder))
    photos = sorted(path.resolve() for path in below)
    if not photos:
        raise UsageError(f"expected photos; received none in {arguments.folder}")
    load = load_average()
    require_pyarrow()
    if arguments.what == "ray":
        require_package("ray", "--ray")
    with tempfile.TemporaryDirectory() as place:
        values = MEASUREMENTS[arguments.what](arguments, bundle, photos, Path(place))
    values["load"] = load
    answer(arguments, table(values), values)
    return 0 if all(each["met"] for each in values["rows"]) else 1


def rate(
    arguments: argparse.Namespace, bundle: Path, photos: Sequence[Path], place: Path
) -> dict[str, Any]:
    """Compare one process with the bare engine."""
    folder = links(some(photos, arguments.photos), arguments.photos, place / "photos")
    classifier = Classifier(bundle)
    work = bare_work(bundle, classifier.engine, classifier.precision)
    size = classifier.bundle.image_size
    ready = np.stack([load_image(path, size) for path in photos[:READY]])
    engine, inner, whole, shares = [], [], [], []
    for turn in range(arguments.repeat):
        engine.append(1 / min(bare(work, ready, batch) for batch in BATCHES))
        begun = time.process_time()
        for start in range(0, len(ready), BATCH):
            classifier.outputs(ready[start : start + BATCH])
        between = time.process_time()
        inner.append(arguments.photos / one_process(classifier, folder, place / f"in{turn}"))
        used = (time.process_time() - between) / arguments.photos
        shares.append((between - begun) / len(ready) / used)
        done = measure(command(bundle, folder, place / f"out{turn}"))
        whole.append(arguments.photos / done.seconds)
    bare_rate, rate_inside, rate_whole = map(statistics.median, (engine, inner, whole))
    return {
        "photos": arguments.photos,
        "precision": classifier.precision,
        "bare_photos_a_second": bare_rate,
        "photos_a_second": rate_inside,
        "photos_a_second_with_start": rate_whole,
        "share_of_processor_time_in_the_engine": statistics.median(shares),
        "part_bytes_a_row": folder_bytes(place / "out0" / PARTS) / arguments.photos,
        "rows": [
            row("one process, of the bare engine", rate_inside / bare_rate, RATE_BAR, least=True)
        ],
    }


def one_process(
    classifier: Classifier, folder: Path, output: Path, threads: int | None = None
) -> float:
    """Return the seconds in which this process answers a folder, its listing included."""
    (output / PARTS).mkdir(parents=True)
    started = time.perf_counter()
    scorer = ShardScorer(classifier, output / PARTS, threads)
    with closing(Index(output / "index")) as index, scorer as one:
        for _ in index.add(find([str(folder)])):
            pass
        for number, shard in enumerate(index.waiting(10_000)):
            index.keep(one.score(shard, number), [each.number for each in shard])
    return time.perf_counter() - started


def ray(
    arguments: argparse.Namespace, bundle: Path, photos: Sequence[Path], place: Path
) -> dict[str, Any]:
    """Compare two workers of a core each with one process on both cores."""
    folder = links(some(photos, arguments.photos), arguments.photos, place / "photos")
    classifier = Classifier(bundle, threads=CORES)
    alone, workers, starts = [], [], []
    for turn in range(arguments.repeat):
        seconds = one_process(classifier, folder, place / f"one{turn}", CORES)
        alone.append(arguments.photos / seconds)
        start, seconds = two_workers(bundle, classifier, folder, place / f"ray{turn}")
        starts.append(start)
        workers.append(arguments.photos / seconds)
        if rows_of(place / f"ray{turn}") != rows_of(place / f"one{turn}"):
            raise AppError("expected the same rows from Ray as from one process; received others")
    one, two = statistics.median(alone), statistics.median(workers)
    return {
        "photos": arguments.photos,
        "precision": classifier.precision,
        "photos_a_second_one_process": one,
        "photos_a_second_ray": two,
        "seconds_start_ray": statistics.median(starts),
        "rows": [row("two workers, of one process", two / one, RAY_BAR, least=True)],
    }


def two_workers(
    bundle: Path, classifier: Classifier, folder: Path, output: Path
) -> tuple[float, float]:
    """Return the seconds until workers of Ray are ready, and those in which they answer."""
    (output / PARTS).mkdir(parents=True)
    started = time.perf_counter()
    workers = shard_workers(RayCluster(LOCAL, CORES), bundle, output / PARTS, classifier)
    with closing(Index(output / "index")) as index, workers:
        workers.processes()
        ready = time.perf_counter()
        for _ in index.add(find([str(folder)])):
            pass
        for _ in answer_shards(index, workers, 10_000):
            pass
        return ready - started, time.perf_counter() - ready


def memory(
    arguments: argparse.Namespace, bundle: Path, photos: Sequence[Path], place: Path
) -> dict[str, Any]:
    """Measure the peak for more and more files."""
    peaks, seconds = {}, {}
    for files in (size for size in SIZES if size <= arguments.files):
        folder = links(photos, files, place / str(files))
        peaks[files], seconds[files] = watched(command(bundle, folder, place / f"out{files}"))
    least, most = min(peaks), max(peaks)
    return {
        "peak_mb": {str(files): peak / 1e6 for files, peak in peaks.items()},
        "seconds": {str(files): value for files, value in seconds.items()},
        "rows": [
            row(f"memory of {most:,} files, of {least:,}", peaks[most] / peaks[least], MEMORY_BAR)
        ],
    }


def watched(program: Sequence[str]) -> tuple[int, float]:
    """Return the peak of RssAnon of a process, in bytes, looked at every 10 ms, and its seconds.

    ``measure`` looks every half second: too seldom for the writing of a part.
    """
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        if found := re.search(r"RssAnon:\s+(\d+)", status.read_text(encoding="ascii")):
            peak = max(peak, 1024 * int(found[1]))
        time.sleep(0.01)
    if process.returncode:
        raise AppError(f"expected answers; received exit code {process.returncode}")
    return peak, time.perf_counter() - started


def listing(
    arguments: argparse.Namespace, bundle: Path, photos: Sequence[Path], place: Path
) -> dict[str, Any]:
    """Measure how empty files are found, and found again; nothing is answered."""
    for number in range(arguments.files):
        folder = place / "empty" / f"{number // IN_A_FOLDER:04}"
        if number % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"IMG_{number:07}.jpg").touch()
    code = (
        "import sys; from contextlib import closing; from pathlib import Path; "
        "from app.scoring.index import Index; from app.scoring.sources import find\n"
        "with closing(Index(Path(sys.argv[2]))) as index:\n"
        "    for _ in index.add(find([sys.argv[1]])): pass\n"
        "    print(index.counts()[0])"
    )
    few = place / "empty" / "0000"
    runs = {"few": (few, "few"), "all": (place / "empty", "all"), "again": (place / "empty", "all")}
    done = {
        name: measure([sys.executable, "-c", code, str(folder), str(place / index)])
        for name, (folder, index) in runs.items()
    }
    if int(done["all"].stdout) != arguments.files:
        raise AppError(f"expected {arguments.files} files; received {done['all'].stdout}")
    peaks = {name: each.peak_anonymous or each.peak_rss for name, each in done.items()}
    index_bytes = (place / "all").stat().st_size
    return {
        "files": arguments.files,
        "seconds": {name: each.seconds for name, each in done.items()},
        "files_a_second": arguments.files / done["all"].seconds,
        "files_a_second_again": arguments.files / done["again"].seconds,
        "index_bytes_a_file": index_bytes / arguments.files,
        "peak_mb": {name: peak / 1e6 for name, peak in peaks.items()},
        "rows": [],
    }


def kills(
    arguments: argparse.Namespace, bundle: Path, photos: Sequence[Path], place: Path
) -> dict[str, Any]:
    """Kill it at ten moments, each time in a new folder; go on; compare the rows."""
    files = min(arguments.files, 10_000)
    folder = links(photos, files, place / "photos")
    usual = measure(command(bundle, folder, place / "whole", files // 20))
    wanted, moments, equal, in_time, lost = rows_of(place / "whole"), random.Random(0), 0, 0, []
    for kill in range(KILLS):
        output = place / f"killed{kill}"
        killed = command(bundle, folder, output, files // 20)
        begun = subprocess.Popen(killed, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.1, 0.9) * usual.seconds)
        begun.kill()
        begun.wait()
        in_time += begun.returncode < 0
        kept = len(rows_of(output))
        again = json.loads(measure(command(bundle, folder, output, files // 20)).stdout)
        lost.append(kept + again["answered_now"] - files)
        equal += rows_of(output) == wanted
    return {
        "files": files,
        "killed_before_the_end": in_time,
        "rows_written_and_answered_again": max(lost),
        "rows": [row("results equal row for row, of 10 kills", equal, KILLS, least=True)],
    }


def some(photos: Sequence[Path], count: int) -> Sequence[Path]:
    """Return so many photos, from all over the folder; all where there are fewer."""
    return evenly(photos, min(count, len(photos)))


def links(photos: Sequence[Path], files: int, folder: Path) -> Path:
    """Make a folder of so many hard links to photos, or copies of them, 1,000 in a folder."""
    for number in range(files):
        photo = photos[number % len(photos)]
        place = folder / f"{number // IN_A_FOLDER:04}"
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{number:07}{photo.suffix}"
        try:
            os.link(photo, name)
        except OSError:  # another disk, or one without links
            shutil.copy2(photo, name)
    return folder


def command(bundle: Path, folder: Path, output: Path, rows: int = 10_000) -> list[str]:
    """Return the command line of ``app score``."""
    paths = ["--bundle", str(bundle), "--output", str(output), "--part-rows", str(rows)]
    return [sys.executable, "-m", "app", "score", str(folder), *paths, "--json"]


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return all rows, by name."""
    found = [each for path in part_files(output / PARTS) for each in rows_of_part(path)]
    return sorted(found, key=lambda each: str(each["path"]))


def table(values: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [
        [
            each["what"],
            f"{each['value']:.3g}",
            f"{'≥' if each['least'] else '≤'} {each['bar']:.3g}",
            verdict(each["met"]),
        ]
        for each in values["rows"]
    ]
    others = {name: value for name, value in values.items() if name != "rows"}
    text = "\n".join(f"{name}: {_short(value)}" for name, value in others.items())
    return (markdown_table(["", "measured", "bar", ""], lines) + "\n\n" if lines else "") + text


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


Measurement = Callable[[argparse.Namespace, Path, Sequence[Path], Path], dict[str, Any]]
MEASUREMENTS: dict[str, Measurement] = {
    "rate": rate, "memory": memory, "listing": listing, "kills": kills, "ray": ray,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
