"""A finished run's files → plain data, for the report and whatever else is made from a run."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.config import TrainConfig
from app.core.config_file import flattened
from app.core.csv_tables import read_rows
from app.core.errors import BundleError
from app.core.history import HistoryRow, read_history
from app.core.run_folder import Run, check_complete, newest_complete_run
from app.data.manifest import ManifestRow, read_manifest
from app.evaluation.findings import Finding, Kind, read_findings
from app.evaluation.prediction_set import PredictionSet

# What of config.json is read, and of that what may name a place of the machine.
NEEDED = ("backbone", "data", "image_size", "seed", "stages", "weights")
PLACES = ("data", "exclude", "runs", "weights")
RUN_VARIABLE = "CATS_DOGS_RUN"
PHOTOS_VARIABLE = "CATS_DOGS_PHOTOS"
# The beginnings of ``app.data.audit``'s reasons that go on with a name → what they have in common.
_KINDS = {
    "excluded by ": "excluded by a list",
    "a copy of ": "a copy of another file",
    "nearly the same picture as ": "nearly the same picture as one in test or validation",
    "the same file lies in the classes ": "the same file lies in several classes",
}


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
    predictions: dict[str, PredictionSet]

    @property
    def classes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return list(self.metrics["classes"])

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
            kinds.setdefault(_kind_of(row.reason), []).append(row)
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
        if not any(stage["opens"] for stage in self.config["stages"]):
            return 0
        views: int | None = self.metrics.get("views")
        return None if views is None else views - 1

    def without_places(self) -> Results:
        """Return the same for what is passed on: of paths in the settings only the last part.

        ``runs`` is left out, since where a run lies is no part of how it was made.
        """
        config = {name: value for name, value in self.config.items() if name != "runs"}
        for name in PLACES:
            if isinstance(path := config.get(name), str):
                config[name] = Path(path).name or "photos"
        return replace(self, config=config)

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
            config=_read_config(run.config),
            metrics=metrics,
            manifest=read_manifest(run.manifest),
            findings=read_findings(run.audit),
            history=_some(read_history(run.history), run.history),
            predictions={
                split: _read_predictions(run.predictions, split, metrics["classes"])
                for split in ("validation", "test")
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"expected readable files in {run.folder}; received a damaged one "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    flattened(config)  # looks at the stages
    for name in NEEDED:
        config[name]
    for stage in config["stages"]:
        stage["opens"]
    return config


def _some(rows: list[Any], path: Path) -> list[Any]:
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return rows


def _read_predictions(path: Path, split: str, classes: Sequence[str]) -> PredictionSet:
    rows = _some([row for row in read_rows(path) if row["split"] == split], path)
    return PredictionSet(
        names=tuple(row["name"] for row in rows),
        targets=np.array([classes.index(row["label"]) for row in rows], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows]),
        novelty=np.array([float(row["novelty"]) for row in rows]),
    )


def _kind_of(reason: str) -> str:
    for beginning, kind in _KINDS.items():
        if reason.startswith(beginning):
            return kind
    return reason.partition(":")[0].partition(" (")[0]
