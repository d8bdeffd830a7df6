"""A finished run's files → plain data, for the report and whatever else is made from a run."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import read_rows
from app.core.config import TrainConfig, read_config
from app.core.errors import BundleError, UsageError
from app.core.run_folder import Run, check_complete, newest_complete_run
from app.core.run_metrics import HistoryRow, Metrics, read_history
from app.data.manifest import REASONS, ManifestRow, read_manifest
from app.evaluation.findings import Finding, Kind, read_findings

NAMING = ("run", "runs", "report", "log")  # the settings that change no figure
RUN_VARIABLE = "CATS_DOGS_RUN"
PHOTOS_VARIABLE = "CATS_DOGS_PHOTOS"


@dataclass(frozen=True)
class Predictions:
    """The answers on some photos.

    Attributes:
        names: of the photos, relative to the data folder.
        targets: ``(n,)``, the number of each photo's class.
        probabilities: ``(n, classes)``.
        novelty: ``(n,)``, 0 to 1; above ``app.inference.bundle_format.OOD_THRESHOLD`` the answer is
        ``neither``.
    """

    names: tuple[str, ...]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    novelty: NDArray[np.float64]

    @property
    def answers(self) -> NDArray[np.int64]:
        """The number of each photo's likeliest class."""
        answers: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return answers

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of each photo's likeliest class."""
        confidence: NDArray[np.float64] = self.probabilities.max(axis=1)
        return confidence

    def mistakes(self) -> list[int]:
        """Return the numbers of the photos that are answered wrongly, the most confident first."""
        wrong = np.flatnonzero(self.answers != self.targets)
        return sorted(wrong.tolist(), key=lambda n: (-self.confidence[n], self.names[n]))

    def least_certain(self) -> list[int]:
        """Return the numbers of all photos, those with the least confident answers first."""
        numbers = range(len(self.names))
        return sorted(numbers, key=lambda n: (self.confidence[n], self.names[n]))


@dataclass(frozen=True)
class Results:
    """All that a run folder says.

    Attributes:
        name: of the run.
        config: its settings, from ``config.json``.
        metrics: the contents of ``metrics.json``.
        manifest: a row a file of the data folder.
        findings: photos that a person should look at.
        history: a row an epoch.
        predictions: by split, ``validation`` and ``test``.
    """

    name: str
    config: TrainConfig
    metrics: Metrics
    manifest: list[ManifestRow]
    findings: list[Finding]
    history: list[HistoryRow]
    predictions: dict[str, Predictions]

    @property
    def classes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return list(self.metrics.classes)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of used photos by split and class."""
        return Counter((row.split, row.label) for row in self.manifest if row.verdict == "used")

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

    def refusals(self) -> dict[str, list[ManifestRow]]:
        """Return the files that were not used by the kind of reason, the most frequent first.

        A reason names single files ("a copy of cat.1.jpg") and numbers; its kind does not.
        """
        kinds: dict[str, list[ManifestRow]] = {}
        for row in self.skipped():
            kinds.setdefault(REASONS.get(row.code, row.code), []).append(row)
        return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))

    def near_duplicates(self) -> list[list[ManifestRow]]:
        """Return the groups of used photos that show nearly the same picture."""
        groups: dict[str, list[ManifestRow]] = {}
        for row in self.manifest:
            if row.verdict == "used" and row.group:
                groups.setdefault(row.group, []).append(row)
        return [group for group in groups.values() if len(group) > 1]

    def random_views(self) -> int | None:
        """Return how many random views of each photo a stage learned from.

        None: a fresh one in every epoch. The head alone learns from the photos themselves.
        """
        if not any(stage.opens for stage in self.config.stage_plan()):
            return 0
        views = self.metrics.views
        return None if views is None else views - 1

    def without_places(self) -> Results:
        """Return the same for what is passed on: of paths in the settings only the last part.

        ``runs`` is left out, since where a run lies is no part of how it was made.
        """
        config = self.config

        def last(path: Path) -> Path:
            return Path(path.name or "photos")

        shown = replace(
            config,
            data=last(config.data),
            exclude=config.exclude and last(config.exclude),
            weights=config.weights and last(Path(config.weights)).name,
            runs=TrainConfig.runs,
        )
        return replace(self, config=shown)

    def command(self) -> str:
        """Return the command that trains this again; flags that repeat a default are left out.

        So are the run's name, which is taken now, where it lies, ``--no-report`` and ``--log``.
        """
        words = ["python", "train.py"]
        given = {field.name: getattr(self.config, field.name) for field in fields(TrainConfig)}
        for name, value in given.items():
            if name == "data" or (name not in NAMING and value != getattr(TrainConfig, name)):
                words += _flags(name, value)
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


def chosen_photos() -> Path | None:
    """Return where the photos lie that may be shown; None: show drawings.

    The environment variable ``CATS_DOGS_PHOTOS`` names the folder or archive. Without it no photo
    gets into what may be passed on.
    """
    named = os.environ.get(PHOTOS_VARIABLE)
    return Path(named) if named else None


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
            config=read_config(run.config, exact=False),
            metrics=metrics,
            manifest=read_manifest(run.manifest),
            findings=read_findings(run.audit),
            history=_some(read_history(run.history), run.history),
            predictions={
                split: _read_predictions(run.predictions, split, metrics.classes)
                for split in ("validation", "test")
            },
        )
    except UsageError as error:  # of config.json, which nobody has given
        raise BundleError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"expected readable files in {run.folder}; received a damaged one "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error


def _flags(name: str, value: Any) -> list[str]:
    """Return a setting as the command line takes it."""
    if name == "stage_settings":
        return [word for text in value for word in ("--set", text)]
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, ",".join(value) if name == "stages" else str(value)]


def _some(rows: list[Any], path: Path) -> list[Any]:
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return rows


def _read_predictions(path: Path, split: str, classes: Sequence[str]) -> Predictions:
    rows = _some([row for row in read_rows(path) if row["split"] == split], path)
    return Predictions(
        names=tuple(row["name"] for row in rows),
        targets=np.array([classes.index(row["label"]) for row in rows], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]),
        novelty=np.array([float(row["novelty"]) for row in rows]),
    )
