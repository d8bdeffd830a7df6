"""A run with a folder ``neither/``: what is learned from it, what stays as it is, what is said."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from photos import class_folders, drawn_photos, make_photo

import train
from app.core.cli import run
from app.core.run_folder import Run
from app.data.manifest import read_manifest
from app.inference.predictor import Classifier
from app.network.classifier import HEAD, OUTLIERS

pytestmark = pytest.mark.slow

FLAGS = ["--weights", "none", "--image-size", "32", "--stages", "head", "--seed", "3"]
FLAGS += ["--precision", "float32", "--no-report"]
KINDS = {"blot": 14, "fog": 12}


def trained(data: Path, runs: Path, name: str) -> Run:
    assert run(train.main, ["--data", str(data), "--runs", str(runs), "--run", name, *FLAGS]) == 0
    return Run(runs / name)


def weights_of(this_run: Run) -> dict[str, bytes]:
    graph = onnx.load(this_run.bundle / "model.onnx").graph
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    """Train without such a folder and with one; return the photos and both runs."""
    folder = tmp_path_factory.mktemp("shown")
    data = drawn_photos(folder / "photos")
    without = trained(data, folder / "runs", "without")
    class_folders(data / "neither", KINDS)
    make_photo(data / "neither" / "alone.jpg", 99)
    return data, without, trained(data, folder / "runs", "with")


def test_the_classes_are_told_apart_by_the_same_numbers(runs):
    """Photos of the classes become no harder to name; novelty alone knows of the folder."""
    _, without, shown = runs
    before, after = weights_of(without), weights_of(shown)
    learned = {name for name in after if name.startswith(f"{OUTLIERS}/")}
    assert learned == {f"{OUTLIERS}/kernel", f"{OUTLIERS}/bias"} == after.keys() - before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"beyond_threshold/scale", "beyond_threshold/offset"}
    assert f"{HEAD}/kernel" in before
    assert without.read_metrics().classes == shown.read_metrics().classes == ("cat", "dog")


def test_the_counts_are_those_of_the_exported_model(runs):
    data, without, shown = runs
    rows = [row for row in read_manifest(shown.manifest) if row.label == "neither"]
    assert without.read_metrics().neither == {}
    found = shown.read_metrics().neither
    assert {kind: some.learned + some.held_out for kind, some in found.items()} == {**KINDS, "": 1}
    held_out = [row for row in rows if row.split != "train"]
    answers = Classifier(shown.bundle).answers([data / row.name for row in held_out])
    refused = [
        row.kind for row, answer in zip(held_out, answers, strict=True) if answer.label == "neither"
    ]
    assert refused
    for kind, some in found.items():
        assert some.held_out == sum(row.kind == kind for row in held_out)
        assert some.refused == refused.count(kind)


def test_the_card_says_what_was_shown_and_how_much_of_it_is_refused(runs):
    _, without, shown = runs
    some = shown.read_metrics().neither["fog"]
    card = shown.model_card.read_text(encoding="utf-8")
    assert f"| fog | {some.learned} | {some.held_out} | {some.refused} |" in card
    assert "| of no named kind |" in card
    answered = shown.read_metrics().cross_validated
    assert answered is not None
    assert f"out-of-fold answers to all {answered.photos} training and validation photos" in card
    assert "shown as neither" not in without.model_card.read_text(encoding="utf-8")
