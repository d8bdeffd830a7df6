"""One process trains a run, and the newest run is the newest whatever the clock says."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import app.core.run_folder
import app.pipeline
import app.training.run_lock
from app.core.errors import AppError, BundleError, FetchError, UsageError
from app.core.run_folder import Run, begin_run, newest_complete_run
from app.training.run_lock import finish_time, remove_leftovers, resumable, training
from tests.core.test_runs import make_run

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from app.core.run_folder import Run
from app.training.run_lock import training
with training(Run(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_at_a_time_trains_a_run_and_a_killed_one_does_not(tmp_path):
    run = begin_run(tmp_path, "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match="another process is"), training(run):
                pytest.fail("two at once")
            with training(begin_run(tmp_path, "another")):
                pass
        finally:
            holder.kill()
    with training(run):
        assert run.unfinished.is_dir()
    assert not run.unfinished.exists()


def test_what_fails_keeps_what_it_learned(tmp_path):
    run = begin_run(tmp_path, "run")
    with pytest.raises(ZeroDivisionError), training(run) as checkpoint:
        checkpoint.save("head", {"epochs": 3})
        raise ZeroDivisionError
    with training(run) as checkpoint:
        assert checkpoint.load("head").values == {"epochs": 3}


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(28, "No space left on device", "runs/a/x"), "No space left on device: runs/a/x; "),
        (OSError("odd"), "odd; "),
    ],
)
def test_a_full_disk_says_how_to_go_on(failure, words, tmp_path):
    with pytest.raises(AppError) as caught, resumable(Run(tmp_path / "my run")):
        raise failure
    assert str(caught.value).startswith(words)
    assert f"python train.py --resume '{tmp_path}/my run'" in str(caught.value)


def test_a_folder_that_cannot_be_written_says_how_to_go_on(tmp_path):
    with (
        pytest.raises(AppError, match=r"free some space.*--resume"),
        resumable(Run(tmp_path / "a")),
    ):
        raise FetchError("cannot write; free some space") from OSError(28, "full")
    with pytest.raises(FetchError, match=r"^no such set$"), resumable(Run(tmp_path / "a")):
        raise FetchError("no such set")


def test_ctrl_c_says_how_to_go_on(tmp_path):
    go_on = r"go on with: python train\.py --resume"
    with pytest.raises(KeyboardInterrupt, match=go_on), resumable(Run(tmp_path / "a")):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match=go_on), resumable(Run(tmp_path / "a")):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise TypeError("TensorFlow makes this of it")
    with pytest.raises(KeyboardInterrupt) as caught, resumable(make_run(tmp_path / "b", "")):
        raise KeyboardInterrupt
    assert caught.value.args == (), "there is nothing to go on with"


def test_what_a_killed_process_had_begun_to_write_goes_and_nothing_else(tmp_path):
    run = make_run(tmp_path / "run", None)
    stay = ["config.json", "manifest.csv", "unfinished/head.record", "unfinished/lock", "mine.txt"]
    go = [
        ".bundle.x1y2_z34/folder/model.onnx",
        ".metrics.json.7.part",
        "unfinished/.head.record.7.part",
    ]
    for name in (*stay, *go):
        path = run.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_leftovers(run)
    left = [p for p in run.folder.rglob("*") if p.is_file()]
    assert {p.relative_to(run.folder).as_posix() for p in left} == set(stay)
    assert not (run.folder / ".bundle.x1y2_z34").exists()


# ---- names and times ----


class Clock(datetime):
    """A clock that somebody set."""

    at = datetime(2026, 5, 6, 12, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.at


@pytest.fixture
def clock(monkeypatch):
    for module in (app.core.run_folder, app.training.run_lock):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", Clock.at)
    return Clock


def test_runs_that_begin_in_the_same_second_have_names_of_their_own(tmp_path, clock):
    names = [begin_run(tmp_path, None).folder.name for _ in range(3)]
    assert names == ["2026-05-06_120000", "2026-05-06_120000-2", "2026-05-06_120000-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("name", [None, "first"])
def test_where_no_folder_can_be_made_it_says_so(name, tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    (tmp_path / "file").touch()
    for place in ("dangling", "file"):
        with pytest.raises(UsageError, match="expected a place to write"):
            begin_run(tmp_path / place, name)


def finish(tmp_path: Path, name: str) -> str:
    run = make_run(tmp_path / name, None)
    run.metrics.write_text(json.dumps({"finished": finish_time(run)}))
    return run.made_with().finished


def test_the_newest_run_is_the_newest_though_the_clock_was_set_back(tmp_path, clock, capsys):
    assert finish(tmp_path, "c") == "2026-05-06T12:00:00+00:00"
    clock.at += timedelta(hours=1)
    assert finish(tmp_path, "b") == "2026-05-06T13:00:00+00:00"
    assert finish(tmp_path, "again") == "2026-05-06T13:00:01+00:00"  # within the same second
    assert capsys.readouterr().err == ""
    clock.at -= timedelta(days=400)
    assert finish(tmp_path, "a") == "2026-05-06T13:00:02+00:00"
    (line,) = capsys.readouterr().err.splitlines()
    assert "the clock says 2025-04-01" in line
    assert newest_complete_run(tmp_path).folder.name == "a"


def test_damaged_times_of_other_runs_are_no_obstacle(tmp_path, clock):
    for number, text in enumerate(["{}", "[]", '{"finished": "soon"}', '{"finished": 7}']):
        make_run(tmp_path / f"{number}", "").metrics.write_text(text)
    assert finish(tmp_path, "a") == "2026-05-06T12:00:00+00:00"
    assert newest_complete_run(tmp_path).folder.name == "a"


# ---- killed at the very beginning ----


def test_a_run_killed_before_its_settings_were_written_says_what_to_do(tmp_path):
    run = begin_run(tmp_path, "first")
    (run.unfinished / "lock").parent.mkdir()
    (run.unfinished / "lock").touch()
    with pytest.raises(UsageError, match=r"nothing is lost; remove that folder, or .*--run NAME"):
        app.pipeline.resume(run.folder)
    with pytest.raises(UsageError, match="or remove that folder"):
        begin_run(tmp_path, "first")


def test_too_little_memory_says_how_to_go_on(tmp_path):
    with pytest.raises(AppError, match=r"more memory.*--resume"), resumable(Run(tmp_path / "a")):
        raise MemoryError


# ---- what others have put there ----


@pytest.fixture
def begun(tmp_path):
    run = begin_run(tmp_path, "run")
    run.config.touch()
    run.bundle.mkdir()
    for name in ("model.onnx", "bundle.json"):
        (run.bundle / name).touch()
    return run


def test_a_bundle_that_nobody_vouches_for_goes(begun):
    remove_leftovers(begun)
    assert not begun.bundle.exists()


@pytest.mark.parametrize("name", ["notes.txt", "model.int8.onnx/photo.jpg"])
def test_what_others_put_into_a_bundle_is_named_and_stays(begun, name):
    mine = begun.bundle / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UsageError, match=rf"received {name.split('/')[0]}; move it away"):
        remove_leftovers(begun)
    assert mine.read_text() == "mine"
    assert (begun.bundle / "bundle.json").exists(), "nothing is removed by halves"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_are_not_followed(begun, tmp_path):
    others = make_run(tmp_path / "other", "")
    (others.bundle / "model.onnx").touch()
    shutil.rmtree(begun.bundle)
    begun.bundle.symlink_to(others.bundle)
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("head.record", "lock", ".head.record.7.part"):
        (kept / name).touch()
    begun.unfinished.symlink_to(kept)
    with pytest.raises(UsageError, match="received a link"):
        remove_leftovers(begun)
    app.training.run_lock._remove_unfinished(begun)
    assert (others.bundle / "model.onnx").exists()
    assert {path.name for path in kept.iterdir()} == {"head.record", "lock", ".head.record.7.part"}


def test_what_others_put_beside_the_records_stays(tmp_path):
    run = begin_run(tmp_path, "run")
    with training(run) as checkpoint:
        checkpoint.save("head", {})
        (run.unfinished / "mine.txt").touch()
    assert [path.name for path in run.unfinished.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["config.json", "manifest.csv", "metrics.json"])
def test_a_pipe_in_place_of_a_file_is_refused_unread(begun, name):
    (begun.folder / name).unlink(missing_ok=True)
    os.mkfifo(begun.folder / name)
    with pytest.raises(BundleError, match=f"{name} to be a file"):
        app.pipeline.resume(begun.folder)
