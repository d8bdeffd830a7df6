"""A run is a folder: what lies in it, how one begins, and which one is the newest complete one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.bundle import DESCRIPTION_FILE
from app.errors import BundleError, UsageError
from app.paths import exists, is_folder


@dataclass(frozen=True)
class Run:
    """The paths of a run's files; ``metrics.json`` is written last and marks it as complete."""

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.folder / "config.json"

    @property
    def manifest(self) -> Path:
        """Every file of the data folder with its verdict (``app.manifest``)."""
        return self.folder / "manifest.csv"

    @property
    def audit(self) -> Path:
        """Photos that a person should look at (``app.findings``)."""
        return self.folder / "audit.csv"

    @property
    def history(self) -> Path:
        """A row an epoch (``app.history.HistoryRow``)."""
        return self.folder / "history.csv"

    @property
    def predictions(self) -> Path:
        """A row for each validation and test photo: truth, answer and probabilities."""
        return self.folder / "predictions.csv"

    @property
    def metrics(self) -> Path:
        """Every number about the run."""
        return self.folder / "metrics.json"

    @property
    def bundle(self) -> Path:
        """The exported classifier."""
        return self.folder / "bundle"

    @property
    def report(self) -> Path:
        """What a person reads."""
        return self.folder / "report.html"

    def is_complete(self) -> bool:
        """Say whether training came to its end."""
        return self.metrics.is_file() and (self.bundle / DESCRIPTION_FILE).is_file()

    def read_metrics(self) -> dict[str, Any]:
        """Return the contents of ``metrics.json``."""
        metrics: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return metrics


def begin_run(runs: Path, name: str | None) -> Run:
    """Make the folder of a new run.

    Args:
        runs: the folder of all runs; made if missing.
        name: of the run; the date and time (UTC) when None.

    Raises:
        UsageError: when a run of that name exists, or the folder cannot be written.
    """
    name = name or datetime.now(UTC).strftime("%Y-%m-%d_%H%M%S")
    folder = runs / name
    try:
        refuse_existing(runs, name)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"expected a place to write; received {folder} ({error.strerror}); "
            "choose another with --runs"
        ) from error
    return Run(folder)


def refuse_existing(runs: Path, name: str | None) -> None:
    """Raise ``UsageError`` when there is a run of that name already, finished or not."""
    if name is not None and exists(runs / name):
        state = "is finished" if Run(runs / name).is_complete() else "was begun and not finished"
        raise UsageError(
            f"expected a new run; received {runs / name}, which {state}; "
            "give another name with --run, or remove that folder"
        )


def newest_complete_run(runs: Path) -> Run:
    """Return the run under ``runs`` that finished last.

    Raises:
        BundleError: when no run there is complete.
    """
    folders = runs.iterdir() if is_folder(runs) else ()
    found = [Run(f) for f in folders if f.is_dir() and not f.name.startswith(".")]
    complete = [run for run in found if run.is_complete()]
    if not complete:
        unfinished = f", only {len(found)} unfinished" if found else ""
        raise BundleError(
            f"expected a finished run under {runs}; received none{unfinished}; "
            "train one with `python train.py --data DIR`, or name a bundle with --bundle"
        )
    return max(complete, key=lambda run: (_finished(run), run.folder.name))


def _finished(run: Run) -> str:
    """Return the time in ``metrics.json``; empty, which is before all others, when damaged."""
    try:
        return str(run.read_metrics()["finished"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
