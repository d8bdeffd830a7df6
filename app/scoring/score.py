"""``python -m app score``: the answers to any number of files, as Parquet files."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from os.path import exists, isdir
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.atomic_files import locked, remove_abandoned
from app.core.cli import Parser, run
from app.core.console import progress_bar, say
from app.core.environment import require_package
from app.core.errors import UsageError
from app.core.ray_workers import cluster_of
from app.core.records import read_record, write_record
from app.core.sanitise import for_json, for_terminal
from app.inference.arguments import add_bundle_arguments, bundle_folder

if TYPE_CHECKING:
    from app.core.ray_workers import RayCluster, RayWorkers
    from app.inference.predictor import Classifier
    from app.scoring.index import Index, Part
    from app.scoring.parts import PartRows
    from app.scoring.shard import Shard

RECORD, INDEX, LOCK, PARTS = "score.json", "index.sqlite", ".lock", "parts"
FORMAT_VERSION = 1
PART_ROWS = 10_000
AT_ONCE = 500  # files taken from the index
AGAIN = "the same command goes on where it ended"
_SAID_EVERY = 10.0  # seconds, while files are listed
_ABANDONED = re.compile(r"\.(part-\d+\.parquet)\.\d+\.part")
_ABANDONED_RECORD = re.compile(rf"\.{RECORD}\.\d+\.part")

EPILOG = """\
examples:
  python -m app score photos/ --output scores            a folder and all below it
  python -m app score photos.zip more.tar.gz --output scores
  python -m app score list.csv 'disk*/DCIM' --run first --output scores
  python -m app score photos/ --output scores --ray local --workers 4

DIR/parts/*.parquet has a row for each file. Run the same command again after an interruption, or
to answer new and changed files. docs/scale.md shows how to filter the rows.

exit code: 0 all were answered, 1 some were not, 2 wrong usage or no trained classifier,
128 and the number of the signal that stopped it (Ctrl-C: 130)
"""


@dataclass(frozen=True)
class Scoring:
    """What all answers in a folder have in common (``score.json``).

    Attributes:
        format_version: of this record and of the index.
        classes: names in the order of the probabilities.
        model: the bundle's file that answers.
        sha256: of that file.
        confidence: below it an answer is ``unsure``.
        novelty: above it an answer is ``neither``.
    """

    format_version: int
    classes: tuple[str, ...]
    model: str
    sha256: str
    confidence: float
    novelty: float


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, answer for every file, return the exit code."""
    arguments = parser().parse_args(argv)
    started = time.monotonic()
    from app.scoring.index import open_index
    from app.scoring.parts import require_pyarrow
    from app.scoring.sources import refuse_among_sources

    require_pyarrow()
    cluster = cluster_of(arguments.ray, arguments.workers, arguments.worker_cpus)
    if cluster is not None:
        require_package("ray", "--ray")
    output: Path = arguments.output
    refuse_among_sources(output, arguments.sources)
    bundle = bundle_folder(arguments)
    from app.inference.predictor import Classifier  # brings NumPy and ONNX Runtime: not for --help

    def classifier(photos: int) -> Classifier:
        asked = arguments.min_confidence, arguments.precision, arguments.engine
        return Classifier(bundle, *asked, photos)

    scoring = scoring_of(classifier(photos=1))
    with owned(output, scoring) as new, open_index(output / INDEX) as index:
        check_parts(index, output / PARTS)
        try:
            list_files(index, arguments.sources, output)
        except UsageError:
            if new:
                remove_begun(index, output)
            raise
        drop_outdated(index, output / PARTS)
        begun = index.counts()
        if begun[1]:
            try:
                # Only now it is known whether there are enough to find out which engine is faster.
                chosen = classifier(photos=begun[1])
                if cluster is None:
                    one_process(index, chosen, arguments)
                else:
                    ray_workers(index, chosen, bundle, arguments, cluster)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(AGAIN) from None
        return report(index, output, begun[1], time.monotonic() - started, arguments.json)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = Parser(
        description="Say what any number of photos show; the answers become Parquet files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folders (with all below them), archives (.zip, .tar, .tar.gz, .tgz), lists or tables "
        "of names (.txt, .lst, .csv, .tsv; - for one on standard input), patterns in quotes, or "
        "photos",
    )
    result.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="a new folder, or one to go on in"
    )
    add_bundle_arguments(result)
    result.add_argument(
        "--part-rows",
        type=positive,
        default=PART_ROWS,
        metavar="N",
        help="rows of a Parquet file; so many answers at most are lost when the machine fails "
        "(default: %(default)s)",
    )
    result.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let workers of Ray answer: local for some on this machine, or the address of a "
        "cluster that sees the same files under the same names",
    )
    result.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="of Ray (default: as many as its processors allow)",
    )
    result.add_argument(
        "--worker-cpus",
        type=positive,
        default=1,
        metavar="N",
        help="processors of each worker of Ray (default: %(default)s)",
    )
    result.add_argument("--json", action="store_true", help="the counts as JSON on stdout")
    return result


def positive(text: str) -> int:
    """Read a whole number of 1 or more for argparse."""
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on; received {text}")
    return value


def scoring_of(classifier: Classifier) -> Scoring:
    """Return what all answers of a classifier have in common."""
    bundle, limits = classifier.bundle, classifier.thresholds
    return Scoring(
        FORMAT_VERSION, bundle.classes, classifier.file, bundle.sha256[classifier.file],
        limits.confidence, limits.novelty,
    )  # fmt: skip


@contextmanager
def owned(output: Path, scoring: Scoring) -> Iterator[bool]:
    """Hold a folder of answers; make it where it is missing.

    Yields:
        Whether its answers are begun now.

    Raises:
        UsageError: when it holds something else, answers of another classifier, or another process
            writes into it.
    """
    record = output / RECORD
    if exists(output) and not exists(record) and not is_begun(output):
        raise UsageError(
            f"expected a new or empty folder, or one with answers; received {output}, which is "
            "something else; name another --output"
        )
    (output / PARTS).mkdir(parents=True, exist_ok=True)
    with locked(output / LOCK, wait=False) as free:
        if not free:
            raise UsageError(
                f"expected a folder that nobody else writes; received {output}, which another "
                "process is writing; wait for it, or name another --output"
            )
        if new := not exists(record):
            remove_abandoned(record)
            write_record(scoring, record)
        found = read_record(record, Scoring, UsageError, "name another --output", exact=True)
        for name, wanted in vars(scoring).items():
            if (there := getattr(found, name)) != wanted:
                raise UsageError(
                    f"expected answers of the same classifier as in {output} ({name} {there}); "
                    f"received {name} {wanted}; name another --output, or ask as before"
                )
        yield new


def is_begun(folder: Path) -> bool:
    """Return whether a folder is empty, or as left by a process that was killed at once."""
    if not isdir(folder):
        return False
    names = {path.name for path in folder.iterdir() if not _ABANDONED_RECORD.fullmatch(path.name)}
    return names <= {LOCK, PARTS} and not (PARTS in names and any((folder / PARTS).iterdir()))


def remove_begun(index: Index, output: Path) -> None:
    """Remove what was begun for sources that are refused, perhaps among photos."""
    index.close()
    with suppress(OSError):  # Windows keeps a lock that is held
        for name in (INDEX, f"{INDEX}-journal", RECORD, LOCK):
            (output / name).unlink(missing_ok=True)
        (output / PARTS).rmdir()
        output.rmdir()


def check_parts(index: Index, folder: Path) -> None:
    """Compare the parts on the disk with the index; what is not whole is answered again."""
    from app.scoring.parts import is_whole, part_files, part_path

    known = index.parts()
    whole = {part_path(folder, part.number) for part in known if is_whole(part, folder)}
    damaged = [part for part in known if part_path(folder, part.number) not in whole]
    if damaged:
        rows = sum(part.rows for part in damaged)
        say(f"{len(damaged):,} parts are gone or damaged: {rows:,} files are answered again")
        index.forget([part.number for part in damaged])
    for path in part_files(folder):
        if path not in whole:  # or of a process that was killed before the index knew of it
            path.unlink()
    for path in folder.glob(".part-*"):
        if found := _ABANDONED.fullmatch(path.name):
            remove_abandoned(folder / found[1])


def list_files(index: Index, sources: Sequence[str], output: Path) -> None:
    """Find all files that sources mean, and compare them with the index."""
    from app.scoring.sources import find

    latest = time.monotonic()
    for looked_at in index.add(find(sources, output)):
        if time.monotonic() - latest > _SAID_EVERY:
            latest = time.monotonic()
            say(f"{looked_at:,} files found so far")
    files, waiting = index.counts()
    if not files:
        raise UsageError(f"expected photos; received none in {', '.join(sources)}")
    say(f"{files:,} files, {files - waiting:,} of them answered before")


def drop_outdated(index: Index, folder: Path) -> None:
    """Write those parts again, without the rows of files that changed, that have such rows."""
    from app.scoring.parts import part_path, read_part, write_part

    for old in index.outdated():
        table = read_part(part_path(folder, old))
        kept = index.answered_in(old, numbers := table["number"].to_pylist())
        files = [number for number, keep in zip(numbers, kept, strict=True) if keep]
        new = write_part(table.filter(kept), folder, index.next_part()) if files else None
        index.replace(old, new, files)
        part_path(folder, old).unlink()


def keep(index: Index, rows: PartRows, parts: Path, number: int) -> None:
    """Write a part and record it; of no rows nothing."""
    from app.scoring.parts import write_part

    if len(table := rows.table()):
        part = write_part(table, parts, number, rows.unread)
        index.keep(part, table["number"].to_pylist())


def one_process(index: Index, classifier: Classifier, arguments: argparse.Namespace) -> None:
    """Answer all files that wait, one part after the other."""
    from app.scoring.parts import PartRows
    from app.scoring.shard import ShardScorer

    number, parts = index.next_part(), arguments.output / PARTS
    with (
        ShardScorer(classifier, parts) as scorer,
        progress(index) as advance,
    ):
        files = chain.from_iterable(index.waiting(AT_ONCE))
        while (first := next(files, None)) is not None:
            rows = PartRows(classifier.bundle.classes)
            shard = chain([first], islice(files, arguments.part_rows - 1))
            try:
                for row in scorer.answers(shard, advance):
                    rows.add(row)
            except KeyboardInterrupt:
                keep(index, rows, parts, number)
                raise
            keep(index, rows, parts, number)
            number += 1


def ray_workers(
    index: Index,
    classifier: Classifier,
    bundle: Path,
    arguments: argparse.Namespace,
    cluster: RayCluster,
) -> None:
    """Answer all files that wait, by workers of Ray."""
    parts = arguments.output.resolve() / PARTS
    with (
        shard_workers(cluster, bundle.resolve(), parts, classifier) as workers,
        progress(index) as advance,
    ):
        for files in answer_shards(index, workers, arguments.part_rows):
            advance(files)


def shard_workers(
    cluster: RayCluster, bundle: Path, parts: Path, classifier: Classifier
) -> RayWorkers[Shard, Part]:
    """Return workers of Ray that answer shards and write their parts.

    Args:
        cluster: where they are.
        bundle: its folder, absolute.
        parts: the folder of the parts, absolute.
        classifier: of the bundle; the workers compute as it does.
    """
    from app.core.ray_workers import RayWorkers
    from app.scoring.shard import shard_work

    how = classifier.thresholds.confidence, classifier.precision, classifier.engine
    return RayWorkers(cluster, partial(shard_work, bundle, *how, parts, cluster.cpus))


def answer_shards(index: Index, workers: RayWorkers[Shard, Part], most: int) -> Iterator[int]:
    """Let workers answer all files that wait; yield the number of files of each part.

    Args:
        index: of the files.
        workers: from ``shard_workers``.
        most: rows of a part.
    """
    from app.scoring.shard import Shard
    from app.scoring.shard_size import ShardSize

    size = ShardSize(index.counts()[1], workers.number, most)
    shards = map(Shard, index.waiting(size), count(index.next_part()))
    for shard, part, seconds in workers.results(shards, _named):
        size.measured(len(shard.files), seconds)
        index.keep(part, [each.number for each in shard.files])
        yield len(shard.files)


def _named(shard: Shard) -> str:
    return f"the {len(shard.files)} files from {shard.files[0].found.path} on"


@contextmanager
def progress(index: Index) -> Iterator[Callable[[int], None]]:
    """Show how far it is, its rate and the time left; yield what is called with answered files."""
    files, waiting = index.counts()
    done = files - waiting
    with progress_bar() as bar:
        task = bar.add_task("Scoring", total=files, completed=done, begun=done, unit="files")
        yield lambda some: bar.advance(task, some)


def report(index: Index, output: Path, answered: int, seconds: float, as_json: bool) -> int:
    """Print how many files have which label; return the exit code."""
    from app.scoring.parts import NO_LABEL

    labels = index.labels()
    errors = labels.pop(NO_LABEL, 0)
    if as_json:
        print(for_json({
            "output": os.fspath(output), "files": sum(labels.values()) + errors,
            "labels": dict(labels), "errors": errors, "answered_now": answered,
            "seconds": round(seconds, 3),
        }))  # fmt: skip
    else:
        counts = [*labels.most_common(), *([("no answer", errors)] if errors else [])]
        width = max(len(for_terminal(name)) for name, _ in counts)
        for name, count in counts:
            print(f"{for_terminal(name).ljust(width)}  {count:>11,}")
    say(f"{answered:,} files answered in {seconds:.0f} s; {output / PARTS}/*.parquet has the rows")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(run(main))
