"""From a run over its review to a corrected run: what changes, what stays, and what is said."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from photos import drawn_photos

import app.experiment
import train
from app.core.cli import run
from app.core.run_folder import Run
from app.data.corrections import CorrectionsLog, read_corrections
from app.data.manifest import ManifestRow, read_manifest
from app.report.review_queue import read_review_queue

FLAGS = ["--weights", "none", "--image-size", "32", "--stages", "head", "--seed", "3"]
FLAGS += ["--precision", "float32", "--no-report"]


def used(this_run: Run, split: str, label: str) -> list[ManifestRow]:
    return [
        row
        for row in read_manifest(this_run.manifest)
        if (row.verdict, row.split, row.label) == ("used", split, label)
    ]


def answers(this_run: Run, split: str) -> dict[str, dict[str, str]]:
    with this_run.predictions.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file) if row["split"] == split}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, module_capfd) -> tuple[Run, Run, str]:
    """Train, correct photos of each split, train again; return both runs and what was said."""
    folder = tmp_path_factory.mktemp("corrected")
    data = drawn_photos(folder / "photos", per_class=30)
    places = ["--data", str(data), "--runs", str(folder / "runs")]
    assert run(train.main, [*places, "--run", "first", *FLAGS]) == 0
    first = Run(folder / "runs" / "first")
    log = CorrectionsLog(first.corrections)
    for split in ("train", "validation", "test"):
        cat, *others = used(first, split, "cat")
        log.decide(cat.name, cat.sha256, "class", "dog")
        if split != "validation":  # whose last cats would be replaced by some of train
            log.decide(others[0].name, others[0].sha256, "leave_out")
    dog = used(first, "train", "dog")[0]
    log.decide(dog.name, dog.sha256, "right")
    log.decide("cat/gone.jpg", "0" * 64, "leave_out")
    module_capfd.readouterr()
    again = ["--config", str(first.config), "--corrections", str(first.corrections)]
    assert run(train.main, [*again, "--run", "second"]) == 0
    captured = module_capfd.readouterr()
    return first, Run(folder / "runs" / "second"), captured.err + captured.out


@pytest.fixture(scope="module")
def module_capfd(request):
    from _pytest.capture import FDCapture, MultiCapture

    capture = MultiCapture(in_=None, out=FDCapture(1), err=FDCapture(2))
    capture.start_capturing()

    class Reader:
        def readouterr(self):
            return capture.readouterr()

    yield Reader()
    capture.stop_capturing()


def test_splits_stay_and_no_feature_is_computed_again(runs):
    first, second, said = runs
    before = {row.name: row for row in read_manifest(first.manifest)}
    after = {row.name: row for row in read_manifest(second.manifest)}
    out = {name for name, row in after.items() if row.code == "left_out" and row.split != "test"}
    assert len(out) == 1
    for name in before.keys() - out:
        assert after[name].split == before[name].split
    assert ", 0 to be computed" in " ".join(said.split())


def test_it_is_counted_what_was_corrected(runs):
    metrics = runs[1].read_metrics()
    found = metrics.corrections
    assert found is not None
    counts = dataclasses.asdict(found)
    del counts["validation"]
    assert counts == {
        "relabelled": 2, "neither": 0, "left_out": 1, "right": 1, "test": 2, "others": 1,
    }  # fmt: skip


def test_validation_before_and_after_is_counted_by_hand(runs):
    first, second, said = runs
    found = second.read_metrics().corrections.validation
    truth = {name: row["label"] for name, row in answers(second, "validation").items()}
    right = [
        sum(row["likeliest"] == truth[name] for name, row in each.items() if name in truth)
        for each in (answers(first, "validation"), answers(second, "validation"))
    ]
    assert (found.before, found.photos) == ("first", len(truth))
    assert [found.right_before, found.right_after] == right
    assert found.gain.accuracy == pytest.approx((right[1] - right[0]) / len(truth))
    told = f"{right[0]:,} were right before and {right[1]:,} are now: "
    assert told in " ".join(said.split())


def test_test_is_scored_with_the_labels_given_and_with_the_corrected_ones(runs):
    first, second, _ = runs
    metrics = second.read_metrics()
    marked, left = used(first, "test", "cat")[:2]
    rows = answers(second, "test")
    assert {name: row["label"] for name, row in rows.items()} == {
        name: row["label"] for name, row in answers(first, "test").items()
    }
    right = sum(row["answer"] == row["label"] for row in rows.values())
    assert (metrics.test.n, metrics.test.counts.right) == (len(rows), right)
    truth = {name: row["label"] for name, row in rows.items() if name != left.name}
    truth[marked.name] = "dog"
    right = sum(rows[name]["answer"] == label for name, label in truth.items())
    assert metrics.test_corrected is not None
    assert (metrics.test_corrected.n, metrics.test_corrected.counts.right) == (len(truth), right)
    assert metrics.test_without_excluded is None
    assert first.read_metrics().test_corrected is None


def test_card_and_report_say_it(runs):
    second = runs[1]
    card = second.model_card.read_text(encoding="utf-8")
    assert "with the labels that a person corrected" in card
    assert "2 photos got another class" in card
    assert "first" in card


def test_what_was_decided_is_kept_with_the_run_and_not_asked_again(runs):
    first, second, _ = runs
    assert read_corrections(second.applied) == read_corrections(first.corrections)
    dog = used(first, "train", "dog")[0].name
    asked = {item.name: item.decision for item in read_review_queue(second)}
    assert asked.get(dog, "right") == "right"
    config = train.parse(["--config", str(second.config), "--corrections", "more.csv"])
    assert config.corrections == (first.corrections.absolute(), Path("more.csv"))


@pytest.mark.slow
def test_a_broken_off_run_goes_on_with_what_had_been_decided(runs, tmp_path, monkeypatch):
    first, second, _ = runs
    places = ["--config", str(first.config), "--runs", str(tmp_path), "--run", "third"]
    grown = shutil.copy(first.corrections, tmp_path / "corrections.csv")

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(app.experiment, "export", stops)
        assert run(train.main, [*places, "--corrections", str(grown)]) == 130
    dog = used(first, "train", "dog")[1]
    CorrectionsLog(grown).decide(dog.name, dog.sha256, "class", "cat")
    assert run(train.main, ["--resume", str(tmp_path / "third")]) == 0
    third = Run(tmp_path / "third")
    assert read_manifest(third.manifest) == read_manifest(second.manifest)
    found, expected = (json.loads(each.metrics.read_text())["test"] for each in (third, second))
    assert found == expected
