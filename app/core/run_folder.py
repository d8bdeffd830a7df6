"""A run is a folder: what lies in it, how one begins, and which one is the newest complete one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.errors import BundleError, UsageError
from app.core.records import read_record

if TYPE_CHECKING:  # the record of all figures is not for predict.py
    from app.core.run_metrics import MadeWith, Metrics

DESCRIPTION_FILE = "bundle.json"  # in a bundle: everything about it
FEATURES_FOLDER = ".features"  # in the folder of the runs, which share it
TRAIN_AGAIN = "train again with `python train.py --data DIR`"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)  # when runs ended whose metrics.json is damaged


class _Member:
    """The path of something in a run's folder, under a name that never changes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: Run, kind: type[Run]) -> Path:
        return run.folder / self.name


@dataclass(frozen=True)
class Run:
    """The paths of a run's files; ``metrics.json`` is written last and marks it as complete."""

    folder: Path

    config = _Member("config.json")  # all settings (``app.core.config``)
    manifest = _Member("manifest.csv")  # every file with its verdict (``app.data.manifest``)
    # Photos worth checking (``app.evaluation.findings``); those of test are listed apart.
    audit = _Member("audit.csv")
    test_audit = _Member("test_audit.csv")
    # What models that never saw a photo of training and validation say of it
    # (``app.evaluation.findings.OutOfFoldAnswer``); absent where a class has too few photos for it.
    out_of_fold = _Member("out_of_fold.csv")
    # What a person decides about its photos (``app.data.corrections``), and what had been decided
    # when it was trained with ``--corrections``.
    corrections = _Member("corrections.csv")
    applied = _Member("applied_corrections.csv")
    history = _Member("history.csv")  # a row an epoch (``app.core.run_metrics.HistoryRow``)
    # A row for each validation and test photo: truth, answer, likeliest class and probabilities.
    predictions = _Member("predictions.csv")
    metrics = _Member("metrics.json")  # every number about the run (``app.core.run_metrics``)
    bundle = _Member("bundle")  # the exported classifier, a folder
    exports = _Member("exports")  # the same in other formats, a folder each
    unfinished = _Member("unfinished")  # what ``--resume`` needs, until training has ended
    report = _Member("report.html")  # what a person reads
    logs = _Member("logs")  # what TensorBoard reads, with ``--log tensorboard``
    model_card = _Member("MODEL_CARD.md")  # what goes along when the model is passed on

    @property
    def records(self) -> tuple[Path, ...]:
        """The files that every finished run has, ``metrics.json`` the last."""
        listed = (self.config, self.manifest, self.audit, self.test_audit, self.history)
        return (*listed, self.predictions, self.metrics)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are written into the folder itself."""
        return (*self.records, self.report, self.model_card, self.out_of_fold, self.applied)

    def is_complete(self) -> bool:
        """Return whether training came to its end."""
        return self.metrics.is_file() and (self.bundle / DESCRIPTION_FILE).is_file()

    def read_metrics(self) -> Metrics:
        """Return the numbers in ``metrics.json``.

        Raises:
            BundleError: when it is missing or damaged.
        """
        from app.core.run_metrics import Metrics  # 6 ms that predict.py does without

        return read_record(self.metrics, Metrics, BundleError, TRAIN_AGAIN)

    def made_with(self) -> MadeWith:
        """Return when and with what it was made; raise ``BundleError`` as ``read_metrics``."""
        from app.core.run_metrics import MadeWith

        return read_record(self.metrics, MadeWith, BundleError, TRAIN_AGAIN)

    def finished(self) -> datetime | None:
        """Return the time (UTC) in ``metrics.json``; None when it is damaged."""
        try:
            return datetime.fromisoformat(self.made_with().finished).astimezone(UTC)
        except (BundleError, ValueError, OverflowError):
            return None

    def resume_command(self) -> str:
        """Return what a person types to resume this run."""
        return f"python train.py --resume {shlex.quote(str(self.folder))}"


def refuse_irregular_files(run: Run) -> None:
    """Raise ``BundleError`` where a pipe or a device lies in place of a run's file."""
    for path in run.files:
        if exists(path) and not isfile(path):
            raise BundleError(
                f"expected {path} to be a file; received a folder, pipe or device; move it away"
            )


def begin_run(runs: Path, name: str | None) -> Run:
    """Make the folder of a new run.

    Args:
        runs: the folder of all runs; made if missing.
        name: of the run; when None the date and time (UTC), with a number if that name is taken.

    Raises:
        UsageError: when a run of that name exists, or the folder cannot be written.
    """
    time = datetime.now(UTC).strftime("%Y-%m-%d_%H%M%S")
    names = (f"{time}-{number}" if number > 1 else time for number in count(1))
    while True:
        folder = runs / (name or next(names))
        try:
            folder.mkdir(parents=True)
            return Run(folder)
        except OSError as error:
            refuse_existing(runs, name)
            if exists(folder):  # a name of ours, which is not the user's mistake
                continue
            raise UsageError(
                f"expected a place to write; received {folder} ({error.strerror}); "
                "choose another with --runs"
            ) from error


def refuse_existing(runs: Path, name: str | None) -> None:
    """Raise ``UsageError`` when there is a run of that name already, finished or not."""
    if name is not None and exists(runs / name):
        state = "is finished" if Run(runs / name).is_complete() else "was begun and not finished"
        raise UsageError(
            f"expected a new run; received {runs / name}, which {state}; "
            "give another name with --run, or remove that folder"
        )


def finished_run(runs: Path, name: str) -> Run:
    """Return the run of that name.

    Raises:
        BundleError: when it was begun and not finished. Reading its bundle fails if there is none.
    """
    run = Run(runs / name)
    if run.config.is_file() and not run.is_complete():
        raise BundleError(
            f"expected a finished run; received {run.folder}, which was begun and not finished; "
            f"resume it with `{run.resume_command()}`"
        )
    return run


def check_complete(run: Run) -> None:
    """Refuse a folder that a report cannot be made from; it needs no bundle.

    Raises:
        UsageError: when there is no such folder.
        BundleError: when training did not come to its end, or a file was removed since.
    """
    if not run.folder.is_dir():
        raise UsageError(
            f"expected the folder of a run; received {run.folder}, which is none; "
            "give one that train.py made, for example runs/2026-01-31_120000"
        )
    if missing := [path.name for path in run.records if not path.is_file()]:
        raise BundleError(
            f"expected a finished run; received {run.folder}, which lacks "
            f"{', '.join(missing)}; train to the end with `python train.py --data DIR`"
        )


def newest_complete_run(runs: Path) -> Run:
    """Return the run under ``runs`` that finished last.

    Raises:
        BundleError: when no run there is complete.
    """
    complete = complete_runs(runs)
    if not complete:
        others = _runs(runs)
        begun = [run for run in others if run.config.is_file()]
        unfinished = f", only {len(others)} unfinished" if others else ""
        resume = f"resume it with `{begun[-1].resume_command()}`, " if begun else ""
        raise BundleError(
            f"expected a finished run under {runs}; received none{unfinished}; {resume}"
            "train one with `python train.py --data DIR`, or name a bundle with --bundle"
        )
    return max(complete, key=lambda run: (run.finished() or _LONG_AGO, run.folder.name))


def _runs(runs: Path) -> list[Run]:
    """Return all runs in a folder, finished or not, by name."""
    folders = sorted(runs.iterdir()) if isdir(runs) else ()
    return [Run(f) for f in folders if f.is_dir() and not f.name.startswith(".")]


def complete_runs(runs: Path) -> list[Run]:
    """Return the finished runs in a folder, by name."""
    return [run for run in _runs(runs) if run.is_complete()]
