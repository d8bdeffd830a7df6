"""``--log``: epochs and scores go to TensorBoard or MLflow too, by the libraries' own writers.

Nothing of a run depends on it: ``history.csv`` and ``metrics.json`` have all of it, and a tracker
that fails is left out with one line. The libraries are optional (``requirements-extra.in``) and
imported only here, when they were asked for.

A stage is logged as a whole when it ends. A resumed run logs the stages that are not there yet.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.core.console import quiet_native_stderr, say
from app.core.environment import require_package
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.run_metrics import HistoryRow
from app.training.checkpoint import Checkpoint

RECORD = "mlflow"  # of the checkpoint: the id of MLflow's run
SCORES = ("accuracy", "log_loss", "brier", "ece")  # of validation and test, logged at the end
# Small files; the models stay in the run's own folder, and so does the report, which shows photos.
ARTIFACTS = ("config.json", "history.csv", "metrics.json", "MODEL_CARD.md", "bundle/bundle.json")
MLFLOW_BATCH = 1000  # metrics that its server takes at once
# MLflow sends statistics of its use to its makers, reports the tables that it makes, and tries a
# server that does not answer seven times, in four minutes; what the user has set takes precedence.
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


def require_trackers(names: Sequence[str], data: Path) -> None:
    """Refuse to begin where a library is missing or MLflow's server does not answer.

    Args:
        names: of the trackers, out of ``app.core.config.TRACKERS``.
        data: the folder of photos, into which nothing may be written.

    Raises:
        UsageError: with the command that installs the library, or the variable to be set.
    """
    for name in names:
        require_package(name, f"--log {name}")
    if "mlflow" in names:
        here = Path.cwd()
        if "MLFLOW_TRACKING_URI" not in os.environ and here.is_relative_to(data.resolve()):
            raise UsageError(
                "expected MLFLOW_TRACKING_URI, without which MLflow writes into this folder; "
                f"received none in {here}, among the photos; set it, or go to another folder"
            )
        mlflow = _mlflow()
        try:
            mlflow.MlflowClient().search_experiments(max_results=1)
        except Exception as error:  # of requests, SQLAlchemy, or MLflow's own
            raise UsageError(
                f"expected MLflow to answer at {mlflow.get_tracking_uri()}; received "
                f"{_one_line(error)}; set MLFLOW_TRACKING_URI to a place that does"
            ) from error


class Tracking:
    """All trackers of a run; whichever fails is left out, and training continues.

    Args:
        names: of the trackers.
        settings: of the run, by name (``app.core.config.flattened``).
        run: that is trained.
        checkpoint: keeps what is needed to resume in the same place.
    """

    def __init__(
        self, names: Sequence[str], settings: Mapping[str, Any], run: Run, checkpoint: Checkpoint
    ) -> None:
        texts = {name: str(value) for name, value in settings.items()}
        self._run = run
        self._trackers: dict[str, _TensorBoard | _MLflow] = {}
        for name in names:
            try:
                with quiet_native_stderr():  # TensorFlow's, where TensorBoard finds it
                    self._trackers[name] = (
                        _TensorBoard(run.logs, texts)
                        if name == "tensorboard"
                        else _MLflow(run, texts, checkpoint)
                    )
                say(self._trackers[name].place)
            except Exception as error:  # what a server or its library may raise is not listed
                self._leave_out(name, error)

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        """Log all epochs of a stage that has ended, in this process or an earlier one."""
        self._each(lambda tracker: tracker.stage(name, rows))

    def finish(self) -> None:
        """Log the scores of the finished run, and close."""
        if not self._trackers:
            return
        metrics = self._run.read_metrics()
        scores = {
            f"{split}/{key}": float(getattr(scored, key))
            for split, scored in (("validation", metrics.validation), ("test", metrics.test))
            for key in SCORES
        }
        scores |= {f"seconds/{phase}": value for phase, value in metrics.seconds.items()}
        self._each(lambda tracker: tracker.finish(scores))

    def stop(self) -> None:
        """Close: training has ended otherwise than by success."""
        self._each(lambda tracker: tracker.stop())

    def _each(self, act: Callable[[_TensorBoard | _MLflow], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # as above
                self._leave_out(name, error)
                with suppress(Exception):
                    tracker.stop()

    def _leave_out(self, name: str, error: Exception) -> None:
        self._trackers.pop(name, None)
        say(f"{name} is left out: {_one_line(error)}; the run has everything in its own folder")


class _TensorBoard:
    """Event files under ``runs/NAME/logs``: ``tensorboard --logdir runs`` shows runs together.

    Tags and folders are those of ``keras.callbacks.TensorBoard``, which needs a compiled model (the
    solved head has none): ``logs/block5/train`` and ``logs/block5/validation``, epochs from 1.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        from tensorboard.summary import Writer

        self._folder, self._settings, self._writer = folder, settings, Writer
        self.place = f"TensorBoard: tensorboard --logdir {shlex.quote(str(folder.parent.parent))}"

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        train = {
            "epoch_loss": [row.loss for row in rows],
            "epoch_accuracy": [row.accuracy for row in rows],
            "epoch_learning_rate": [row.learning_rate for row in rows],
        }
        validation = {
            "epoch_loss": [row.validation_loss for row in rows],
            "epoch_accuracy": [row.validation_accuracy for row in rows],
        }
        self._write(self._folder / name / "train", train, first_step=1)
        self._write(self._folder / name / "validation", validation, first_step=1)

    def finish(self, scores: Mapping[str, float]) -> None:
        self._write(self._folder, {name: [value] for name, value in scores.items()}, first_step=0)
        if not find_spec("tensorflow"):  # TensorBoard's module for the tab HPARAMS needs it
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams import api
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        summary = api.hparams_pb(dict(self._settings), trial_id=self._folder.parent.name)
        writer = EventFileWriter(str(self._folder))
        writer.add_event(Event(wall_time=time.time(), summary=summary))
        writer.close()

    def stop(self) -> None:
        """Nothing is open between stages."""

    def _write(self, folder: Path, values: Mapping[str, list[float]], first_step: int) -> None:
        if any(folder.glob("events.out.tfevents.*")):
            return  # an earlier process of this run wrote it
        writer = self._writer(str(folder))
        for tag, row in values.items():
            for step, value in enumerate(row, start=first_step):
                writer.add_scalar(tag, value, step)
        writer.close()


class _MLflow:
    """A run of MLflow's, in its own default place or at ``MLFLOW_TRACKING_URI``.

    The experiment is MLflow's default, or ``MLFLOW_EXPERIMENT_NAME``. Metrics are ``head/loss`` and
    the like, their step the epoch; final ones ``test/accuracy``. Settings are parameters.
    """

    def __init__(self, run: Run, settings: Mapping[str, str], checkpoint: Checkpoint) -> None:
        self._mlflow, self._folder = _mlflow(), run.folder
        kept = checkpoint.load(RECORD)
        # A run that is active belongs to whoever has called us; ours is beside it.
        started = self._mlflow.start_run(
            run_id=kept.values["run_id"] if kept else None,
            run_name=None if kept else run.folder.resolve().name,
            nested=self._mlflow.active_run() is not None,
        )
        self._id = str(started.info.run_id)
        self.place = f"MLflow: run {self._id} at {self._mlflow.get_tracking_uri()}"
        if not kept:
            self._mlflow.log_params(dict(settings))
            checkpoint.save(RECORD, {"run_id": self._id})

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        client, metric = self._mlflow.MlflowClient(), self._mlflow.entities.Metric
        if client.get_metric_history(self._id, f"{name}/seconds"):
            return  # an earlier process of this run logged it
        now = int(1000 * time.time())
        metrics = [
            metric(f"{name}/{key}", value, now, row.epoch)
            for row in rows
            for key, value in asdict(row).items()
            if key not in ("stage", "epoch")
        ]
        for start in range(0, len(metrics), MLFLOW_BATCH):
            client.log_batch(self._id, metrics[start : start + MLFLOW_BATCH])

    def finish(self, scores: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(scores), run_id=self._id)
        for name in ARTIFACTS:
            path = self._folder / name
            if path.is_file():  # a card that could not be written is no reason to fail
                folder = Path(name).parent.name or None
                self._mlflow.log_artifact(str(path), artifact_path=folder, run_id=self._id)
        self._mlflow.end_run("FINISHED")

    def stop(self) -> None:
        """Mark the run as killed; when it is resumed, MLflow has it running again."""
        self._mlflow.end_run("KILLED")


def _mlflow() -> Any:
    """Import MLflow with ``MLFLOW_SETTINGS``."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it makes MLflow's tables
    return mlflow


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
