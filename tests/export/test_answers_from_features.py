"""The test photos of a head run get the answers of predict.py, also where features are kept."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from photos import drawn_splits

import app.experiment
import app.export.answers_from_features as tested
import app.features.store
import predict
import train
from app.core.cli import run
from app.core.config import STAGES
from app.core.environment import has_vnni
from app.core.errors import ChangedPhotoError, UsageError
from app.core.run_folder import Run
from app.data.corrections import CorrectionsLog
from app.data.manifest import Photo, photos_of, read_manifest
from app.evaluation.prediction_set import PredictionSet
from app.export.answers_from_features import AnswersFromFeatures
from app.features.dataset import FreshDataset
from app.inference.answered_photos import answer_photos
from app.inference.predictor import Classifier

pytestmark = pytest.mark.slow

FLAGS = ["--weights", "none", "--image-size", "32", "--stages", "head", "--seed", "3"]


@dataclasses.dataclass
class Trained:
    """A run, how its photos are answered, how many by the bundle, and what it computed of which."""

    run: Run
    answers: AnswersFromFeatures
    by_bundle: list[int]
    features: list[str]


@pytest.fixture(scope="module", params=["float32", "int8"])
def trained(request, tmp_path_factory) -> tuple[Path, Trained, Trained]:
    """Train, turn a training label, and train again."""
    if request.param == "int8" and not has_vnni():
        pytest.skip("this processor has no instructions for int8")
    root = tmp_path_factory.mktemp("kept")
    photos = drawn_splits(root)
    argv = ["--data", str(photos), "--runs", str(root / "runs"), "--no-report", *FLAGS]
    argv += ["--precision", request.param]
    first = trained_run([*argv, "--run", "first"], root)
    row = next(row for row in read_manifest(first.run.manifest) if row.split == "train")
    CorrectionsLog(first.run.corrections).decide(row.name, row.sha256, "class", "dog")
    corrected = ["--corrections", str(first.run.corrections)]
    return photos, first, trained_run([*argv, "--run", "second", *corrected], root)


def trained_run(argv: list[str], root: Path) -> Trained:
    answers: list[AnswersFromFeatures] = []
    by_bundle: list[int] = []
    features: list[str] = []
    compute = app.features.store.compute_features

    def answered(classifier: Classifier, photos: Sequence[Photo]) -> PredictionSet:
        by_bundle.append(len(photos))
        return answer_photos(classifier, photos)

    def computed(*arguments: Any) -> None:
        features.extend(view.photo.name for view in arguments[2])
        compute(*arguments)

    def kept(*arguments: Any) -> AnswersFromFeatures:
        answers.append(AnswersFromFeatures(*arguments))
        return answers[-1]

    with (
        patch.object(tested, "answer_photos", answered),
        patch.object(tested, "COMPARED", 2),
        patch.object(app.features.store, "compute_features", computed),
        patch.object(app.experiment, "AnswersFromFeatures", kept),
    ):
        assert run(train.main, argv) == 0
    return Trained(
        Run(root / "runs" / argv[argv.index("--run") + 1]), *answers, by_bundle, features
    )


def test_they_are_those_of_predict_py(trained, capsys):
    photos, *runs = trained
    for each in runs:
        assert sum(each.by_bundle) < 24, "else the features have answered nothing"
        with each.run.predictions.open(newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file) if row["split"] == "test"}
        capsys.readouterr()
        assert (
            run(predict.main, ["--bundle", str(each.run.bundle), "--json", str(photos / "test")])
            == 0
        )
        asked = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(asked) == len(rows) == 24
        for answer in asked:
            row = rows[Path(answer["path"]).relative_to(photos).as_posix()]
            assert row["answer"] == answer["label"]
            kept = [float(row[f"p_{label}"]) for label in answer["probabilities"]]
            assert kept == pytest.approx(list(answer["probabilities"].values()), abs=1e-3)
            assert float(row["novelty"]) == pytest.approx(answer["novelty"], abs=1e-2)


def test_what_was_kept_is_not_computed_again(trained):
    _, first, second = trained
    tests = [[n for n in each.features if n.startswith("test/")] for each in (first, second)]
    assert [len(names) for names in tests] == [24, 0]


@pytest.fixture
def ask(trained) -> Callable[..., PredictionSet]:
    """Answer the second run's test photos once more."""
    second = trained[2]
    test = photos_of_test(trained)
    return lambda change=list: second.answers(Classifier(second.run.bundle), change(test))


def test_where_features_answer_otherwise_the_bundle_answers(ask, trained, monkeypatch, capsys):
    expected = answer_photos(Classifier(trained[2].run.bundle), photos_of_test(trained))
    answer = tested.from_kept_activations

    def turned(*arguments: Any) -> PredictionSet:
        found = answer(*arguments)
        return dataclasses.replace(found, probabilities=found.probabilities[:, ::-1])

    monkeypatch.setattr(tested, "from_kept_activations", turned)
    found = ask()
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.novelty, expected.novelty)
    assert "answers all photos itself: from features probabilities differ by" in one_line(capsys)


def test_without_room_the_bundle_answers(ask, trained, monkeypatch, capsys):
    expected = answer_photos(Classifier(trained[2].run.bundle), photos_of_test(trained))

    def refused(*_: Any) -> None:
        raise UsageError("expected room; received none")

    monkeypatch.setattr(app.features.store.FeatureStore, "__contains__", lambda *_: False)
    monkeypatch.setattr(app.features.store, "compute_features", refused)
    found = ask()
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert "are not kept: expected room; received none" in one_line(capsys)


def test_a_photo_that_was_changed_is_not_answered_from_what_is_kept_of_it(
    ask, tmp_path, monkeypatch
):
    """Nothing else would read its file: not the bundle, and no activations are computed."""
    (tmp_path / "changed.jpg").write_bytes(b"other bytes")

    def changed(photos: Sequence[Photo]) -> list[Photo]:
        return [*photos[:-1], dataclasses.replace(photos[-1], path=tmp_path / "changed.jpg")]

    monkeypatch.setattr(tested, "answer_photos", None)
    monkeypatch.setattr(app.features.store, "compute_features", None)
    with pytest.raises(ChangedPhotoError):
        ask(changed)


@pytest.mark.parametrize("case", ["few photos", "mirror", "trained backbone", "--cache off"])
def test_where_features_gain_nothing_the_bundle_answers_at_once(trained, case, monkeypatch):
    answers = trained[2].answers
    if case == "mirror":
        answers = dataclasses.replace(answers, mirror=True)
    elif case == "trained backbone":
        answers = dataclasses.replace(answers, stage=STAGES["block5"])
    elif case == "--cache off":
        answers = dataclasses.replace(answers, source=FreshDataset(spec=answers.source.spec))
    photos = photos_of_test(trained)[: tested.COMPARED if case == "few photos" else None]
    classifier = Classifier(trained[2].run.bundle)
    monkeypatch.setattr(tested, "unchanged_bytes", None)  # each photo is read once
    expected = answer_photos(classifier, photos)
    np.testing.assert_array_equal(answers(classifier, photos).novelty, expected.novelty)


def photos_of_test(trained: tuple[Path, Trained, Trained]) -> list[Photo]:
    photos, _, second = trained
    return photos_of(read_manifest(second.run.manifest), "test", photos)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
