"""A finished run's files → plain data, for the report and whatever else is made from a run."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.config import TrainConfig
from app.errors import BundleError, UsageError
from app.findings import Finding, Kind, read_findings
from app.history import HistoryRow, read_history
from app.manifest import ManifestRow, read_manifest
from app.runs import Run, newest_complete_run
from app.tables import read_rows

RUN_VARIABLE = "CATS_DOGS_RUN"


@dataclass(frozen=True)
class Predictions:
    """The answers on one split's photos.

    Attributes:
        names: of the photos, relative to the data folder.
        targets: ``(n,)``, the number of each photo's class.
        probabilities: ``(n, classes)``.
    """

    names: tuple[str, ...]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer; ``confidence`` is the probability that it was given with."""

    name: str
    truth: str
    answer: str
    confidence: float


@dataclass(frozen=True)
class Results:
    """All that a run folder says.

    Attributes:
        name: of the run.
        config: the contents of ``config.json``.
        metrics: the contents of ``metrics.json``.
        manifest: a row a file of the data folder.
        findings: photos that a person should look at.
        history: a row an epoch.
        predictions: by split, ``validation`` and ``test``.
    """

    name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    manifest: list[ManifestRow]
    findings: list[Finding]
    history: list[HistoryRow]
    predictions: dict[str, Predictions]

    @property
    def classes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return list(self.metrics["classes"])

    def count(self, split: str, label: str) -> int:
        """Return the number of used photos of a class in a split."""
        return sum(
            row.verdict == "used" and (row.split, row.label) == (split, label)
            for row in self.manifest
        )

    def skipped(self) -> list[ManifestRow]:
        """Return the files that were not used."""
        return [row for row in self.manifest if row.verdict == "skipped"]

    def findings_of(self, kind: Kind) -> list[Finding]:
        """Return one of the two lists, from its first place downwards."""
        return [finding for finding in self.findings if finding.finding == kind]

    def sizes(self) -> NDArray[np.int64]:
        """Return ``(n, 2)``, width and height of every used photo."""
        return np.array(
            [(row.width, row.height) for row in self.manifest if row.verdict == "used"], np.int64
        )

    def mistakes(self, split: str) -> list[Mistake]:
        """Return the wrong answers on a split, the most confident first."""
        given = self.predictions[split]
        answers = given.probabilities.argmax(axis=1)
        found = [
            Mistake(
                given.names[i],
                self.classes[given.targets[i]],
                self.classes[answers[i]],
                float(given.probabilities[i, answers[i]]),
            )
            for i in np.flatnonzero(answers != given.targets)
        ]
        return sorted(found, key=lambda mistake: (-mistake.confidence, mistake.name))

    def command(self) -> str:
        """Return the command that trains this again; flags that repeat a default are left out.

        So are the run's name, which is taken now, ``--no-report`` and ``--log``.
        """
        words = ["python", "train.py"]
        for field in fields(TrainConfig):
            if field.name in ("run", "report", "log") or field.name not in self.config:
                continue
            default, value = field.default, self.config[field.name]
            if field.name == "stages":
                value = ",".join(stage["name"] for stage in value)
                default = ",".join(TrainConfig.stages)
            if field.name == "data" or (value is not None and str(value) != str(default)):
                words.append(f"--{field.name.replace('_', '-')}")
                words += [] if value is True else [str(value)]
        return shlex.join(words)


def chosen_run(project: Path) -> Run:
    """Return the run that the environment variable ``CATS_DOGS_RUN`` names, else the newest one.

    Args:
        project: the folder that holds ``runs``.

    Raises:
        BundleError: when no run there is complete.
    """
    named = os.environ.get(RUN_VARIABLE)
    return Run(Path(named)) if named else newest_complete_run(project / "runs")


def read_results(run: Run) -> Results:
    """Read a finished run.

    Raises:
        UsageError: when there is no such folder.
        BundleError: when a file of it is missing or damaged.
    """
    check_complete(run)
    try:
        metrics = run.read_metrics()
        return Results(
            name=run.folder.resolve().name,
            config=json.loads(run.config.read_text(encoding="utf-8")),
            metrics=metrics,
            manifest=read_manifest(run.manifest),
            findings=read_findings(run.audit),
            history=read_history(run.history),
            predictions={
                split: _read_predictions(run.predictions, split, metrics["classes"])
                for split in ("validation", "test")
            },
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"expected readable files in {run.folder}; received a damaged one "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error


def check_complete(run: Run) -> None:
    """Refuse a folder that a report cannot be made from.

    Raises:
        UsageError: when there is no such folder.
        BundleError: when training did not come to its end, or a file was removed since.
    """
    if not run.folder.is_dir():
        raise UsageError(
            f"expected the folder of a run; received {run.folder}, which is none; "
            "give one that train.py made, for example runs/2026-01-31_120000"
        )
    needed = (run.config, run.manifest, run.audit, run.history, run.predictions, run.metrics)
    missing = [path.name for path in needed if not path.is_file()]
    if missing or not run.is_complete():
        raise BundleError(
            f"expected a finished run; received {run.folder}, which lacks "
            f"{', '.join(missing) or 'its bundle'}; train to the end with "
            "`python train.py --data DIR`"
        )


def _read_predictions(path: Path, split: str, classes: Sequence[str]) -> Predictions:
    rows = [row for row in read_rows(path) if row["split"] == split]
    return Predictions(
        names=tuple(row["name"] for row in rows),
        targets=np.array([classes.index(row["label"]) for row in rows], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]),
    )
