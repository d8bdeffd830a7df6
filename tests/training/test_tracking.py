"""TensorBoard and MLflow have what history.csv and metrics.json have, and have it once."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from made_up import HISTORY, made_up_run
from photos import drawn_photos

import app.core.environment
import app.training.tracking
import train
from app.core.cli import run as run_command
from app.core.config import TrainConfig, config_values, flattened
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.core.run_metrics import HistoryRow, read_history
from app.training.checkpoint import Checkpoint
from app.training.tracking import Tracking, require_trackers

HEAD, BLOCK5 = [row for row in HISTORY if row.stage == "head"], [HISTORY[-1]]
# SQLAlchemy and MLflow remark on each other, and leave their connections to the end.
MLFLOW_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.fixture
def run(tmp_path) -> Run:
    return made_up_run(tmp_path / "my runs" / "made-up")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """One database for all tests: making its tables takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(tmp_path, store, monkeypatch) -> Any:
    """MLflow with its runs in the store and its artifacts in the test's folder."""
    pytest.importorskip("mlflow", reason="MLflow is optional and not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no store of its own")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    module = app.training.tracking._mlflow()
    yield module
    while module.active_run():
        module.end_run()


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is optional and not installed")


def settings_of(config: TrainConfig) -> dict[str, Any]:
    return flattened(config_values(config))


SETTINGS = settings_of(TrainConfig(data=Path("photos"), seed=3))


def log(
    name: str, run: Run, checkpoint: Checkpoint, *stages: list[HistoryRow], end: str = "finish"
) -> None:
    """Log stages as a run does, each when it ends."""
    tracking = Tracking([name], SETTINGS, run, checkpoint)
    for rows in stages:
        tracking.stage(rows[0].stage, rows)
    if end == "finish":
        tracking.finish()
    elif end == "stop":
        tracking.stop()


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read event files as TensorBoard does: tag → steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, make_ndarray(event.tensor_proto).item()) for event in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
        if not tag.startswith("_")
    }


def assert_events_are(rows: list[HistoryRow], logs: Path) -> None:
    for stage in {row.stage for row in rows}:
        told = [row for row in rows if row.stage == stage]
        for folder, tags in {
            "train": {"loss": "loss", "accuracy": "accuracy", "learning_rate": "learning_rate"},
            "validation": {"loss": "validation_loss", "accuracy": "validation_accuracy"},
        }.items():
            found = events(logs / stage / folder)
            assert set(found) == {f"epoch_{tag}" for tag in tags}
            for tag, name in tags.items():
                steps, values = zip(*found[f"epoch_{tag}"], strict=True)
                assert list(steps) == [row.epoch for row in told]
                assert values == pytest.approx([getattr(row, name) for row in told])


def mlflow_rows(mlflow: Any) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """Return the only run in the test's experiment, and its metrics: key → steps and values."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(Path.cwd().name)
    (found,) = client.search_runs([experiment.experiment_id])
    return found, {
        key: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, key)]
        for key in found.data.metrics
    }


def assert_metrics_are(rows: list[HistoryRow], found: dict[str, list[tuple[int, float]]]) -> None:
    for name in ("loss", "accuracy", "validation_loss", "learning_rate", "seconds"):
        for stage in {row.stage for row in rows}:
            told = [(row.epoch, getattr(row, name)) for row in rows if row.stage == stage]
            assert found[f"{stage}/{name}"] == told


def test_tensorboard_has_every_epoch_and_the_final_figures(run, tmp_path, tensorboard, capsys):
    log("tensorboard", run, Checkpoint(tmp_path / "kept"), HEAD, BLOCK5)
    assert_events_are([*HEAD, *BLOCK5], run.logs)
    test = json.loads(run.metrics.read_text())["test"]
    final = events(run.logs)
    assert final["test/accuracy"] == [(0, pytest.approx(test["accuracy"]))]
    assert final["seconds/total"] == [(0, 7.0)]
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"tensorboard --logdir '{run.folder.parent}'" in said


def test_tensorboard_has_the_settings(run, tmp_path, tensorboard):
    """As its tab HPARAMS reads them; its module for that needs TensorFlow."""
    pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    log("tensorboard", run, Checkpoint(tmp_path / "kept"), HEAD)
    (found,) = [
        parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
        for path in run.logs.glob("events.*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag.endswith("session_start_info")
    ]
    settings = {name: value.string_value for name, value in found.hparams.items()}
    assert settings["seed"] == "3"
    assert settings["block5.epochs"] == str(SETTINGS["block5.epochs"])


def test_tensorboard_has_no_epoch_twice_in_a_resumed_run(run, tmp_path, tensorboard):
    """Killed after the head was logged; the stages that are kept are logged again on resuming."""
    kept = Checkpoint(tmp_path / "kept")
    log("tensorboard", run, kept, HEAD, end="killed")
    log("tensorboard", run, kept, HEAD, BLOCK5)
    assert_events_are([*HEAD, *BLOCK5], run.logs)
    assert len(events(run.logs)["test/accuracy"]) == 1


@pytest.mark.slow  # the database's tables alone take seconds
@MLFLOW_WARNINGS
def test_mlflow_has_settings_epochs_figures_and_small_files(run, tmp_path, mlflow):
    run.model_card.write_text("card")
    log("mlflow", run, Checkpoint(tmp_path / "kept"), HEAD, BLOCK5)
    found, metrics = mlflow_rows(mlflow)
    assert (found.info.run_name, found.info.status) == ("made-up", "FINISHED")
    assert found.data.params["seed"] == "3"
    assert found.data.params["stages"] == "head,block5"
    assert found.data.params["block5.epochs"] == "2"
    assert_metrics_are([*HEAD, *BLOCK5], metrics)
    assert metrics["test/accuracy"] == [(0, run.read_metrics().test.accuracy)]
    client = mlflow.MlflowClient()
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert names == {"MODEL_CARD.md", "bundle", "config.json", "history.csv", "metrics.json"}
    assert mlflow.active_run() is None


@pytest.mark.slow  # the database's tables alone take seconds
@MLFLOW_WARNINGS
def test_mlflow_goes_on_with_the_run_that_was_broken_off(run, tmp_path, mlflow):
    kept = Checkpoint(tmp_path / "kept")
    log("mlflow", run, kept, HEAD, end="stop")
    found, _ = mlflow_rows(mlflow)
    assert found.info.status == "KILLED"
    log("mlflow", run, kept, HEAD, BLOCK5)
    again, metrics = mlflow_rows(mlflow)
    assert (again.info.run_id, again.info.status) == (found.info.run_id, "FINISHED")
    assert_metrics_are([*HEAD, *BLOCK5], metrics)


@pytest.mark.slow  # the database's tables alone take seconds
@MLFLOW_WARNINGS
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(run, tmp_path, mlflow, capsys):
    pytest.importorskip("tensorboard", reason="TensorBoard is optional and not installed")
    tracking = Tracking(["tensorboard", "mlflow"], SETTINGS, run, Checkpoint(tmp_path / "kept"))
    tracking.stage("head", HEAD)
    mlflow.MlflowClient().delete_run(mlflow.active_run().info.run_id)
    tracking.stage("block5", BLOCK5)
    tracking.finish()
    said = capsys.readouterr().err
    assert said.count("mlflow is left out: ") == 1
    assert_events_are([*HEAD, *BLOCK5], run.logs)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_library_is_named_before_any_photo_is_read(name, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        app.core.environment, "find_spec", lambda one: None if one == name else find(one)
    )
    argv = ["--data", str(tmp_path / "no photos"), "--runs", str(tmp_path), "--log", name]
    assert run_command(train.main, argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"expected the package {name} for --log {name}" in error
    assert f"python -m pip install {name}" in error
    assert list(tmp_path.iterdir()) == []


@MLFLOW_WARNINGS
def test_a_server_that_does_not_answer_is_named_before_any_photo_is_read(mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nobody listens
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    with pytest.raises(UsageError, match=r"expected MLflow to answer at http://127\.0\.0\.1:9"):
        require_trackers(["mlflow"], Path("photos"))


def test_without_the_flag_nothing_is_written(run, tmp_path):
    before = sorted(run.folder.rglob("*"))
    require_trackers([], Path("photos"))
    tracking = Tracking([], SETTINGS, run, Checkpoint(tmp_path / "kept"))
    tracking.stage("head", HEAD)
    tracking.finish()
    assert sorted(run.folder.rglob("*")) == before
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
@MLFLOW_WARNINGS
def test_a_run_that_is_broken_off_tells_each_epoch_once(tmp_path, mlflow, tensorboard):
    """Both of them, in a real training that ends in block5's second epoch and goes on."""
    import app.training.finetune

    argv = ["--data", str(drawn_photos(tmp_path / "photos")), "--runs", str(tmp_path / "runs")]
    argv += ["--run", "one", "--weights", "none", "--image-size", "32", "--epochs", "3"]
    argv += ["--precision", "float32", "--no-report", "--log", "tensorboard,mlflow"]
    result, starts = Run(tmp_path / "runs" / "one"), []

    def second_start(self: Any, epoch: int, logs: Any = None) -> None:
        starts.append(epoch)
        if len(starts) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.training.finetune._Log, "on_epoch_begin", second_start)
        assert run_command(train.main, argv) == 130
    assert mlflow_rows(mlflow)[0].info.status == "KILLED"
    assert run_command(train.main, ["--resume", str(result.folder)]) == 0
    rows = read_history(result.history)
    assert len([row for row in rows if row.stage == "block5"]) == 3
    assert_events_are(rows, result.logs)
    found, metrics = mlflow_rows(mlflow)
    assert found.info.status == "FINISHED"
    assert_metrics_are(rows, metrics)
    accuracy = json.loads(result.metrics.read_text())["test"]["accuracy"]
    assert metrics["test/accuracy"] == [(0, accuracy)]


def test_mlflow_is_not_to_write_among_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(app.core.environment, "find_spec", lambda name: True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="among the photos; set it"):
        require_trackers(["mlflow"], Path())
