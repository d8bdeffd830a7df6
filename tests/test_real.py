"""The road on real photos and the official weights, small enough for CI (marker ``weights``)."""

import json
import shutil
from pathlib import Path

import pytest
from photos import shared_folder

import predict
import train
from app.cli import run
from app.runs import Run
from benchmarks import neither

pytestmark = pytest.mark.weights
PER_CLASS = {"train": 80, "validation": 30, "test": 40}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    shared = shared_folder()
    data = tmp_path_factory.mktemp("data") / "real"
    for split, count in PER_CLASS.items():
        for label in ("cat", "dog"):
            folder = data / split / label
            folder.mkdir(parents=True)
            source = shared / "data" / "cats_vs_dogs_small" / split / label
            for path in sorted(source.iterdir())[:count]:
                shutil.copy(path, folder)
    runs = tmp_path_factory.mktemp("runs")
    weights = shared / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    argv = ["--data", str(data), "--runs", str(runs), "--run", "real", "--weights", str(weights)]
    assert run(train.main, [*argv, "--image-size", "128", "--views", "1", "--stages", "head"]) == 0
    return Run(runs / "real")


def test_160_photos_are_enough_to_tell_cats_from_dogs(trained):
    """A wrong preprocessing, wrong weights or a swapped class cost far more than this bound."""
    metrics = trained.read_metrics()
    assert metrics["test"]["n"] == 80
    assert metrics["test"]["accuracy"] >= 0.85
    assert metrics["test"]["log_loss"] <= 0.4


def test_the_report_is_written(trained):
    page = trained.report.read_text(encoding="utf-8")
    assert f"{trained.read_metrics()['test']['accuracy']:.1%}"[:-1] in page


def test_every_broken_or_strange_file_is_answered_or_reported(trained, capsys):
    folder = shared_folder() / "data" / "broken"
    argv = ["--bundle", str(trained.bundle), "--json", str(folder)]
    assert run(predict.main, argv) == 1
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [Path(a["path"]).name for a in answers] == sorted(p.name for p in folder.iterdir())
    assert err == ""
    for answer in answers:
        assert (answer["label"] is None) != (answer["error"] is None)
    dogs = [a["probabilities"]["dog"] for a in answers if is_dog(a["path"]) and a["label"]]
    assert len(dogs) == 32
    assert sum(p > 0.5 for p in dogs) >= 0.8 * len(dogs)  # a small network at 128 pixels
    blank = {Path(a["path"]).name: a for a in answers if Path(a["path"]).name.startswith("solid")}
    assert {a["label"] for a in blank.values()} == {"neither"}


def is_dog(path: str) -> bool:
    return Path(path).name.lower().startswith("dog")


def test_other_things_are_stranger_than_test_photos(trained, capsys):
    """The bars are those of tests/test_trust.py, with a model of all photos."""
    argv = ["--run", str(trained.folder), "--json"]
    run(neither.main, [*argv, "--neither", str(shared_folder() / "data" / "neither")])
    values = json.loads(capsys.readouterr().out)
    assert values["neither"]["all"]["auroc"] >= 0.9
    assert values["test"]["refused"] <= 0.15
