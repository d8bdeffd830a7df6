"""A run that was broken off goes on to the figures of an unbroken one, or says why it cannot."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import onnx
import pytest
from photos import drawn_photos
from small_vgg import small_network

import app.experiment
import app.experiment_setup
import app.features.store
import app.inference.test_set
import app.network.classifier
import app.pipeline
import app.training.finetune
import train
from app.core.atomic_files import locked
from app.core.cli import run
from app.core.config import TrainConfig, config_values, read_config
from app.core.errors import BundleError, UsageError
from app.core.run_folder import Run, newest_complete_run
from app.core.run_metrics import HistoryRow, read_history
from app.data.manifest import read_manifest
from app.data.sets.synthetic_pets import draw_sample
from app.training.run_lock import training

ROOT = Path(__file__).parent.parent
SMALL = ["--weights", "none", "--image-size", "32", "--epochs", "3", "--deterministic"]
SMALL += ["--cache", "disk", "--no-report", "--precision", "float32"]
# Else block5 would not be kept on the word of a few validation photos.
EAGER = "import app.training.finetune as finetune; finetune.SMALL_VALIDATION = 0;"
PROGRAM = f"{EAGER} import train; from app.core.cli import leave, run; leave(run(train.main))"


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.training.finetune, "SMALL_VALIDATION", 0)
        yield


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


def figures(run: Run) -> dict[str, Any]:
    """All of ``metrics.json`` but times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: timeless(v)
                for k, v in value.items()
                if k not in ("seconds", "memory", "finished")
            }
        return [timeless(v) for v in value] if isinstance(value, list) else value

    return timeless(json.loads(run.metrics.read_text()))


def weights(run: Run) -> list[bytes]:
    """All numbers of ``model.onnx``; the names beside them count up within a process."""
    return [
        one.SerializeToString() for one in onnx.load(run.bundle / "model.onnx").graph.initializer
    ]


def history(run: Run) -> list[HistoryRow]:
    return [replace(row, seconds=0.0) for row in read_history(run.history)]


def assert_same(one: Run, other: Run) -> None:
    assert figures(one) == figures(other)
    assert history(one) == history(other)
    assert weights(one) == weights(other)
    assert one.predictions.read_bytes() == other.predictions.read_bytes()


def command(photos: Path, folder: Run) -> list[str]:
    """What begins a run; the name is given."""
    where = [
        "--data",
        str(photos),
        "--runs",
        str(folder.folder.parent),
        "--run",
        folder.folder.name,
    ]
    # With this seed block5 improves the drawings too: weights that are put back wrongly must show.
    return [*where, *SMALL, "--seed", "5"]


@pytest.fixture(scope="module", autouse=True)
def small():
    """Runs in this process train a network of few numbers; other processes the whole VGG16."""
    with small_network():
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return drawn_photos(tmp_path_factory.mktemp("data") / "drawn")


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory) -> Run:
    result = Run(tmp_path_factory.mktemp("unbroken") / "run")
    assert run(train.main, command(photos, result)) == 0
    # Else weights that are put back wrongly would not show.
    assert all(stage.kept_epoch > 0 for stage in result.read_metrics().stages)
    return result


@pytest.fixture(scope="module")
def broken_off(photos, tmp_path_factory) -> Run:
    """A run that was killed in the second epoch of block5; tests take a copy."""
    result = Run(tmp_path_factory.mktemp("broken-off") / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        break_off(patch, app.training.finetune._Log, "on_epoch_begin", at=2)
        run(train.main, command(photos, result))
    return result


@pytest.fixture
def copy(broken_off, tmp_path) -> Run:
    shutil.copytree(broken_off.folder.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / "run")


def break_off(patch: pytest.MonkeyPatch, place: object, name: str, at: int = 1) -> None:
    """Let the ``at``-th call of a function be the end."""
    original, calls = getattr(place, name), iter(range(1, 1000))

    def last(*args: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise Killed(name)
        return original(*args, **options)

    patch.setattr(place, name, last)


def test_broken_off_everywhere_it_ends_as_if_unbroken(photos, unbroken, tmp_path):
    """Contract 13: one run, broken off six times, each time a step further."""
    result = Run(tmp_path / "run")
    argv = command(photos, result)
    for place, name, at in [
        (app.experiment_setup, "load_classifier", 1),
        (app.features.store.FeatureStore, "append", 2),  # one of two cuts is written
        (app.experiment, "train_stage", 1),  # the head is solved
        (app.training.finetune._Log, "on_epoch_begin", 2),
        (app.training.finetune._Log, "on_epoch_begin", 2),  # epoch 3
        (app.inference.test_set, "write_predictions", 1),  # the bundle is written
    ]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed, match=name):
            break_off(patch, place, name, at)
            run(train.main, argv)
        assert not result.is_complete()
        argv = ["--resume", str(result.folder)]
    assert run(train.main, argv) == 0
    assert_same(result, unbroken)
    assert {p.name for p in result.folder.iterdir()} == {p.name for p in unbroken.folder.iterdir()}


def test_what_was_learned_is_not_learned_again(copy, monkeypatch, capsys):
    monkeypatch.setattr(app.experiment, "fit_linear_probe", None)
    monkeypatch.setattr(app.pipeline, "write_manifest", None)
    monkeypatch.setattr(app.features.store, "load_batches", None)
    assert run(train.main, ["--resume", str(copy.folder)]) == 0
    said = capsys.readouterr().err
    assert "stage head was trained before" in said
    assert re.findall(r"block5 epoch (\d)", said) == ["2", "3"]


def test_the_engine_that_was_measured_then_is_kept(copy, monkeypatch):
    def measured_today(*arguments: object) -> object:
        return "openvino" if arguments[3] == "auto" else arguments[3]

    monkeypatch.setattr(app.features.dataset, "onnx_engine", measured_today)
    settings = json.loads(copy.config.read_text())
    copy.config.write_text(json.dumps({**settings, "deterministic": False}))  # it may measure
    assert run(train.main, ["--resume", str(copy.folder)]) == 0
    metrics = copy.read_metrics()
    assert (metrics.frozen_engine, metrics.answered_by.engine) == ("onnxruntime", "onnxruntime")


@pytest.mark.parametrize(
    ("step", "next_step"), [("keep_conditions", "train_stages"), ("export", "write_record")]
)
def test_a_photo_that_vanished_is_put_back_and_nothing_is_lost(
    photos, copy, capsys, step, next_step
):
    """It is needed at the end, and missed before the epochs where it can be."""
    test = next(row for row in read_manifest(copy.manifest) if row.split == "test")
    photo, away = photos / test.name, copy.folder.parent / "away"
    original = getattr(app.experiment, step)

    def vanishing(*args: Any, **options: Any) -> Any:
        photo.rename(away)
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.experiment, step, vanishing)
        patch.setattr(app.pipeline if step == "export" else app.experiment, next_step, None)
        try:
            assert run(train.main, ["--resume", str(copy.folder)]) == 1
        finally:
            away.rename(photo)
    assert re.search(
        rf"expected .*{photo.name} as it was when training began; received: .*No such file.*; "
        rf"put it back, then go on with: python train\.py --resume .*{copy.folder.name}",
        capsys.readouterr().err,
    )
    if step == "export":
        assert run(train.main, ["--resume", str(copy.folder)]) == 0
        assert "stage block5 was trained before" in capsys.readouterr().err
        assert copy.is_complete()


def test_config_json_trains_the_same_again_under_a_new_name(unbroken, tmp_path, capsys):
    """Contract 14: bit for bit, the cache, the head and the epochs computed anew."""
    argv = ["--config", str(unbroken.config), "--runs", str(tmp_path / "runs")]
    assert train.parse(argv).run is None
    assert run(train.main, argv) == 0
    assert "other versions" not in capsys.readouterr().err
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.name != ".features")
    assert folder.name != unbroken.folder.name
    assert_same(Run(folder), unbroken)


@pytest.mark.slow
def test_no_cache_of_other_runs_changes_a_byte_of_the_bundle(photos, tmp_path):
    """Contracts 10 and 18, with the default precision and cache: int8 where the processor can.

    The run beside it trains on other photos, so that its scales for int8 are others.
    """
    defaults = ["--deterministic", "--weights", "none", "--image-size", "32", "--no-report"]

    def trained(runs: str, name: str, *more: str) -> Run:
        keras.utils.clear_session()  # the names in model.onnx count up within a process
        where = ["--data", str(photos), "--runs", str(tmp_path / runs), "--run", name]
        assert run(train.main, [*where, *defaults, *more]) == 0
        return Run(tmp_path / runs / name)

    cold = trained("cold", "run")
    trained("warm", "other", "--seed", "9", "--stages", "head")
    warm = trained("warm", "run")
    assert contents(cold.bundle) == contents(warm.bundle)
    assert figures(cold) == figures(warm)
    assert cold.predictions.read_bytes() == warm.predictions.read_bytes()


def contents(bundle: Path) -> dict[str, bytes]:
    """Return a bundle's files; of classifier.keras, which has the time, what it is made of."""
    found = {path.name: path.read_bytes() for path in bundle.glob("*.onnx")}
    with zipfile.ZipFile(bundle / "classifier.keras") as parts:
        return found | {name: parts.read(name) for name in ("config.json", "model.weights.h5")}


def test_flags_beside_config_count_more(unbroken, capsys):
    config = train.parse(["--config", str(unbroken.config), "--seed", "9", "--no-deterministic"])
    expected = read_config(unbroken.config)
    assert (config.seed, config.deterministic, config.run) == (9, False, None)
    assert (config.data, config.image_size) == (expected.data, 32)


def test_other_versions_are_told(unbroken, tmp_path, capsys):
    shutil.copy(unbroken.config, tmp_path / "config.json")
    metrics = json.loads(unbroken.metrics.read_text())
    metrics["versions"]["keras"] = "2.0.0"
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    train.parse(["--config", str(tmp_path / "config.json")])
    (line,) = capsys.readouterr().err.splitlines()
    assert "keras 2.0.0 (now 3." in line
    (tmp_path / "metrics.json").write_text("{}")
    train.parse(["--config", str(tmp_path / "config.json")])
    assert capsys.readouterr().err == ""


# ---- what cannot be gone on with ----


def refused(argv: list[str], capsys) -> str:
    """Return the one line in which a command is refused."""
    capsys.readouterr()
    assert run(train.main, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def test_a_finished_run_says_so(unbroken, capsys):
    line = refused(["--resume", str(unbroken.folder)], capsys)
    assert "which is finished" in line
    assert not unbroken.unfinished.exists()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_run_says_so(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    line = refused(["--resume", str(tmp_path / name)], capsys)
    assert "config.json" in line
    assert "No such file" in line
    assert not (tmp_path / "nothing").exists()


def test_other_settings_beside_resume_are_refused(copy, capsys):
    line = refused(["--resume", str(copy.folder), "--seed", "1", "--no-report", "--smoke"], capsys)
    assert "received --seed, --smoke as well" in line


def test_a_run_that_is_being_trained_is_refused(copy, capsys):
    with training(copy):
        assert "another process is" in refused(["--resume", str(copy.folder)], capsys)
    # ``training`` has ended as if the run were finished; nothing holds it any more.
    with locked(copy.unfinished / "lock", wait=False) as free:
        assert free


@pytest.mark.parametrize("what", ["is gone", "was changed", "is new"])
def test_other_photos_are_refused(what, copy, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (first, second, *_) = sorted((tmp_path / "photos" / "cat").iterdir())
    if what == "is gone":
        first.unlink()
    else:
        shutil.copy(second, first if what == "was changed" else first.with_name("cat.99.jpg"))
    values = json.loads(copy.config.read_text())
    copy.config.write_text(json.dumps({**values, "data": str(tmp_path / "photos")}))
    line = refused(["--resume", str(copy.folder)], capsys)
    assert f".jpg' {what}" in line
    assert f"--config {copy.config}" in line


@pytest.mark.parametrize(
    ("name", "place", "what"),
    [
        ("weights", app.network.classifier, "tensor_digest"),
        ("device", app.experiment_setup, "device_name"),
        ("backend", app.experiment.keras.backend, "backend"),
        ("frozen layers", app.features.dataset.CachedDataset, "frozen"),
    ],
)
def test_a_run_is_not_gone_on_with_in_another_way(copy, monkeypatch, capsys, name, place, what):
    other = property(lambda _: "others") if what == "frozen" else lambda *_: "others"
    monkeypatch.setattr(place, what, other)
    line = refused(["--resume", str(copy.folder)], capsys)
    assert f"received {name} others" in line


# ---- real processes ----

LONG = ["--weights", "none", "--epochs", "3", "--deterministic", "--no-report"]
WAYS = {
    "cached, as the processor computes best": ["--cache", "disk", "--image-size", "64"],
    "fresh views": ["--cache", "off", "--image-size", "32", "--precision", "float32"],
}
KILLS = 10  # of each way, two of one run


def process(
    argv: list[str], log: Path, program: Sequence[str] = ("-c", PROGRAM)
) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *program, *argv], cwd=ROOT, stdout=file, stderr=file
        )


def phase(run: Run) -> str:
    """Say how far a run had come, by what lies there."""
    if not run.config.exists():
        return "before the run"
    if run.is_complete():
        return "after metrics.json"
    if run.bundle.exists():
        return "bundle written"
    kept = {path.stem for path in run.unfinished.glob("[a-z]*.record")}
    for name, words in [
        ("block5", "stages ended"),
        ("block5-epochs", "block5 had epochs"),
        ("head", "head solved"),
        ("source", "features there"),
    ]:
        if name in kept:
            return words
    blocks = any(run.folder.parent.glob(".features/*/*.shard"))
    return "features begun" if blocks else "Keras starting"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments_it_ends_as_if_unbroken(way, tmp_path):
    """Contract 13, with ``kill -9``: each run is killed twice, each time at another moment."""
    draw_sample(tmp_path / "photos", per_class=40)

    def begun(name: str) -> tuple[Run, list[str]]:
        where = ["--runs", str(tmp_path / name), "--run", "run"]
        argv = ["--data", str(tmp_path / "photos"), *where, *LONG, *WAYS[way]]
        return Run(tmp_path / name / "run"), argv

    log = tmp_path / "log"
    unbroken, argv = begun("unbroken")
    started = time.monotonic()
    assert process(argv, log).wait() == 0, log.read_text()
    seconds = time.monotonic() - started
    assert unbroken.read_metrics().stages[1].kept_epoch > 0

    chance = random.Random(0)
    moments = [(number + chance.random()) / KILLS * seconds for number in range(KILLS)]
    # Early first: a process that goes on with a run that was killed late has ended soon.
    pairs = zip(moments[: KILLS // 2], reversed(moments[KILLS // 2 :]), strict=True)
    reached = []
    for number, pair in enumerate(pairs):
        result, argv = begun(f"killed-{number}")
        for moment in pair:
            killed = process(argv, log)
            with contextlib.suppress(subprocess.TimeoutExpired):
                killed.wait(moment)
            killed.kill()
            killed.wait()
            reached.append((round(moment, 1), phase(result)))
            assert "Traceback" not in log.read_text()
            if not result.is_complete():
                with pytest.raises(BundleError, match="expected a finished run"):
                    newest_complete_run(result.folder.parent)
            if result.config.exists():
                argv = ["--resume", str(result.folder), "--no-report"]
        if not result.is_complete():
            assert process(argv, log).wait() == 0, log.read_text()
        assert_same(result, unbroken)
        assert not result.unfinished.exists() or result.is_complete()
    print(f"{way}: unbroken {seconds:.1f} s;", *sorted(reached), sep="\n")


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_one_line(photos, tmp_path):
    """From 2 s on, when Python and the command line are up, to the end of training."""
    chance, log = random.Random(0), tmp_path / "log"
    for number in range(8):
        result = Run(tmp_path / f"{number}" / "run")
        stopped = process(command(photos, result), log, ["train.py"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            stopped.wait(2 + number + chance.random())
        stopped.send_signal(signal.SIGINT)
        code, said = stopped.wait(), log.read_text()
        if result.is_complete():
            continue
        assert code == 130, said
        assert said.splitlines()[-1] == (
            f"stopped by Ctrl-C; go on with: python train.py --resume {result.folder}"
            if result.folder.exists()
            else "stopped by Ctrl-C"
        )
        assert said.count("stopped by") == 1
        assert "Traceback" not in said


def limited(argv: list[str], megabytes: float) -> subprocess.CompletedProcess[str]:
    """Train where no file may grow beyond a size: for a program that is a full disk."""
    size = round(megabytes * 1e6)
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); {EAGER}"
        "import train; from app.core.cli import run; sys.exit(run(train.main))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *argv], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no limit of this kind")
@pytest.mark.parametrize(
    ("megabytes", "stages"),
    [(0.01, "head,block5"), (3, "head,block5"), (59, "head")],
    ids=["at a block of the cache", "at an epoch", "at the bundle"],
)
def test_where_a_disk_is_full_it_goes_on_when_there_is_room(megabytes, stages, photos, tmp_path):
    result, unbroken, log = Run(tmp_path / "run"), Run(tmp_path / "unbroken"), tmp_path / "log"
    done = limited([*command(photos, result), "--stages", stages], megabytes)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "File too large" in last
    assert f"--resume {result.folder}" in last
    assert "Traceback" not in done.stderr
    assert not result.is_complete()
    assert not result.bundle.exists()
    assert process(["--resume", str(result.folder)], log).wait() == 0, log.read_text()
    if stages != "head":
        assert process(command(photos, unbroken), log).wait() == 0, log.read_text()
        assert_same(result, unbroken)


# ---- config.json ----


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_settings_come_back_from_config_json(tmp_path):
    config = TrainConfig(
        data=tmp_path / "pets",
        runs=tmp_path / "runs",
        run="first",
        stages=("head", "block4"),
        epochs=7,
        stage_settings=("head.patience=9", "block4.batch_size=8", "block4.learning_rate=2e-05"),
        cache_limit=2.5,
    )
    path = tmp_path / "config.json"
    others = (
        replace(config, weights="none", views=7, head_strength=0.5),
        replace(config, epochs=None),
    )
    for one in (config, *others):
        back = read_config(write(path, config_values(one)))
        assert back.stage_plan() == one.stage_plan()
        assert replace(back, stage_settings=()) == replace(one, stage_settings=())


def test_paths_in_config_json_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = config_values(TrainConfig(data=Path("pets"), exclude=Path("x.txt"), weights="w.h5"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    back = read_config(write(tmp_path / "config.json", values))
    assert (back.data, back.exclude) == (tmp_path / "pets", tmp_path / "x.txt")
    assert (back.runs, back.weights) == (tmp_path / "runs", str(tmp_path / "w.h5"))


def edited(**changes: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(config_values(TrainConfig())))
    return {**values, **changes}


def edited_stage() -> dict[str, Any]:
    return edited()["stages"][0]


def with_rate(rate: float) -> dict[str, Any]:
    values = edited()
    values["stages"][1]["learning_rate"] = rate
    return values


WRONG = [
    ({"colour": 1}, r"knows; received colour as well"),
    ({"views": "2"}, r'views to be a whole number; received "2"'),
    ({"views": True}, r"views to be a whole number; received true"),
    ({"cache": "yes"}, r'cache to be "auto" or "disk" or "off"; received "yes"'),
    ({"run": 3}, r"run to be text or null; received 3"),
    ({"mirror": 1}, r"mirror to be true or false; received 1"),
    ({"data": None}, r"data to be a path; received null"),
    ({"stages": "head"}, r"stages to be a list"),
    ({"stages": ["head"]}, r'stages\[0\] to be values .*"head"'),
    ({"stages": [{"name": "tail"}]}, r"stages\[0\] in .*without opens"),
    ({"stages": [{**edited_stage(), "name": "tail"}]}, r"stages out of head"),
    ({"stages": [{**edited_stage(), "epochs": "3"}]}, r'stages\[0\].epochs to be a whole.*"3"'),
    ({"stages": [{**edited_stage(), "epochs": 3}]}, r"epochs of stage head to be 0.*received 3"),
    ({"stages": [{**edited_stage(), "rate": 3}]}, r"stages\[0\] in .*received rate as well"),
    ({"stages": [{**edited_stage(), "warmup": 2}]}, r"warmup of stage head between 0 and 1"),
    ({"views": 0}, r"--views between .*config.json"),
    ({"stage_settings": []}, r"stages to be a list"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_an_edited_config_json_is_taken_faithfully_or_refused(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        read_config(write(tmp_path / "config.json", edited(**changes)))
    assert "\n" not in str(caught.value)


def test_a_stage_is_trained_as_the_file_says(tmp_path):
    config = read_config(write(tmp_path / "config.json", with_rate(0.1)))
    assert config.stage_plan()[1].learning_rate == 0.1
    values = edited()
    values["stages"][1]["opens"] = ["block4", "block5"]
    with pytest.raises(UsageError, match=r"opens of stage block5 to be .*as this version"):
        read_config(write(tmp_path / "config.json", values))
    values = edited()
    del values["deterministic"]
    with pytest.raises(UsageError, match=r'without deterministic; .*add "deterministic": false'):
        read_config(write(tmp_path / "config.json", values))
    assert read_config(tmp_path / "config.json", exact=False).deterministic is False


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\x00"])
def test_what_is_no_config_json_is_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="expected") as caught:
        read_config(tmp_path / "config.json")
    assert "\n" not in str(caught.value)
