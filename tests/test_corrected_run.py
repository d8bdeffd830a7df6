"""From a run over its review to a corrected run: what changes, what stays, and what is said."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from photos import drawn_photos
from PIL import Image

import app.experiment
import train
from app.__main__ import main
from app.core.cli import run
from app.core.config import read_config
from app.core.errors import DataError
from app.core.run_folder import Run
from app.data.corrections import Correction, CorrectionsLog, read_corrections
from app.data.manifest import ManifestRow, read_manifest
from app.data.sets.synthetic_pets import draw_sample
from app.inference.embedder import EmbeddedPhoto, Embedder
from app.preview import preview_corrections
from app.report.html import Parts
from app.report.results import read_results
from app.report.review_queue import read_review_queue
from app.report.verdict import paired_said, verdict

pytestmark = pytest.mark.slow

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
    told = f"{right[0]} were right before (first) and {right[1]} are now: "
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
    said = read_results(second).corrections()
    assert "2 with another class" in said[0]
    assert said[-1] == paired_said(second.read_metrics().corrections.validation)
    results = read_results(second)
    words = Parts(
        "report.html.j2",
        results=results,
        metrics=results.metrics,
        album=SimpleNamespace(drawn=True),
    )
    assert said[0] in " ".join(words.not_used([], 9).text.split())
    assert "with corrected labels" in words.scores([], verdict(second.read_metrics())).text
    card = second.model_card.read_text(encoding="utf-8")
    assert "with the labels that a person corrected" in card
    assert "2 with another class" in card
    assert "first" in card


def test_what_was_decided_is_kept_with_the_run_and_not_asked_again(runs):
    first, second, _ = runs
    assert read_corrections(second.applied) == read_corrections(first.corrections)
    dog = used(first, "train", "dog")[0].name
    asked = {item.name: item.decision for item in read_review_queue(second)}
    assert asked.get(dog, "right") == "right"
    config = train.parse(["--config", str(second.config), "--corrections", "more.csv"])
    assert config.corrections == (first.corrections.absolute(), Path("more.csv"))


def test_the_preview_says_what_training_again_would_change(runs, capsys):
    """With all labels of training exchanged, what was right is wrong, photo by photo."""
    first = runs[0]
    both = {label: used(first, "train", label) for label in ("cat", "dog")}
    exchanged = {
        row.sha256: Correction("", row.name, row.sha256, "class", other)
        for label, other in (("cat", "dog"), ("dog", "cat"))
        for row in both[label]
    }
    found = preview_corrections(first, {each.key: each for each in exchanged.values()})
    n = len(answers(first, "validation"))
    assert (found.photos, found.before) == (n, "first")
    assert found.right_after == n - found.right_before
    assert found.right_before > n / 2
    nothing = preview_corrections(first, {})
    assert nothing.right_before == nothing.right_after == found.right_before
    assert nothing.gain.log_loss == 0
    assert run(main, ["review", str(first.folder), "--preview"]) == 0
    assert f"Of {n} validation photos, judged by the corrected labels" in capsys.readouterr().out


def test_the_preview_leaves_no_class_without_photos(runs):
    first = runs[0]
    cats = [Correction("", r.name, r.sha256, "neither") for r in used(first, "train", "cat")]
    with pytest.raises(DataError, match="photos of every class"):
        preview_corrections(first, {each.key: each for each in cats})
    fox = dataclasses.replace(cats[0], decision="class", label="fox")
    with pytest.raises(DataError, match="received 'fox'"):
        preview_corrections(first, {fox.key: fox})


def test_photos_without_labels_are_listed_by_what_they_teach(runs, tmp_path, capsys):
    """A photo that the model has learned from is where it was; copies of such photos come last."""
    first = runs[0]
    data = read_config(first.config).data
    row = used(first, "train", "cat")[0]
    embedder = Embedder(first.bundle)
    (found,) = embedder.look([data / row.name])
    assert isinstance(found, EmbeddedPhoto)
    assert found.sha256 == row.sha256
    assert (embedder.reference @ found.embedding).max() == pytest.approx(1, abs=1e-4)
    new = tmp_path / "new"
    draw_sample(new, per_class=3, seed=5)
    for number, known in enumerate(used(first, "train", "dog")[:3]):
        shutil.copy(data / known.name, new / f"copy{number}.jpg")
        with Image.open(data / known.name) as picture:
            picture.save(new / f"again{number}.png")
    (new / "broken.jpg").write_bytes(b"no photo")
    review = ["review", str(first.folder), "--unlabelled"]
    assert run(main, [*review, str(new), "--json"]) == 0
    captured = capsys.readouterr()
    listed = [json.loads(line) for line in captured.out.splitlines()]
    assert [each["place"] for each in listed] == list(range(1, 10))
    last = {(new / f"again{number}.png").as_posix() for number in range(3)}
    assert {each["name"] for each in listed[-3:]} == last, "the same file has a label already"
    assert "1 of 13 files cannot be read as photos" in captured.err
    assert run(main, [*review, str(new), "--count", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_photo_from_elsewhere_is_learned_from_and_not_listed_again(runs, tmp_path, capsys):
    first = tmp_path / "runs" / "first"
    shutil.copytree(runs[0].folder, first)
    new = tmp_path / "new"
    draw_sample(new, per_class=2, seed=6)
    review = ["review", str(first), "--unlabelled", str(new), "--json"]
    assert run(main, review) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    log = CorrectionsLog(Run(first).corrections)
    for each, decision, label in zip(
        listed, ("class", "neither", "skip"), ("dog", "", ""), strict=False
    ):
        log.decide(each["name"], each["sha256"], decision, label)
    assert run(main, review) == 0
    (left,) = capsys.readouterr().out.splitlines()
    assert json.loads(left)["name"] == listed[3]["name"]
    again = ["--config", str(Run(first).config), "--corrections", str(Run(first).corrections)]
    again += ["--runs", str(tmp_path / "runs"), "--run", "second", "--no-report"]
    assert run(train.main, again) == 0
    second = Run(tmp_path / "runs" / "second")
    (row,) = (r for r in read_manifest(second.manifest) if r.name == listed[0]["name"])
    assert (row.label, row.verdict) == ("dog", "used")
    assert run(main, ["report", str(second.folder)]) == 0
    capsys.readouterr()
    assert run(main, ["review", str(second.folder), "--unlabelled", str(new), "--json"]) == 0
    (left,) = capsys.readouterr().out.splitlines()
    assert json.loads(left)["name"] == listed[3]["name"], "what it was trained with counts as well"


def test_without_any_label_typical_photos_come_first(tmp_path, capsys, monkeypatch):
    draw_sample(tmp_path / "new", per_class=4)
    monkeypatch.chdir(tmp_path)  # names begin below the folder, however it is named
    review = ["review", "--unlabelled", "new", "--weights", "none", "--count", "3"]
    assert run(main, [*review, "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({each["name"] for each in listed}) == 3
    first = listed[0]
    content = (tmp_path / "new" / first["name"]).read_bytes()
    assert first["sha256"] == hashlib.sha256(content).hexdigest()
    assert first["probability"] is None
    assert run(main, review) == 0
    assert capsys.readouterr().out.splitlines() == [each["name"] for each in listed]
    assert run(main, ["review"]) == 2
    assert "RUN (or --unlabelled)" in capsys.readouterr().err


def test_a_folder_without_photos_is_told(runs, tmp_path, capsys):
    review = ["review", str(runs[0].folder), "--unlabelled"]
    for folder, told in ((tmp_path / "none", "which is none"), (tmp_path, "with 0 files")):
        assert run(main, [*review, str(folder)]) == 2
        assert told in capsys.readouterr().err
    assert run(main, [*review, str(tmp_path), "--count", "0"]) == 2
    assert "--count of 1 or more" in capsys.readouterr().err


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
