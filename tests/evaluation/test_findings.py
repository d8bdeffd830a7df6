"""Label issues and outliers: found, ranked, written and read back."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.data.manifest import Photo
from app.evaluation.cross_validation import make_folds, out_of_fold
from app.evaluation.findings import read_findings, write_findings
from app.evaluation.label_issues import SURE, find_label_issues
from app.evaluation.metrics import probabilities_of
from app.training.data_review import cannot_tell, find

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def x() -> np.ndarray:
    """Coordinates of 300 photos whose classes overlap a little."""
    generator = np.random.default_rng(0)
    return np.repeat(2.2 * np.eye(3), 100, axis=0) + generator.normal(0, 0.6, (300, 3))


@pytest.fixture
def targets() -> np.ndarray:
    return np.repeat([0, 1, 2], 100)


def answered(x: np.ndarray, labels: np.ndarray, strength: float = 10.0, groups=None) -> np.ndarray:
    """Return probabilities by models that did not learn from the photo."""
    folds = make_folds(labels, np.arange(len(labels)) if groups is None else groups)
    solvers = [LogisticRegression(C=strength) for _ in folds]
    return probabilities_of(out_of_fold(solvers, x, labels, folds))


def test_flipped_labels_come_first(x, targets):
    flipped = np.random.default_rng(1).choice(300, 6, replace=False)
    labels = targets.copy()
    labels[flipped] = (labels[flipped] + 1) % 3
    probabilities = answered(x, labels)
    found = find_label_issues(probabilities, labels)
    assert len(set(flipped) & {issue.number for issue in found}) >= 5
    assert len(found) <= 0.03 * 300
    for issue in found[:5]:
        assert issue.likely == targets[issue.number]
    margins = [issue.margin for issue in found]
    assert margins == sorted(margins)
    assert -1 <= margins[0] < margins[-1] < 0
    doubted = probabilities.argmax(axis=1) != labels
    assert doubted.sum() > len(found)  # where another class is not sure, a label is not doubted
    assert all(issue.probability >= SURE for issue in found)


@pytest.mark.parametrize("classes", [2, 1000])
def test_a_classifier_that_cannot_tell_doubts_no_label(classes):
    logits = 0.5 * np.random.default_rng(0).normal(size=(200, classes))
    assert find_label_issues(probabilities_of(logits), np.arange(200) % classes) == []


def test_a_model_that_saw_the_photo_would_not_contradict():
    """Each photo alone in its corner: learned by heart, every label would seem right."""
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 30)
    probabilities = answered(generator.normal(size=(60, 60)), labels, 1e6)
    assert 0.2 < (probabilities.argmax(axis=1) != labels).mean() < 0.8


def test_near_duplicates_are_kept_together():
    """Pairs of one picture with labels by chance: apart, each would be known from the other."""
    generator = np.random.default_rng(0)
    pictures, labels = generator.normal(size=(100, 100)), np.tile([0, 1], 50)
    twice, groups = np.repeat(pictures, 2, axis=0), np.repeat(np.arange(100), 2)
    targets = np.repeat(labels, 2)
    for known, wrong in ((groups, 0.5), (np.arange(200), 0.0)):
        answers = answered(twice, targets, 1e3, known).argmax(axis=1)
        assert (answers != targets).mean() == pytest.approx(wrong, abs=0.2)
    for learned, tested in make_folds(targets, groups):
        assert not set(groups[learned]) & set(groups[tested])


def test_as_many_folds_as_the_smallest_class_has_groups():
    assert answered(np.eye(4), np.array([0, 0, 1, 1])).shape == (4, 2)
    targets = np.repeat([0, 1], [20, 4])
    assert len(make_folds(targets, np.arange(24))) == 4
    assert make_folds(targets, np.minimum(np.arange(24), 20)) == []  # of class 1 one picture


def test_both_lists_are_whole_and_come_back_from_the_file(x, targets, tmp_path):
    names = [f"{CLASSES[t]}/{n}, 'quoted'\n.jpg" for n, t in enumerate(targets)]
    photos = [Photo(Path(name), name, "", int(t)) for name, t in zip(names, targets, strict=True)]
    photos[7] = Photo(Path("odd"), names[7], "", 1)  # looks like class 0
    embeddings = np.maximum(x, 0).astype(np.float32)
    embeddings = np.concatenate([embeddings, np.zeros((300, 1), np.float32)], axis=1)
    embeddings[42] = [0, 0, 0, 5]
    found = find(photos, CLASSES, embeddings, answered(x, np.array([p.target for p in photos])))
    labels = [row for row in found if row.finding == "label"]
    outliers = [row for row in found if row.finding == "outlier"]
    assert labels[0].name == names[7]
    assert labels[0].reason.startswith("labelled dog; a model that never saw it says cat (")
    assert outliers[0].name == names[42]
    assert outliers[0].score == pytest.approx(1)
    assert len(outliers) == 20
    for rows in (labels, outliers):
        assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
        assert [row.score for row in rows] == sorted((r.score for r in rows), reverse=True)
    path = tmp_path / "audit.csv"
    write_findings(found, path)
    back = read_findings(path)
    assert [(r.name, r.finding, r.rank, r.reason) for r in back] == [
        (r.name, r.finding, r.rank, r.reason) for r in found
    ]


def test_a_weak_classifier_says_for_how_many_photos_it_cannot_tell():
    sure, unsure = np.tile([0.95, 0.05], (8, 1)), np.tile([0.7, 0.3], (3, 1))
    line = cannot_tell(np.concatenate([sure, unsure]))
    assert line.startswith("for 3 of 11 photos the linear probe cannot tell")
    assert cannot_tell(np.concatenate([sure, sure, unsure])) == ""
    assert "too few photos for folds" in cannot_tell(None)
