"""The whole road, as a user walks it, on a few drawn pictures and a network of random weights."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import predict
import train
from app.cli import run
from app.drawn import draw_sample
from app.evaluation import probabilities_of
from app.images import load_image
from app.manifest import read_manifest
from app.runs import Run, newest_complete_run

ROOT = Path(__file__).parent.parent
# As little as shows every step: 12 pictures a class of which some train, 32 pixels.
FLAGS = ["--weights", "none", "--image-size", "32", "--views", "2", "--epochs", "1", "--seed", "3"]


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    draw_sample(folder, per_class=12)
    (folder / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Run:
    runs = tmp_path_factory.mktemp("runs")
    before = fingerprint(photos)
    argv = ["--data", str(photos), "--runs", str(runs), "--run", "first", "--no-report", *FLAGS]
    assert run(train.main, argv) == 0
    assert fingerprint(photos) == before, "contract 1: the user's photos are read-only"
    return Run(runs / "first")


@pytest.fixture
def ask(trained, capsys):
    """Call predict.py in this process: arguments → exit code and stdout."""

    def call(*arguments: str) -> tuple[int, str]:
        code = run(predict.main, ["--runs", str(trained.folder.parent), *arguments])
        return code, capsys.readouterr().out

    return call


def files_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*/*.jpg"))


def test_a_run_is_a_folder(trained):
    """Contract 2."""
    assert {path.name for path in trained.folder.iterdir()} == {
        "bundle",
        "config.json",
        "history.csv",
        "manifest.csv",
        "metrics.json",
        "predictions.csv",
    }
    assert trained.is_complete()


def test_the_manifest_names_every_file_with_its_verdict(trained, photos):
    rows = {row.name: row for row in read_manifest(trained.manifest)}
    assert set(rows) == {f"{path.parent.name}/{path.name}" for path in photos.glob("*/*")}
    assert rows["dog/broken.jpg"].verdict == "skipped"
    assert "beginning of a JPEG" in rows["dog/broken.jpg"].reason
    used = [row for row in rows.values() if row.verdict == "used"]
    assert {row.split for row in used} == {"train", "validation", "test"}


def test_metrics_hold_what_they_promise(trained):
    metrics = trained.read_metrics()
    assert metrics["classes"] == ["cat", "dog"]
    assert [stage["name"] for stage in metrics["stages"]] == ["head", "block5"]
    for stage in metrics["stages"]:
        assert {"trainable_parameters", "epochs", "seconds", "validation"} <= set(stage)
        assert {"accuracy", "log_loss"} <= set(stage["validation"])
    assert metrics["stages"][0]["trainable_parameters"] == 2 * 1024 + 2
    for split in ("validation", "test"):
        assert set(metrics[split]) == {
            "n",
            "accuracy",
            "accuracy_interval_95",
            "log_loss",
            "ece",
            "roc_auc",
            "confusion",
        }
    assert set(metrics["seconds"]) == {"audit", "features", "training", "export", "total"}
    assert metrics["seconds"]["total"] >= sum(
        metrics["seconds"][name] for name in ("audit", "features", "training", "export")
    )
    assert {"device", "backend", "precision", "versions"} <= set(metrics)


def test_predictions_and_metrics_tell_the_same(trained):
    with trained.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = trained.read_metrics()
    for split in ("validation", "test"):
        own = [row for row in rows if row["split"] == split]
        right = sum(row["label"] == row["answer"] for row in own)
        assert len(own) == metrics[split]["n"]
        assert right / len(own) == metrics[split]["accuracy"]
    assert all(abs(float(row["p_cat"]) + float(row["p_dog"]) - 1) < 1e-5 for row in rows)


def test_config_repeats_the_run(trained, photos):
    config = json.loads(trained.config.read_text())
    assert config["data"] == str(photos)
    assert [(stage["name"], stage["epochs"]) for stage in config["stages"]] == [
        ("head", 1),
        ("block5", 1),
    ]
    assert (config["seed"], config["views"], config["image_size"]) == (3, 2, 32)


def test_all_roads_to_an_answer_agree(trained, photos, ask):
    """One decoder, one network: alone, in a batch, as files, through Keras, and in the run."""
    code, out = ask("--json", *files_of(photos))
    assert code == 1  # one of them is broken
    batch = {Path(a["path"]).name: a["probabilities"] for a in map(json.loads, out.splitlines())}
    model = keras.models.load_model(trained.bundle / "classifier.keras")
    with trained.predictions.open(newline="") as file:
        in_run = {Path(row["name"]).name: row for row in csv.DictReader(file)}
    for name in in_run:
        path = photos / name.split(".")[0] / name
        (alone,) = map(json.loads, ask("--json", str(path))[1].splitlines())
        image = load_image(path, 32)
        by_keras = probabilities_of(model.predict(image[None], verbose=0))[0]
        for other in (
            [alone["probabilities"][c] for c in ("cat", "dog")],
            by_keras,
            [float(in_run[name][f"p_{c}"]) for c in ("cat", "dog")],
        ):
            np.testing.assert_allclose(list(batch[name].values()), other, atol=1e-3)


def test_a_second_run_computes_no_features_again(trained, photos, monkeypatch):
    import app.features

    def never(*_: object) -> None:
        raise AssertionError("the frozen prefix was computed again")

    monkeypatch.setattr(app.features, "load_batches", never)
    argv = ["--data", str(photos), "--runs", str(trained.folder.parent), "--run", "second"]
    assert run(train.main, [*argv, "--no-report", "--stages", "head", *FLAGS]) == 0
    assert newest_complete_run(trained.folder.parent).folder.name == "second"
    shutil.rmtree(trained.folder.parent / "second")


def test_cache_off_walks_the_same_road(photos, tmp_path):
    argv = ["--data", str(photos), "--runs", str(tmp_path), "--run", "off", "--cache", "off"]
    assert run(train.main, [*argv, "--no-report", *FLAGS]) == 0
    assert Run(tmp_path / "off").read_metrics()["cache"] == "off"
    assert not (tmp_path / ".features").exists()


def test_json_has_one_object_a_line_in_the_order_asked(photos, ask):
    names = files_of(photos)[::-1]
    code, out = ask("--json", *names)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers] == names
    for answer in answers:
        assert list(answer) == ["path", "label", "probabilities", "error"]
        if answer["error"] is None:
            assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
        else:
            assert answer["label"] is answer["probabilities"] is None
    assert code == 1


def test_folder_pattern_and_stdin_give_the_same_answers(photos, ask, monkeypatch):
    folder = ask("--csv", str(photos / "cat"))
    pattern = ask("--csv", str(photos / "cat" / "*.jpg"))
    listing = "\n".join(sorted(map(str, (photos / "cat").iterdir()))).encode()
    monkeypatch.setattr(sys, "stdin", open_bytes(listing))
    assert folder == pattern == ask("--csv", "-")
    assert folder[0] == 0
    assert len(folder[1].splitlines()) == 13


def open_bytes(data: bytes) -> object:
    import io

    return io.TextIOWrapper(io.BytesIO(data))


def test_odd_names_are_answered_without_a_traceback(photos, trained, tmp_path):
    names = ["new\nline.jpg", "quo\"te's.jpg", "-dash.jpg", "猫.jpg", "a" * 236 + ".jpg", "[x].jpg"]
    for name in names:
        shutil.copy(photos / "cat" / "cat.0.jpg", tmp_path / name)
    raw = os.fsencode(tmp_path) + b"/not-utf8-\xff.jpg"
    shutil.copy(photos / "cat" / "cat.0.jpg", raw)
    bundle = ["--bundle", str(trained.bundle)]
    for form, extra in (("--json", 0), ("--csv", 1 + 1)):  # a header; a newline within quotes
        done = subprocess.run(
            [sys.executable, "predict.py", form, *bundle, str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout.splitlines()) == len(names) + 1 + extra
    alone = subprocess.run(
        [sys.executable, str(ROOT / "predict.py"), *bundle, "--", "-dash.jpg", "[x].jpg"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert (alone.returncode, len(alone.stdout.splitlines())) == (0, 2)


@pytest.mark.parametrize("missing", ["nothing.jpg", "no*match.jpg", "a/b/c.png"])
def test_a_missing_file_is_reported_and_the_others_answered(ask, photos, missing):
    good = str(photos / "cat" / "cat.1.jpg")
    code, out = ask("--json", missing, good)
    first, second = map(json.loads, out.splitlines())
    assert code == 1
    assert "No such file" in first["error"]
    assert second["label"] in ("cat", "dog")


def test_the_table_is_for_people(ask, photos):
    code, out = ask(str(photos / "cat" / "cat.1.jpg"), str(photos / "dog" / "broken.jpg"))
    assert code == 1
    assert "%" in out.splitlines()[0]
    assert "beginning of a JPEG" in out.splitlines()[1]


def test_an_unfinished_run_is_never_picked(trained, photos, tmp_path, capsys):
    (tmp_path / "broken-off" / "bundle").mkdir(parents=True)
    code = run(predict.main, ["--runs", str(tmp_path), str(photos / "cat" / "cat.1.jpg")])
    error = capsys.readouterr().err
    assert code == 2
    assert "unfinished" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train.py", ["--data", "no-such-folder"], "no-such-folder"),
        ("train.py", ["--data", ".", "--stages", "tail"], "stages out of"),
        ("train.py", ["--data", ".", "--views", "0"], "--views between"),
        ("train.py", [], "--data"),
        ("predict.py", ["--bundle", "no-such-bundle", "x.jpg"], "no-such-bundle"),
        ("predict.py", ["--no-such-flag"], "usage"),
        ("predict.py", [], "PATH"),
    ],
)
def test_wrong_usage_is_one_clear_answer_and_exit_2(script, arguments, words):
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_too_few_photos_leave_no_run_behind(tmp_path, capsys):
    draw_sample(tmp_path / "few", per_class=3)
    argv = ["--data", str(tmp_path / "few"), "--runs", str(tmp_path / "runs")]
    assert run(train.main, argv) == 2
    assert "cat: 3, dog: 3" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_is_not_overwritten(trained, photos, capsys):
    before = fingerprint(trained.folder)
    argv = ["--data", str(photos), "--runs", str(trained.folder.parent), "--run", "first"]
    assert run(train.main, argv) == 2
    assert "give another name" in capsys.readouterr().err
    assert fingerprint(trained.folder) == before


def test_predict_imports_neither_keras_nor_tensorflow(trained, photos):
    code = (
        "import sys, predict; predict.main(sys.argv[1:]);"
        "print({m.split('.')[0] for m in sys.modules} & {'keras', 'tensorflow', 'torch', 'jax'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--bundle", trained.bundle, photos / "cat" / "cat.1.jpg"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "set()"
