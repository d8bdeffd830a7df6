"""``train(config)``: photos → inventory → experiment → report.

``app.experiment`` has the training itself; here is what comes before and after it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from os.path import exists, isfile
from pathlib import Path
from typing import Any

from app.check import fit_to_photos, inventory_of
from app.core.atomic_files import write_json
from app.core.config import TrainConfig, config_values, flattened, read_config
from app.core.console import heeding_ctrl_c, quiet_native_stderr, say
from app.core.environment import (
    require_backend,
    require_engine,
    require_package,
    require_precision,
)
from app.core.errors import AppError, ExportError, UsageError
from app.core.profiling import Clock
from app.core.records import write_record
from app.core.run_folder import Run, begin_run, refuse_existing, refuse_irregular_files
from app.core.safe_output import refuse_among_photos
from app.data.corrections import Corrections, read_all_corrections, write_corrections
from app.data.folder_layout import data_folder, linked_folders
from app.data.manifest import ManifestRow, read_manifest, write_manifest
from app.export.formats import export_formats, require_formats
from app.training.checkpoint import Checkpoint
from app.training.run_lock import (
    refuse_finished,
    refuse_never_begun,
    remove_leftovers,
    resumable,
    training,
)
from app.training.tracking import Tracking, require_trackers


def train(config: TrainConfig) -> Run:
    """Train on the photos of ``config.data`` and return the finished run.

    Photos are judged before Keras is imported, so a wrong folder is answered at once.

    Raises:
        AppError: with one line for the user, see ``app.core.errors``.
        KeyboardInterrupt: its message says how to resume, once there is a run.
    """
    clock = Clock()
    check_settings(config)
    refuse_existing(config.runs, config.run)
    corrections = read_all_corrections(config.corrections)
    with data_folder(config.data) as root:
        others = [] if config.neither is None else [config.neither]
        refuse_among_photos(config.runs, config.data, [root, *linked_folders(root), *others])
        rows = _inventory(config, root, corrections, clock)
        config = fit_to_photos(config, rows)
        this_run = begin_run(config.runs, config.run)
        with resumable(this_run), training(this_run) as checkpoint:
            write_json(config_values(config), this_run.config)
            if corrections:  # the files may grow while it is trained
                write_corrections(corrections, this_run.applied)
            write_manifest(rows, this_run.manifest)
            tracking = _run_experiment(config, rows, corrections, root, this_run, checkpoint, clock)
    return write_reports(config, this_run, tracking)


def resume(folder: Path, *, report: bool = True, where: Mapping[str, Any] | None = None) -> Run:
    """Resume an interrupted run; its results equal those of an uninterrupted one.

    Args:
        folder: of the run.
        report: whether to write ``report.html``, if the run was begun with it.
        where: the settings in ``app.core.config.WHERE``, which the run does not keep.

    Raises:
        AppError: when the run cannot be gone on with: it is finished, being trained, or the photos
            are not those that it was begun with.
        KeyboardInterrupt: its message says how to resume.
    """
    clock = Clock()
    this_run = Run(folder)
    refuse_finished(this_run)
    refuse_never_begun(this_run)
    refuse_irregular_files(this_run)
    config = read_config(this_run.config)
    config = dataclasses.replace(
        config,
        runs=(folder if folder.name else folder.resolve()).parent,  # '.' has no name
        run=folder.resolve().name,
        report=report and config.report,
        **(where or {}),
    )
    check_settings(config)
    with (
        resumable(this_run),
        training(this_run) as checkpoint,
        data_folder(config.data) as root,
    ):
        remove_leftovers(this_run)
        applied = [this_run.applied] if this_run.applied.is_file() else config.corrections
        corrections = read_all_corrections(applied)
        rows = _inventory(config, root, corrections, clock)
        _compare_manifest(rows, this_run)
        tracking = _run_experiment(config, rows, corrections, root, this_run, checkpoint, clock)
    return write_reports(config, this_run, tracking)


def _inventory(
    config: TrainConfig, root: Path, corrections: Corrections, clock: Clock
) -> list[ManifestRow]:
    with clock.phase("audit"):
        return inventory_of(config, root, corrections)


def _compare_manifest(rows: list[ManifestRow], this_run: Run) -> None:
    """Refuse to go on with other photos than the run was begun with.

    Raises:
        UsageError: with the name of the first file that differs.
    """
    if not this_run.manifest.is_file():  # broken off before it was written
        write_manifest(rows, this_run.manifest)
        return
    then, now = (
        {row.name: row for row in some} for some in (read_manifest(this_run.manifest), rows)
    )
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            what = "is gone" if name not in now else "was changed" if name in then else "is new"
            raise UsageError(
                f"expected the photos that {this_run.folder} was begun with; received others: "
                f"{name!r} {what}; put them back, or begin a new run: python train.py --config "
                f"{this_run.config}"
            )


def _run_experiment(
    config: TrainConfig,
    rows: list[ManifestRow],
    corrections: Corrections,
    root: Path,
    this_run: Run,
    checkpoint: Checkpoint,
    clock: Clock,
) -> Tracking:
    """Import Keras, learn, and write ``metrics.json``, which makes the run a finished one.

    Returns:
        The trackers, which log the scores once the model card is written.
    """
    say("Starting Keras")
    # TensorFlow warns of every retrace; each part of the network is traced once by design.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with heeding_ctrl_c(), quiet_native_stderr():
        from app.evaluation.correction_effect import correction_metrics
        from app.experiment import run_experiment  # brings Keras, which takes seconds to import

    settings = flattened(config_values(config))
    tracking = Tracking(config.trackers(), settings, this_run, checkpoint)
    try:
        metrics = run_experiment(config, rows, root, this_run, checkpoint, clock, tracking)
        if corrections:
            changed = correction_metrics(this_run, rows, corrections, config.corrections)
            metrics = dataclasses.replace(metrics, corrections=changed)
        write_record(metrics, this_run.metrics)
    except BaseException:  # Ctrl-C too
        tracking.stop()
        raise
    return tracking


def write_reports(config: TrainConfig, this_run: Run, tracking: Tracking) -> Run:
    """Write a finished run's model card, and what else is wanted of it; return the run."""
    from app.report.model_card import write_model_card

    try:
        write_model_card(this_run)
    except (AppError, OSError) as error:  # as with the report below
        say(f"no model card yet: {error}; again: python -m app card {this_run.folder}")
    tracking.finish()
    if config.formats():
        try:
            export_formats(this_run, config.formats())
        except ExportError as error:
            say(str(error))  # which names those that are lacking
        except (AppError, OSError) as error:
            say(f"{error}; again: python -m app export {this_run.folder} {config.export}")
    if config.report:
        from app.report.report import write_report

        try:
            write_report(this_run)
        except (AppError, OSError) as error:  # the run itself is whole; it can be made later
            say(f"no report yet: {error}; again: python -m app report {this_run.folder}")
    return this_run


def check_settings(config: TrainConfig) -> None:
    """Raise ``UsageError`` for what would fail only after minutes of reading photos."""
    require_backend()
    require_precision(config.precision)
    require_engine(config.engine)
    require_trackers(config.trackers(), config.data)
    require_formats(config.formats())
    if config.ray is not None:
        require_package("ray", "--ray")
    run_folder = config.runs / (config.run or "")
    place = next(p for p in (run_folder, *run_folder.absolute().parents) if exists(p))
    if not os.access(place, os.W_OK):
        raise UsageError(
            f"expected a place to write; received {place} (permission denied); "
            "choose another with --runs"
        )
    if config.weights not in (None, "none") and not isfile(config.weights):
        raise UsageError(
            f"expected --weights to be a file or 'none'; received {config.weights}, which is not "
            "there; without --weights they are found or downloaded"
        )
