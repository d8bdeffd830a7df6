"""``--log``: epochs and figures go to TensorBoard or MLflow as well, by those libraries' own means.

Nothing of a run depends on it: ``history.csv`` and ``metrics.json`` have all that is told, and a
tracker that fails in mid-training is left out with one line. The libraries are optional
(``requirements-extra.in``) and imported only here, when they are asked for.

What is told twice is written once, so a run that is broken off and goes on has no double rows:
TensorBoard's folder of a stage is written anew when a process first tells of it; MLflow is asked
which epochs it has.
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
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from app.core.config import TrainConfig, config_values, flattened
from app.core.console import quiet_native_stderr, say
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.run_metrics import HistoryRow
from app.training.checkpoint import Checkpoint

# The name of a stage and all of its epochs so far → nothing. Telling the same again is harmless.
Track = Callable[[str, Sequence[HistoryRow]], None]

RECORD = "mlflow"  # of the checkpoint: which run of MLflow's goes on
SCORES = ("accuracy", "log_loss", "brier", "ece")  # of validation and test, told at the end
# Small files; the models stay in the run's own folder, and so does the report, which shows photos.
ARTIFACTS = ("config.json", "history.csv", "metrics.json", "MODEL_CARD.md", "bundle/bundle.json")
# MLflow sends statistics of its use to its makers, tells of tables that it makes, and asks a server
# that does not answer seven times, in four minutes; what the user has set counts more.
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class Tracker(Protocol):
    """One place that is told.

    Attributes:
        place: in words, where it is found.
    """

    place: str

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        """Take all epochs of a stage so far; those that were told before are known."""

    def finish(self, values: Mapping[str, str], scores: Mapping[str, float]) -> None:
        """Take settings and final figures of a run that has finished."""

    def stop(self) -> None:
        """Close; the run may go on later."""


def track_nothing(name: str, rows: Sequence[HistoryRow]) -> None:
    """Tell nobody."""


def require_trackers(config: TrainConfig) -> None:
    """Refuse to begin where a library of ``--log`` is missing or MLflow's server does not answer.

    Raises:
        UsageError: with the command that installs it.
    """
    for name in config.trackers():
        if not find_spec(name):
            raise UsageError(
                f"expected the library {name} for --log {name}; received a Python without it; "
                f"python -m pip install {name}"
            )
    if "mlflow" in config.trackers():
        here = Path.cwd()
        if "MLFLOW_TRACKING_URI" not in os.environ and here.is_relative_to(config.data.resolve()):
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
                f"{_told(error)}; set MLFLOW_TRACKING_URI to a place that does"
            ) from error


class Tracking:
    """All trackers of a run; whichever fails is left out, and training goes on.

    Args:
        config: its ``log`` names them.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._trackers: dict[str, Tracker] = {}

    def begin(self, run: Run, checkpoint: Checkpoint) -> None:
        """Open the trackers, and say where they write.

        Args:
            run: that is trained.
            checkpoint: keeps what is needed to go on in the same place.
        """
        makers: dict[str, Callable[[], Tracker]] = {
            "tensorboard": lambda: TensorBoardTracker(run.logs),
            "mlflow": lambda: MLflowTracker(self._config, run, checkpoint),
        }
        for name in self._config.trackers():
            try:
                with quiet_native_stderr():  # TensorFlow's, where TensorBoard finds it
                    self._trackers[name] = makers[name]()
            except Exception as error:  # see _each
                _say_left_out(name, error)
            else:
                say(self._trackers[name].place)

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        """Tell all epochs of a stage so far."""
        self._each(lambda tracker: tracker.stage(name, rows))

    def finish(self, run: Run) -> None:
        """Tell the settings and figures of a finished run, and close."""
        if not self._trackers:
            return
        metrics = run.read_metrics()
        scores = {
            f"{split}/{key}": float(getattr(scored, key))
            for split, scored in (("validation", metrics.validation), ("test", metrics.test))
            for key in SCORES
        }
        scores |= {f"seconds/{phase}": value for phase, value in metrics.seconds.items()}
        values = settings_of(self._config)
        self._each(lambda tracker: tracker.finish(values, scores))
        self._trackers = {}

    def stop(self) -> None:
        """Close: training has ended otherwise than by success."""
        self._each(lambda tracker: tracker.stop())
        self._trackers = {}

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # what a server or its library may raise is not listed
                del self._trackers[name]
                _say_left_out(name, error)
                with suppress(Exception):
                    tracker.stop()


class TensorBoardTracker:
    """Event files under ``runs/NAME/logs``: ``tensorboard --logdir runs`` shows runs together.

    Tags and folders are those of ``keras.callbacks.TensorBoard``, a pair of them a stage:
    ``logs/block5/train`` and ``logs/block5/validation``. They are written by TensorBoard's own
    ``Writer``, which needs no TensorFlow, where that callback needs a compiled model, which the
    solved head has not. Epochs count from 1, as in ``history.csv``.

    Args:
        folder: of the logs.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self.folder, self._open = folder, Writer
        self.place = f"TensorBoard: tensorboard --logdir {shlex.quote(str(folder.parent.parent))}"
        _remove_events(folder)  # of a process that came to no end
        self._final = Writer(str(folder))
        self._written: dict[str, list[HistoryRow]] = {}
        self._writers: dict[str, tuple[Any, ...]] = {}

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        """Write the epochs that are not there yet."""
        written = self._written.get(name)
        if written is None or written != list(rows[: len(written)]):
            written = self._begin(name)
        train, validation = self._writers[name]
        for row in rows[len(written) :]:
            train.add_scalar("epoch_loss", row.loss, row.epoch)
            train.add_scalar("epoch_accuracy", row.accuracy, row.epoch)
            train.add_scalar("epoch_learning_rate", row.learning_rate, row.epoch)
            validation.add_scalar("epoch_loss", row.validation_loss, row.epoch)
            validation.add_scalar("epoch_accuracy", row.validation_accuracy, row.epoch)
            written.append(row)
        train.flush()
        validation.flush()

    def _begin(self, name: str) -> list[HistoryRow]:
        """Write a stage from its first epoch: another process, or larger batches, wrote it."""
        for writer in self._writers.pop(name, ()):
            writer.close()
        folder = self.folder / name
        for of in ("train", "validation"):
            _remove_events(folder / of)
        self._writers[name] = tuple(self._open(str(folder / of)) for of in ("train", "validation"))
        self._written[name] = []
        return self._written[name]

    def finish(self, values: Mapping[str, str], scores: Mapping[str, float]) -> None:
        """Write the settings, for the tab HPARAMS, and the final figures."""
        _write_settings(self.folder, values)
        for name, value in scores.items():
            self._final.add_scalar(name, value, 0)
        self.stop()

    def stop(self) -> None:
        """Close the files."""
        for writer in (self._final, *chain(*self._writers.values())):
            writer.close()


class MLflowTracker:
    """A run of MLflow's, in its own default place or at ``MLFLOW_TRACKING_URI``.

    The experiment is MLflow's default, or ``MLFLOW_EXPERIMENT_NAME``. Metrics are ``head/loss`` and
    the like, their step the epoch; final ones ``test/accuracy``. Settings are parameters. MLflow
    cannot take a value back: where memory did not suffice and a stage began again with smaller
    batches, an epoch that was told before keeps its first values.

    Args:
        config: the run's.
        run: that is trained; the other one has its name.
        checkpoint: keeps which of MLflow's runs it is.
    """

    def __init__(self, config: TrainConfig, run: Run, checkpoint: Checkpoint) -> None:
        self._mlflow, self._folder = _mlflow(), run.folder
        kept = checkpoint.load(RECORD)
        # A run that is on belongs to whoever has called us; ours is beside it.
        self._run = self._mlflow.start_run(
            run_id=kept.values["run_id"] if kept else None,
            run_name=None if kept else run.folder.resolve().name,
            nested=self._mlflow.active_run() is not None,
        )
        self._steps: dict[str, set[int]] = {}
        if not kept:
            self._mlflow.log_params(settings_of(config))
            checkpoint.save(RECORD, {"run_id": self._id})
        self.place = f"MLflow: run {self._id} at {self._mlflow.get_tracking_uri()}"

    @property
    def _id(self) -> str:
        return str(self._run.info.run_id)

    def stage(self, name: str, rows: Sequence[HistoryRow]) -> None:
        """Log the epochs that are not there yet."""
        if name not in self._steps:
            client = self._mlflow.MlflowClient()
            history = client.get_metric_history(self._id, f"{name}/seconds")  # the last of a batch
            self._steps[name] = {metric.step for metric in history}
        for row in rows:
            if row.epoch not in self._steps[name]:
                values = {key: v for key, v in asdict(row).items() if key not in ("stage", "epoch")}
                self._mlflow.log_metrics(
                    {f"{name}/{key}": value for key, value in values.items()},
                    step=row.epoch,
                    run_id=self._id,
                )
                self._steps[name].add(row.epoch)

    def finish(self, values: Mapping[str, str], scores: Mapping[str, float]) -> None:
        """Log the final figures and the small files."""
        self._mlflow.log_metrics(dict(scores), run_id=self._id)
        for name in ARTIFACTS:
            path = self._folder / name
            if path.is_file():  # a card that could not be written is no reason to fail
                folder = Path(name).parent.name or None
                self._mlflow.log_artifact(str(path), artifact_path=folder, run_id=self._id)
        self._mlflow.end_run("FINISHED")

    def stop(self) -> None:
        """Mark the run as broken off; when it goes on, MLflow has it running again."""
        self._mlflow.end_run("KILLED")


def _remove_events(folder: Path) -> None:
    """Remove TensorBoard's files, and nothing else, from a folder of this run.

    Where a link leads elsewhere they stay: they may be those of other runs.
    """
    if any(part.is_symlink() for part in (folder, folder.parent, folder.parent.parent)):
        return
    for path in folder.glob("events.out.tfevents.*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()


def settings_of(config: TrainConfig) -> dict[str, str]:
    """Return all settings as text, those of a stage as ``block5.epochs``."""
    return {name: str(value) for name, value in flattened(config_values(config)).items()}


def _write_settings(folder: Path, values: Mapping[str, str]) -> None:
    """Write what the tab HPARAMS shows; TensorBoard's module for it needs TensorFlow."""
    if not find_spec("tensorflow"):
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import api
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    summary = api.hparams_pb(dict(values), trial_id=folder.parent.name)
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(wall_time=time.time(), summary=summary))
    writer.close()


def _mlflow() -> Any:
    """Import MLflow with ``MLFLOW_SETTINGS``."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it makes MLflow's tables
    return mlflow


def _say_left_out(name: str, error: Exception) -> None:
    say(f"{name} is told no more: {_told(error)}; the run has everything in its own folder")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
