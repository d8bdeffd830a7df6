"""A finished run's files → plain data, for the report and whatever else is made from a run."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.config import TrainConfig, read_config
from app.core.errors import BundleError, UsageError
from app.core.run_folder import Run, check_complete, newest_complete_run
from app.core.run_metrics import HistoryRow, Metrics, read_history
from app.data.folder_layout import SPLITS
from app.data.manifest import REASONS, ManifestRow, read_manifest
from app.evaluation.findings import Finding, Kind, read_findings
from app.evaluation.prediction_set import PredictionSet, read_predictions
from app.report.verdict import corrections_said

NAMING = ("run", "runs", "report", "log")  # the settings that change no figure
RUN_VARIABLE = "CATS_DOGS_RUN"
PHOTOS_VARIABLE = "CATS_DOGS_PHOTOS"
CONVOLUTION = re.compile(r"(block\d+)_conv\d+/(kernel|bias)")  # in a bundle's ONNX file


@dataclass(frozen=True)
class Results:
    """All that a run's folder holds, but for its bundle.

    Attributes:
        name: of the run.
        config: its settings, from ``config.json``.
        metrics: the contents of ``metrics.json``.
        manifest: a row a file of the data folder.
        findings: photos of training and validation that are worth checking.
        test_findings: photos of test that are.
        history: a row an epoch.
        predictions: by split, ``validation`` and ``test``.
    """

    name: str
    config: TrainConfig
    metrics: Metrics
    manifest: list[ManifestRow]
    findings: list[Finding]
    test_findings: list[Finding]
    history: list[HistoryRow]
    predictions: dict[str, PredictionSet]

    @property
    def classes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return list(self.metrics.classes)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of used photos by split and class."""
        return Counter((row.split, row.label) for row in self.used())

    def skipped(self) -> list[ManifestRow]:
        """Return the files that were not used."""
        return [row for row in self.manifest if row.verdict == "skipped"]

    def findings_of(self, kind: Kind) -> list[Finding]:
        """Return one of the two lists, from its first place downwards."""
        return [finding for finding in self.findings if finding.finding == kind]

    def used(self) -> list[ManifestRow]:
        """Return the photos that were used."""
        return [row for row in self.manifest if row.verdict == "used"]

    def corrections(self) -> list[str]:
        """Return in sentences what a person corrected; empty where nothing."""
        return corrections_said(self.metrics)

    def sizes(self) -> NDArray[np.int64]:
        """Return ``(n, 2)``, width and height of every used photo."""
        return np.array([(row.width, row.height) for row in self.used()], np.int64)

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
        for row in self.used():
            groups.setdefault(row.group, []).append(row)
        return [group for name, group in groups.items() if name and len(group) > 1]

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
        given = {field.name: getattr(config, field.name) for field in fields(config)}
        last: dict[str, Any] = {
            name: Path(value.name) for name, value in given.items() if isinstance(value, Path)
        }
        last["data"] = Path(config.data.name or "photos")
        last["weights"] = config.weights and Path(config.weights).name
        last["corrections"] = tuple(Path(path.name) for path in config.corrections)
        last["runs"] = TrainConfig.runs
        return replace(self, config=replace(config, **last))

    def command(self) -> str:
        """Return the command that trains this again; flags that repeat a default are left out.

        So are the run's name, which is taken now, where it lies, ``--no-report`` and ``--log``.
        """
        words = ["python", "train.py"]
        for field in fields(TrainConfig):
            name, value = field.name, getattr(self.config, field.name)
            if name == "data" or (name not in NAMING and value != getattr(TrainConfig, name)):
                words += _flags(name, value)
        return shlex.join(words)


@dataclass(frozen=True)
class Block:
    """A block of the backbone.

    Attributes:
        name: ``block1``, ``block2``, ...
        convolutions: how many it has.
        weights: how many trained or frozen numbers they have.
        output: (channels, height, width) that the block gives for one photo, after its pooling.
    """

    name: str
    convolutions: int
    weights: int
    output: tuple[int, ...]


def read_blocks(model: Path) -> list[Block]:
    """Return the blocks of an ONNX file that this project has written, from the photo upwards.

    Empty when there is no such file, or it cannot be read.
    """
    import onnx  # here, because only this needs it

    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
    # A damaged file may raise nearly anything: protobuf's errors have no public root.
    except Exception:
        return []
    found: dict[str, list[tuple[str, int]]] = {}
    for tensor in graph.initializer:
        if match := CONVOLUTION.fullmatch(tensor.name):
            found.setdefault(match[1], []).append((match[2], math.prod(tensor.dims)))
    shapes = {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    pooled = {node.name: shapes.get(node.output[0], ()) for node in graph.node}
    return [
        Block(
            name,
            sum(kind == "kernel" for kind, _ in arrays),
            sum(count for _, count in arrays),
            pooled.get(f"{name}_pool", ())[1:],
        )
        for name, arrays in found.items()
    ]


def chosen_run(project: Path) -> Run:
    """Return the run that ``CATS_DOGS_RUN`` names, else the newest one in the project's ``runs``.

    Raises:
        BundleError: when no run there is complete.
    """
    named = os.environ.get(RUN_VARIABLE)
    return Run(Path(named)) if named else newest_complete_run(project / "runs")


def chosen_photos() -> Path | None:
    """Return the folder or archive of photos that ``CATS_DOGS_PHOTOS`` names; None: show drawings.

    So no photo gets into a notebook that may be passed on.
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
            test_findings=read_findings(run.test_audit),
            history=_some(read_history(run.history), run.history),
            predictions={
                split: read_predictions(run.predictions, split, metrics.classes)
                for split in SPLITS[1:]
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
    if name == "corrections":
        return [word for path in value for word in (flag, str(path))]
    return [flag] if value is True else [flag, ",".join(value) if name == "stages" else str(value)]


def _some(rows: list[Any], path: Path) -> list[Any]:
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return rows
