"""The whole road, as a user walks it, on a few drawn pictures and a network of random weights."""

import contextlib
import csv
import dataclasses
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from photos import drawn_photos, drawn_splits
from PIL import Image
from small_vgg import small_network

import app.data.audit
import app.data.augmentation
import app.data.decode
import app.experiment
import app.export.bundle_writer
import app.features.store
import app.report.report
import predict
import train
from app.core.cli import run
from app.core.errors import AppError, ExportError
from app.core.run_folder import Run, newest_complete_run
from app.data.audit import audit
from app.data.decode import load_image
from app.data.folder_layout import find_files
from app.data.inventory import _say_near_duplicates
from app.data.manifest import read_manifest
from app.data.sets.synthetic_pets import draw_sample
from app.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from app.evaluation.findings import read_findings
from app.evaluation.label_issues import SURE
from app.evaluation.metrics import probabilities_of
from app.inference.heatmap import contrastive_cam
from app.inference.predictor import Classifier
from app.report.evidence import evidence, full_scale
from app.report.images import SHOWN, chosen, drawn_album, photo_album
from app.report.results import read_results
from benchmarks import predict_folder, predict_start

ROOT = Path(__file__).parent.parent
# As little as shows every step: 12 pictures a class of which some train, 32 pixels. With so few
# pictures an epoch is one step, and the first step's rate is 0: three of them change something.
# float32: the roads are compared closer than bfloat16 rounds.
FLAGS = ["--weights", "none", "--image-size", "32", "--views", "2", "--epochs", "3", "--seed", "3"]
FLAGS += ["--precision", "float32"]


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = drawn_photos(tmp_path_factory.mktemp("data") / "drawn")
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


@pytest.fixture(scope="module")
def second(photos, trained, tmp_path_factory) -> tuple[Run, int, str, str]:
    """Train once more beside ``trained``; return the run, exit code, stdout and stderr.

    The cache must do, and the report fails at the end.
    """

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the frozen prefix was computed again")

    def fails(*_: object) -> None:
        raise AppError("expected a kernel; received none")

    runs = tmp_path_factory.mktemp("again") / "runs"
    shutil.copytree(trained.folder.parent, runs)
    metrics = json.loads(Run(runs / "first").metrics.read_text())
    earlier = "2026-01-01T00:00:00+00:00"  # times in metrics.json are whole seconds
    Run(runs / "first").metrics.write_text(json.dumps({**metrics, "finished": earlier}))
    # By name this one is not the last; only by the time.
    argv = ["--data", str(photos), "--runs", str(runs), "--run", "a-second", "--stages", "head"]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(app.features.store, "load_batches", never)
        patch.setattr(app.report.report, "write_report", fails)
        code = run(train.main, [*argv, *FLAGS])
    return Run(runs / "a-second"), code, out.getvalue(), err.getvalue()


@pytest.fixture
def ask(trained, capsys):
    """Call predict.py in this process: arguments → exit code and stdout."""

    def call(*arguments: str) -> tuple[int, str]:
        code = run(predict.main, ["--runs", str(trained.folder.parent), *arguments])
        return code, capsys.readouterr().out

    return call


def predictions_of(trained: Run, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets ``(n,)`` and probabilities ``(n, 2)``, as ``predictions.csv`` has them."""
    with trained.predictions.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    targets = np.array([["cat", "dog"].index(row["label"]) for row in rows])
    return targets, np.array([[float(row["p_cat"]), float(row["p_dog"])] for row in rows])


def files_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*/*.jpg"))


def test_a_run_is_a_folder(trained):
    """Contract 2."""
    assert {path.name for path in trained.folder.iterdir()} == {
        "MODEL_CARD.md",
        "audit.csv",
        "bundle",
        "config.json",
        "history.csv",
        "manifest.csv",
        "metrics.json",
        "out_of_fold.csv",
        "predictions.csv",
        "test_audit.csv",
    }
    assert trained.is_complete()


def test_the_manifest_names_every_file_with_its_verdict(trained, photos):
    rows = {row.name: row for row in read_manifest(trained.manifest)}
    files = {str(path.relative_to(photos)) for path in photos.rglob("*") if path.is_file()}
    assert set(rows) == files
    assert rows["dog/broken.jpg"].verdict == "skipped"
    assert "beginning of a JPEG" in rows["dog/broken.jpg"].reason
    used = [row for row in rows.values() if row.verdict == "used"]
    assert {row.split for row in used} == {"train", "validation", "test"}


def test_metrics_hold_what_they_promise(trained):
    metrics = json.loads(trained.metrics.read_text())
    assert metrics["classes"] == ["cat", "dog"]
    assert [stage["name"] for stage in metrics["stages"]] == ["head", "block5"]
    for stage in metrics["stages"]:
        assert {"trainable_parameters", "epochs", "seconds", "validation"} <= set(stage)
        assert {"accuracy", "log_loss"} <= set(stage["validation"])
    assert metrics["stages"][0]["trainable_parameters"] == 2 * 512 * 512 + 2
    for split in ("validation", "test"):
        assert set(metrics[split]) == {
            "n",
            "accuracy",
            "accuracy_interval_95",
            "log_loss",
            "brier",
            "ece",
            "ece_bias",
            "roc_auc",
            "confusion",
            "reliability",
            "counts",
        }
        assert sum(b["count"] for b in metrics[split]["reliability"]) == metrics[split]["n"]
        assert list(metrics[split]["counts"]) == ["right", "wrong", "neither", "unsure"]
        assert sum(metrics[split]["counts"].values()) == metrics[split]["n"]
    by = {"file": "model.onnx", "precision": "float32", "engine": "onnxruntime"}
    assert metrics["answered_by"] == by
    assert metrics["frozen_engine"] == "onnxruntime"
    assert metrics["test_without_excluded"] is None
    phases = ["audit", "features", "training", "export", "test"]
    assert set(metrics["seconds"]) == {*phases, "total"}
    memory = metrics["memory"]
    assert sys.platform == "win32" or list(memory) == phases
    assert list(memory.values()) == sorted(memory.values()), "the most so far never falls"
    assert metrics["seconds"]["total"] >= sum(metrics["seconds"][name] for name in phases)
    assert {"device", "backend", "precision", "versions"} <= set(metrics)


def test_predictions_and_metrics_tell_the_same(trained):
    with trained.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads(trained.metrics.read_text())
    for split in ("validation", "test"):
        own = [row for row in rows if row["split"] == split]
        assert len(own) == metrics[split]["n"]
        likeliest = sum(row["label"] == row["likeliest"] for row in own)
        assert likeliest / len(own) == metrics[split]["accuracy"]
        pairs = [(row["label"], row["answer"]) for row in own]
        assert counted(pairs) == metrics[split]["counts"]
    assert all(abs(float(row["p_cat"]) + float(row["p_dog"]) - 1) < 1e-5 for row in rows)


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> tuple[Run, Path, list[str], list[Path]]:
    """Train on own splits, a test photo excluded; return also what training and test decoded.

    Of training the contents, of what the exported model answered the files.
    """
    root = tmp_path_factory.mktemp("tested")
    photos = drawn_splits(root)
    listing = root / "list.txt"
    listing.write_text("train/cat/cat.0.jpg\ntest/dog/dog.30.jpg\n")
    viewed: list[str] = []
    answered: list[Path] = []
    make_view, read_bytes = app.data.augmentation.make_view, app.data.decode.read_bytes

    def recorded_view(*arguments: Any, content: str, **options: Any) -> Any:
        viewed.append(content)
        return make_view(*arguments, content=content, **options)

    def recorded_file(path: Path) -> bytes:
        answered.append(path)
        return read_bytes(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.data.augmentation, "make_view", recorded_view)
        patch.setattr(app.data.decode, "read_bytes", recorded_file)
        argv = ["--data", str(photos), "--runs", str(root / "runs"), "--run", "r", "--no-report"]
        argv += ["--exclude", str(listing), "--exclude-from-test", *FLAGS, "--precision", "auto"]
        assert run(train.main, argv) == 0
    return Run(root / "runs" / "r"), photos, viewed, answered


def test_what_is_reported_is_what_predict_py_answers_photo_by_photo(tested, capsys):
    trained, photos, *_ = tested
    test = trained.read_metrics().test
    with trained.predictions.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    argv = ["--bundle", str(trained.bundle), "--json", str(photos / "test")]
    assert run(predict.main, argv) == 0
    answers = {
        Path(answer["path"]).relative_to(photos).as_posix(): answer
        for answer in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert {name: row["answer"] for name, row in rows.items()} == {
        name: answer["label"] for name, answer in answers.items()
    }
    assert any(row["answer"] != row["likeliest"] for row in rows.values()), "else it proves little"
    pairs = [(rows[name]["label"], answer["label"]) for name, answer in answers.items()]
    assert counted(pairs) == dataclasses.asdict(test.counts)
    for name, row in rows.items():
        asked = answers[name]["probabilities"]
        assert [float(row[f"p_{label}"]) for label in asked] == pytest.approx(
            list(asked.values()), abs=1e-6
        )


def test_test_is_met_once_at_the_end(tested):
    trained, photos, viewed, answered = tested
    test = sorted((photos / "test").rglob("*.jpg"))
    assert sorted(answered) == test
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in test]
    assert viewed
    assert not set(contents) & set(viewed)
    shards = [path.read_bytes() for path in trained.folder.parent.glob(".features/*/*.shard")]
    assert shards
    assert not any(content.encode() in shard for content in contents for shard in shards)


def test_photos_of_test_that_are_worth_checking_are_listed_apart(tested):
    trained = tested[0]
    with trained.predictions.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    found = read_findings(trained.test_audit)
    listed = {kind: {f.name for f in found if f.finding == kind} for kind in ("label", "outlier")}
    wrong = [row for row in rows if row["likeliest"] != row["label"]]
    sure = {row["name"] for row in wrong if float(row[f"p_{row['likeliest']}"]) >= SURE}
    assert listed["label"] == sure
    assert listed["outlier"] == {r["name"] for r in rows if r["answer"] == "neither"}
    assert not {f.name for f in read_findings(trained.audit)} & {row["name"] for row in rows}


def test_excluded_test_photos_are_answered_and_test_is_scored_both_ways(tested):
    trained = tested[0]
    metrics = trained.read_metrics()
    assert (metrics.test.n, metrics.test_without_excluded.n) == (24, 23)
    assert metrics.photos == {"train": 23, "validation": 24, "test": 24}
    with trained.predictions.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    kept = [(r["label"], r["answer"]) for r in rows if r["name"] != "test/dog/dog.30.jpg"]
    assert len(kept) == 23
    assert counted(kept) == dataclasses.asdict(metrics.test_without_excluded.counts)
    assert "| test, without the excluded ones | 23 |" in trained.model_card.read_text()


def counted(pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Count answers, given as pairs of truth and answer."""
    words = Counter(
        "right" if answer == label else answer if answer in ("neither", "unsure") else "wrong"
        for label, answer in pairs
    )
    return {word: words[word] for word in ("right", "wrong", "neither", "unsure")}


def test_the_run_learned_something(trained):
    """Else every probability is 0.5, and the tests that compare them say nothing."""
    assert trained.read_metrics().stages[0].kept_epoch > 0
    for split in ("validation", "test"):
        probabilities = predictions_of(trained, split)[1]
        assert np.ptp(probabilities[:, 0]) > 0.2


def test_the_temperature_is_the_best_one_for_validation(trained):
    """Contract 7: dividing the logits by another one gives validation a higher log-loss.

    The prior of ``fit_temperature`` moves it: validation may be answered without a mistake.
    """
    stored = trained.read_metrics().temperature
    targets, probabilities = predictions_of(trained, "validation")

    def loss(temperature: float) -> float:
        again = probabilities_of(np.log(probabilities) * stored / temperature)
        return float(-np.log(again[np.arange(len(targets)), targets]).mean())

    others = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 400)
    assert loss(stored) == pytest.approx(trained.read_metrics().validation.log_loss, rel=1e-3)
    prior = np.log(others) ** 2 / 2 / len(targets)
    best = np.argmin([loss(other) for other in others] + prior)
    assert stored == pytest.approx(others[best], rel=0.03)


def test_config_repeats_the_run(trained, photos):
    config = json.loads(trained.config.read_text())
    assert config["data"] == str(photos)
    assert [(stage["name"], stage["epochs"]) for stage in config["stages"]] == [
        ("head", 0),
        ("block5", 3),
    ]
    assert (config["seed"], config["views"], config["image_size"]) == (3, 2, 32)


def test_all_roads_to_an_answer_agree(trained, photos, ask):
    """One decoder, one network: alone, in a batch, as files, through Keras, and in the run."""
    code, out = ask("--json", *files_of(photos))
    assert code == 1  # one of them is broken
    answers = {Path(a["path"]).name: a for a in map(json.loads, out.splitlines())}
    batch = {name: answer["probabilities"] for name, answer in answers.items()}
    model = keras.models.load_model(trained.bundle / "classifier.keras")
    with trained.predictions.open(newline="") as file:
        in_run = {Path(row["name"]).name: row for row in csv.DictReader(file)}
    for name in in_run:
        path = photos / name.split(".")[0] / name
        (alone,) = map(json.loads, ask("--json", str(path))[1].splitlines())
        image = load_image(path, 32)
        outputs = model.predict(image[None], verbose=0)
        by_keras = probabilities_of(outputs["logits"])[0]
        for other in ([alone["probabilities"][c] for c in ("cat", "dog")], by_keras):
            np.testing.assert_allclose(list(batch[name].values()), other, atol=1e-3)
        # Training saw float16 activations, whose rounding a weakly regularised head blows up.
        trained_on = [float(in_run[name][f"p_{c}"]) for c in ("cat", "dog")]
        np.testing.assert_allclose(list(batch[name].values()), trained_on, atol=1e-2)
        strange = [alone["novelty"], outputs["novelty"].item(), float(in_run[name]["novelty"])]
        np.testing.assert_allclose(strange, answers[name]["novelty"], atol=2e-2)


@pytest.mark.slow
def test_the_cold_start_is_measured_on_what_a_run_exports(trained, photos, capsys):
    argv = ["--runs", str(trained.folder.parent), "--run", "first", "--repeat", "1"]
    predict_start.main([*argv, str(photos / "cat" / "cat.1.jpg")])
    out = capsys.readouterr().out
    assert float(re.search(r"answers differ by (\S+)", out)[1]) < 1e-3


@pytest.mark.slow
def test_a_folder_is_measured_against_bare_onnx_runtime(trained, photos, capsys):
    argv = ["--runs", str(trained.folder.parent), "--run", "first", "--repeat", "1", "--json"]
    predict_folder.main([*argv, "--photos", "10", str(photos / "cat")])
    values = json.loads(capsys.readouterr().out)
    assert values["photos"] == 10
    assert [r["what"] for r in values["rows"]] == [
        "predict.py, photos a second, of bare",
        "memory of one photo, MB",
    ]
    assert all(r["met"] == (r["value"] >= r["bar"]) for r in values["rows"] if r["least"])
    assert values["photos_a_second"] > 0


def test_a_second_run_computes_no_features_again(second):
    run, code, _, err = second
    assert code == 0, err
    assert run.is_complete()
    assert run.read_metrics().cache == "disk"


def test_the_newest_run_answers(second, photos, capsys):
    """Not the last by name."""
    newest, runs = second[0], second[0].folder.parent
    assert newest_complete_run(runs) == newest
    photo = str(photos / "cat" / "cat.1.jpg")
    answers = []
    for more in ([], ["--run", "a-second"], ["--run", "first"]):
        assert run(predict.main, ["--runs", str(runs), "--json", *more, photo]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]


def test_a_report_that_fails_does_not_spoil_the_run(second):
    run, code, out, err = second
    assert code == 0
    assert not run.report.exists()
    assert out.startswith("stage ")
    assert re.search(r"Test photos: \d of 2 right", out)
    said = err.splitlines()
    assert "Traceback" not in err
    (reason,) = [line for line in said if "expected a kernel; received none" in line]
    assert f"python -m app report {run.folder}" in reason


def test_an_export_that_fails_leaves_an_unfinished_run(
    photos, trained, tmp_path, capsys, monkeypatch
):
    """Contract 2: ``metrics.json`` comes last, and nothing is left of the bundle."""

    def disagrees(folder: Path, *_: object) -> None:
        assert (folder / "model.onnx").is_file()
        raise ExportError("expected agreement;\nreceived none")

    monkeypatch.setattr(app.export.bundle_writer, "check_parity", disagrees)
    runs = tmp_path / "runs"
    shutil.copytree(trained.folder.parent / ".features", runs / ".features")
    argv = ["--data", str(photos), "--runs", str(runs), "--run", "bad", "--stages", "head"]
    assert run(train.main, [*argv, *FLAGS]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "error: expected agreement; received none"
    assert "Traceback" not in err
    left = {path.name for path in (runs / "bad").iterdir()}
    assert "config.json" in left
    assert not left & {"metrics.json", "bundle", "report.html"}
    assert not [name for name in left if name.startswith(".")]

    assert run(predict.main, ["--runs", str(runs), str(photos / "cat" / "cat.1.jpg")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "received none, only 1 unfinished" in line  # .features is no run


@pytest.fixture(scope="module")
def uneven(photos, tmp_path_factory) -> tuple[Run, str]:
    """Train on cats with near-duplicates and few dogs, some excluded; return what was said too."""
    root = tmp_path_factory.mktemp("uneven")
    shutil.copytree(photos, root / "photos")
    draw_sample(root / "more", per_class=40, seed=1)
    for path in (root / "more" / "cat").iterdir():
        path.rename(root / "photos" / "cat" / f"more {path.name}")
    with Image.open(root / "photos" / "cat" / "cat.3.jpg") as image:
        image.save(root / "photos" / "cat" / "again.jpg", quality=60)
        image.save(root / "photos" / "dog" / "strange.jpg", quality=70)
    (root / "list.txt").write_text("name,reason\ncat/cat.5.jpg,no cat\ndog/dog.7.jpg\n")
    before = fingerprint(root / "photos")
    argv = ["--data", str(root / "photos"), "--runs", str(root / "runs"), "--run", "uneven"]
    argv += ["--exclude", str(root / "list.txt"), "--no-report"]
    err = io.StringIO()
    with small_network(), contextlib.redirect_stderr(err):
        assert run(train.main, [*argv, *FLAGS, "--epochs", "1"]) == 0
    assert fingerprint(root / "photos") == before, "contract 1: nothing is deleted"
    return Run(root / "runs" / "uneven"), " ".join(err.getvalue().split())


def test_excluded_files_are_left_out(uneven, tmp_path_factory):
    trained, said = uneven
    rows = {row.name: row for row in read_manifest(trained.manifest)}
    listing = trained.folder.parent.parent / "list.txt"
    reason = f"excluded by {listing.name}"
    out = {name for name, row in rows.items() if row.reason == reason}
    assert out == {"cat/cat.5.jpg", "dog/dog.7.jpg"}
    assert {rows[name].verdict for name in out} == {"skipped"}
    assert json.loads(trained.config.read_text())["exclude"] == str(listing)
    assert f"2 files are excluded by {listing}" in said


def test_near_duplicates_are_on_one_side_whatever_their_class(uneven):
    trained, said = uneven
    rows = {row.name: row for row in read_manifest(trained.manifest)}
    group = [rows[name] for name in ("cat/cat.3.jpg", "cat/again.jpg", "dog/strange.jpg")]
    assert {row.group for row in rows.values() if row.group} == {group[0].group}
    assert len({(row.group, row.split, row.verdict) for row in group}) == 1
    assert "which lies in the class dog" in group[0].reason
    assert "3 used photos are nearly the same as others" in said
    assert "3 of them lie in different classes" in said


def test_classes_out_of_balance_are_weighted(uneven, trained):
    metrics, said = json.loads(uneven[0].metrics.read_text()), uneven[1]
    rows = [row for row in read_manifest(uneven[0].manifest) if row.verdict == "used"]
    counts = {c: sum((r.label, r.split) == (c, "train") for r in rows) for c in ("cat", "dog")}
    assert counts["cat"] > 3 * counts["dog"]
    total = sum(counts.values())
    expected = {label: total / (2 * count) for label, count in counts.items()}
    assert metrics["class_weights"] == pytest.approx(expected)
    assert f"out of balance, {counts['cat'] / counts['dog']:.1f} to 1: training weighs" in said
    assert trained.read_metrics().class_weights is None


@pytest.mark.slow
def test_the_weights_reach_every_stage(photos, tmp_path, monkeypatch):
    """Each of them gets the weights that ``metrics.json`` has, by the numbers of the classes."""
    seen = {}

    def recording(name, function):
        def call(*args, **options):
            given = inspect.signature(function).bind(*args, **options)
            seen[name] = given.arguments["class_weight"]
            return function(*args, **options)

        monkeypatch.setattr(app.experiment, name, call)

    recording("fit_linear_probe", app.experiment.fit_linear_probe)
    recording("train_stage", app.experiment.train_stage)
    shutil.copytree(photos, tmp_path / "photos")
    draw_sample(tmp_path / "more", per_class=40, seed=1)
    for path in (tmp_path / "more" / "dog").iterdir():
        path.rename(tmp_path / "photos" / "dog" / f"more {path.name}")
    argv = ["--data", str(tmp_path / "photos"), "--runs", str(tmp_path / "runs"), "--run", "r"]
    assert run(train.main, [*argv, "--no-report", *FLAGS, "--epochs", "1"]) == 0
    weights = Run(tmp_path / "runs" / "r").read_metrics().class_weights
    assert weights["cat"] > 1 > weights["dog"]
    by_number = dict(enumerate(weights.values()))
    assert seen == {"fit_linear_probe": by_number, "train_stage": by_number}


@pytest.mark.parametrize("line", ["cat/none.jpg", "/etc/passwd", "dog"])
def test_a_list_of_other_files_is_refused_before_photos_are_read(
    photos, tmp_path, capsys, monkeypatch, line
):
    monkeypatch.setattr(app.data.audit, "decode", lambda data: pytest.fail("a photo was read"))
    (tmp_path / "list.txt").write_text(f"cat/cat.1.jpg\n{line}\n")
    argv = ["--data", str(photos), "--runs", str(tmp_path / "runs")]
    assert run(train.main, [*argv, "--exclude", str(tmp_path / "list.txt")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"received '{line}' on line 2; write one name a line" in error
    assert not (tmp_path / "runs").exists()


def test_to_exclude_everything_is_refused(photos, tmp_path, capsys):
    names = (path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    (tmp_path / "list.txt").write_text("\n".join(names))
    argv = ["--data", str(photos), "--runs", str(tmp_path / "runs"), "--exclude-from-test"]
    assert run(train.main, [*argv, "--exclude", str(tmp_path / "list.txt")]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert "at least 5 usable photos of each class; received cat: 1, dog: 1" in error
    assert "excluded by" in error


def test_near_duplicates_across_own_splits_are_left_out_of_train(tmp_path, capsys):
    draw_sample(tmp_path / "drawn", per_class=36)
    parts = {"train": range(12), "validation": range(12, 24), "test": range(24, 36)}
    for split, numbers in parts.items():
        for label in ("cat", "dog"):
            (tmp_path / "own" / split / label).mkdir(parents=True)
            for number in numbers:
                name = f"{label}.{number}.jpg"
                (tmp_path / "drawn" / label / name).rename(tmp_path / "own" / split / label / name)
    for number in (30, 31):
        with Image.open(tmp_path / "own" / "test" / "dog" / f"dog.{number}.jpg") as image:
            image.save(tmp_path / "own" / "train" / "dog" / f"again {number}.jpg", quality=60)
    rows = audit(find_files(tmp_path / "own"))
    _say_near_duplicates(rows)
    said = capsys.readouterr().err
    assert said == "2 photos are left out of train: test has nearly the same\n"


@pytest.mark.slow
def test_cache_off_walks_the_same_road(photos, tmp_path):
    argv = ["--data", str(photos), "--runs", str(tmp_path), "--run", "off", "--cache", "off"]
    with small_network():
        assert run(train.main, [*argv, "--no-report", *FLAGS, "--epochs", "1"]) == 0
    assert Run(tmp_path / "off").read_metrics().cache == "off"
    assert not (tmp_path / ".features").exists()


def test_json_has_one_object_a_line_in_the_order_asked(photos, ask):
    names = files_of(photos)[::-1]
    code, out = ask("--json", "--min-confidence", "0", *names)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers] == names
    for answer in answers:
        assert list(answer) == [
            "path",
            "label",
            "probabilities",
            "novelty",
            "error",
            "words",
            "top",
        ]
        if answer["error"] is None:
            likeliest = max(answer["probabilities"], key=answer["probabilities"].get)
            assert answer["label"] == ("neither" if answer["novelty"] > 0.5 else likeliest)
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
        else:
            assert answer["label"] is answer["probabilities"] is answer["novelty"] is None
    assert code == 1


def test_below_the_wanted_confidence_it_is_unsure(photos, ask):
    """All three forms say so, and which class it would have been."""
    name = str(photos / "cat" / "cat.1.jpg")
    answers = {p: json.loads(ask("--json", "--min-confidence", p, name)[1]) for p in ("0", "1")}
    assert answers["0"]["probabilities"] == answers["1"]["probabilities"]
    assert max(answers["1"]["probabilities"].values()) < 1
    assert answers["0"]["novelty"] <= 0.5, "another photo is needed for this test"
    assert answers["1"]["label"] == "unsure" != answers["0"]["label"]
    table = ask("--min-confidence", "1", name)[1]
    assert re.search(r"  unsure: perhaps (cat, or dog|dog, or cat) ", table)
    rows = csv.DictReader(ask("--csv", "--min-confidence", "1", name)[1].splitlines())
    assert next(rows)["label"] == "unsure"


@pytest.mark.parametrize("given", ["-0.1", "1.5", "nan", "much"])
def test_a_confidence_that_is_no_probability_is_refused(ask, given):
    assert ask(f"--min-confidence={given}", "x.jpg")[0] == 2


def test_answers_are_explained_beside_nothing_of_the_users(photos, ask, tmp_path):
    same_name = tmp_path / "others" / "cat.0.jpg"
    same_name.parent.mkdir()
    shutil.copy(photos / "dog" / "dog.0.jpg", same_name)
    files = [photos / "cat" / "cat.0.jpg", same_name, photos / "dog" / "broken.jpg"]
    before = fingerprint(photos)
    plain = ask("--json", *map(str, files))
    for _ in range(2):  # its own maps of an earlier call are replaced
        assert ask("--json", "--explain", str(tmp_path / "why"), *map(str, files)) == plain
    assert fingerprint(photos) == before
    maps = {path.name: path for path in (tmp_path / "why").iterdir()}
    assert sorted(maps) == ["cat.0.jpg-2.heat.png", "cat.0.jpg.heat.png"]
    with Image.open(files[0]) as photo, Image.open(maps["cat.0.jpg.heat.png"]) as heat:
        assert heat.size == photo.size
    first, second = (path.read_bytes() for path in maps.values())
    assert first != second


@pytest.mark.parametrize("holds", ["notes.txt", "a photo.jpg"])
def test_heat_maps_are_not_mixed_with_what_is_there(photos, trained, tmp_path, capsys, holds):
    (tmp_path / holds).write_text("mine")
    photo = str(photos / "cat" / "cat.0.jpg")
    argv = ["--bundle", str(trained.bundle), photo, "--explain", str(tmp_path)]
    assert run(predict.main, argv) == 2
    assert f"holds {holds!r}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [holds]
    argv[-1] = str(tmp_path / holds)
    assert run(predict.main, argv) == 2
    assert "a file; name another" in capsys.readouterr().err


def test_folder_pattern_and_stdin_give_the_same_answers(photos, ask, monkeypatch):
    folder = ask("--csv", str(photos / "cat"))
    pattern = ask("--csv", str(photos / "cat" / "*.jpg"))
    listing = "\n".join(sorted(map(str, (photos / "cat").iterdir()))).encode()
    monkeypatch.setattr(sys, "stdin", open_bytes(listing))
    assert folder == pattern == ask("--csv", "-")
    assert folder[0] == 0
    assert len(folder[1].splitlines()) == 13


def open_bytes(data: bytes) -> object:
    return io.TextIOWrapper(io.BytesIO(data))


def test_a_path_comes_back_as_it_was_given(photos, ask, monkeypatch):
    monkeypatch.chdir(photos)
    given = ["./cat/cat.1.jpg", "cat//cat.2.jpg", "dog/../cat/cat.1.jpg"]
    out = ask("--json", *given)[1]
    assert [json.loads(line)["path"] for line in out.splitlines()] == given


def test_a_pattern_that_matches_a_dangling_link_ends(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a*.jpg").symlink_to("nowhere")
    code, out = ask("--json", "a*.jpg")
    assert code == 1
    assert "No such file" in json.loads(out)["error"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_reported(photos, ask, tmp_path):
    shutil.copy(photos / "cat" / "cat.1.jpg", tmp_path)
    (tmp_path / "closed").mkdir(mode=0o000)
    code, out = ask("--json", str(tmp_path))
    assert code == 1
    assert "Permission denied" in out


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
    assert second["label"] in ("cat", "dog", "neither", "unsure")


def test_the_table_is_for_people(ask, photos):
    code, out = ask(str(photos / "cat" / "cat.1.jpg"), str(photos / "dog" / "broken.jpg"))
    assert code == 1
    assert "%" in out.splitlines()[0]
    assert "beginning of a JPEG" in out.splitlines()[1]


@pytest.mark.slow
@pytest.mark.parametrize("passed_on", [False, True])
def test_the_reports_pictures_are_lit_by_the_runs_bundle(passed_on, trained, photos):
    results = read_results(trained)
    if passed_on:
        album = drawn_album(results, trained.bundle)
        listed = {finding.name for finding in (*album.labels, *album.outliers)}
        assert listed | set(album.samples) <= set(album.images)
        assert len(album.outliers) == SHOWN
        assert not set(album.images) & {row.name for row in results.manifest}
    else:
        album = photo_album(results, trained.bundle, photos)
    answered = album.answered
    numbers = chosen(answered)
    assert album.lacking == ""
    assert set(album.heatmaps) == {(answered.names[n], answered.answers[n]) for n in numbers}
    classifier = Classifier(trained.bundle, precision="float32")
    seen = np.stack([album.images[answered.names[n]].seen for n in numbers])
    maps = zip(numbers, classifier.activation_maps(seen), strict=True)
    cams = {n: contrastive_cam(each, answered.answers[n]) for n, each in maps}
    most = full_scale(list(cams.values()))
    for n, cam in cams.items():
        name, answer = answered.names[n], answered.answers[n]
        expected = evidence(cam, most, album.images[name].small.shape)[..., 3].astype(int)
        assert np.allclose(album.heatmaps[name, answer][..., 3], expected, atol=3)
    probabilities, _ = classifier.outputs(seen)
    assert np.allclose(probabilities, answered.probabilities[numbers], atol=1e-5)


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
