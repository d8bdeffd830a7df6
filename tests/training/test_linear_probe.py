from dataclasses import replace
from unittest.mock import patch

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import app.network.classifier
import app.network.vgg
import app.training.linear_probe
from app.core.config import STAGES
from app.evaluation.calibration import fit_min_confidence, fit_temperature
from app.evaluation.cross_validation import make_folds, out_of_fold
from app.evaluation.metrics import probabilities_of, score
from app.features.batches import LabelledMaps, numbered
from app.network.classifier import build_classifier, head_layers, pooling_part, suffix
from app.training.linear_probe import STRENGTHS, fit_linear_probe
from app.training.nystroem import each_pair_once, fit_nystroem

SIDE = 8  # channels
DIRECTIONS = 3


def maps_of(labelled: LabelledMaps) -> np.ndarray:
    return np.concatenate(list(labelled.maps(range(len(labelled.targets)))))


def labelled(n: int, classes: int, seed: int, noise: float = 1.5) -> LabelledMaps:
    """Maps as those of ``block5_pool`` (0 and up), where two channels together tell the class."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    maps = generator.gamma(1, noise, (n, 2, 2, SIDE)).astype("float32")
    for number in range(classes):
        maps[targets == number, 0, 0, 2 * number : 2 * number + 2] += 2

    def walk(numbers):
        for start in range(0, len(numbers), 50):
            yield maps[numbers[start : start + 50]]

    return LabelledMaps(walk, targets)


def model_of(classes: int) -> keras.Model:
    with patch.object(app.network.vgg, "FILTERS", (4, 4, 4, 4, SIDE)):
        return build_classifier(classes, image_size=64)


@pytest.fixture(params=[2, 3], ids=["two classes", "three"])
def solved(request):
    model = model_of(request.param)
    train, validation = labelled(120, request.param, 0), labelled(240, request.param, 1)
    head = fit_linear_probe(model, STAGES["head"], train, validation)
    return model, train, validation, head.result


def test_the_model_holds_the_solution_that_validates_best(solved):
    model, _, validation, result = solved
    losses = [row.validation_loss for row in result.history]
    assert result.kept_epoch == 1 + int(np.argmin(losses))
    assert result.epochs == len(losses) > result.kept_epoch  # it looked further and came back
    logits = suffix(model, "block5_pool").predict(maps_of(validation), verbose=0)
    held = score(validation.targets, probabilities_of(logits))
    assert held.log_loss == pytest.approx(min(losses), rel=1e-4)
    assert held.accuracy == result.validation.accuracy > 0.6
    assert result.trainable_parameters == (SIDE**2 + 1) * model.output_shape[-1]


def test_it_is_scikit_learns_solution_at_validations_temperature(solved):
    model, train, validation, result = solved
    part = pooling_part(model)
    features, others = (part.predict(maps_of(x), verbose=0) for x in (train, validation))
    basis = fit_nystroem(each_pair_once(features))
    x, seen = basis.landmark_coordinates, basis.coordinates(others)
    fitted = LogisticRegression(C=STRENGTHS[result.kept_epoch - 1], tol=1e-8, max_iter=9999)
    expected = fitted.fit(x, train.targets).decision_function(seen)
    if expected.ndim == 1:
        expected = np.stack([-expected / 2, expected / 2], axis=1)
    expected = expected / fit_temperature(expected, validation.targets)
    logits = suffix(model, "block5_pool").predict(maps_of(validation), verbose=0)
    np.testing.assert_allclose(
        probabilities_of(logits),
        probabilities_of(expected),
        atol=0.01,  # L-BFGS stops earlier
    )
    assert fit_temperature(logits, validation.targets) == pytest.approx(1, abs=0.05)


def test_where_validation_is_small_out_of_fold_answers_decide():
    """Strength, temperature and limit: those of 300 photos, not of the 20 of validation."""
    train, validation = labelled(280, 2, 0), labelled(20, 2, 1)
    head = fit_linear_probe(model_of(2), STAGES["head"], train, validation)
    result, targets = head.result, np.concatenate([train.targets, validation.targets])
    folds = make_folds(targets, numbered(train, validation))
    x = np.concatenate([head.train.coordinates, head.validation.coordinates])
    losses = []
    for strength in STRENGTHS[: result.epochs]:
        solvers = [LogisticRegression(C=strength, tol=1e-8, max_iter=9999) for _ in folds]
        logits = out_of_fold(solvers, x, targets, folds)
        probabilities = probabilities_of(logits / fit_temperature(logits, targets))
        losses.append(score(targets, probabilities).log_loss)
        if len(losses) == result.kept_epoch:
            np.testing.assert_allclose(head.out_of_fold, probabilities, atol=0.01)
            assert result.temperature == pytest.approx(fit_temperature(logits, targets), rel=0.02)
    assert result.kept_epoch == 1 + int(np.argmin(losses))
    rows = [row.validation_loss for row in result.history]
    np.testing.assert_allclose(rows, losses, rtol=0.01)
    assert result.limit == fit_min_confidence(head.out_of_fold, targets)
    assert result.validation.n == 20
    cross_validated = result.cross_validated
    assert cross_validated.photos == 300
    assert cross_validated.accuracy == cross_validated.right / 300
    assert cross_validated.log_loss == pytest.approx(min(rows))


def test_where_validation_is_large_it_decides_and_photos_are_cross_validated_once(solved):
    _, train, validation, result = solved
    assert result.limit is None
    assert result.cross_validated.photos == len(train.targets) + len(validation.targets)
    assert result.cross_validated.log_loss != pytest.approx(result.validation.log_loss, rel=1e-3)


def test_a_class_with_one_group_has_no_folds():
    """All photos of the second class are one picture: no model could learn it without them."""
    train, validation = labelled(40, 2, 0), labelled(20, 2, 1)

    def grouped(photos):
        names = [
            "one picture" if target else f"{photos is train} {n}"
            for n, target in enumerate(photos.targets)
        ]
        return replace(photos, groups=names)

    head = fit_linear_probe(model_of(2), STAGES["head"], grouped(train), grouped(validation))
    assert (head.out_of_fold, head.result.cross_validated, head.result.limit) == (None, None, None)


def test_the_search_ends_when_validation_no_longer_follows():
    """Labels that say nothing: the strongest regularisation is best, and two more are tried."""
    train, validation = labelled(60, 2, 0), labelled(60, 2, 1)
    shuffled = LabelledMaps(train.maps, np.random.default_rng(0).permutation(train.targets))
    model = model_of(2)
    result = fit_linear_probe(model, STAGES["head"], shuffled, validation).result
    assert result.epochs == result.kept_epoch + STAGES["head"].patience < len(STRENGTHS)


def test_nothing_but_the_dense_layer_changes():
    model = model_of(2)
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.variables}
    fit_linear_probe(model, STAGES["head"], labelled(60, 2, 0), labelled(40, 2, 1))
    for variable in model.variables:
        same = np.array_equal(before[variable.path], keras.ops.convert_to_numpy(variable))
        assert same != variable.path.startswith("dense")


def test_a_given_strength_is_the_only_one_tried():
    model = model_of(2)
    train, validation = labelled(60, 2, 0), labelled(40, 2, 1)
    result = fit_linear_probe(model, STAGES["head"], train, validation, (0.05,)).result
    assert (result.epochs, result.kept_epoch) == (1, 1)
    weak = fit_linear_probe(model, STAGES["head"], train, validation, (500.0,)).result
    assert weak.history[0].loss < 0.8 * result.history[0].loss  # it follows the photos more freely


def test_more_photos_than_landmarks_are_all_learned_from(monkeypatch):
    """Their coordinates come batch by batch; of the landmarks they are known already."""
    asked: list[int] = []
    train, validation = labelled(120, 2, 0), labelled(90, 2, 1)

    def walk(numbers):
        asked.extend(numbers)
        return train.maps(numbers)

    monkeypatch.setattr(app.training.nystroem, "LANDMARKS", 40)
    counted = LabelledMaps(walk, train.targets)
    few = fit_linear_probe(model_of(2), STAGES["head"], counted, validation)
    assert sorted(asked) == list(range(120))  # each photo once
    np.testing.assert_array_equal(few.train.embeddings, maps_of(train).max(axis=(1, 2)))
    np.testing.assert_array_equal(few.validation.embeddings, maps_of(validation).max(axis=(1, 2)))
    assert few.result.validation.accuracy > 0.7


def test_other_photos_get_coordinates_in_which_the_head_answers():
    """Those of the training photos are the same again."""
    train, validation = labelled(120, 2, 0), labelled(90, 2, 1)
    head = fit_linear_probe(model_of(2), STAGES["head"], train, validation)
    again = head.project(train)
    np.testing.assert_allclose(again.coordinates, head.train.coordinates, atol=1e-3)
    others = labelled(90, 2, 5)
    solver = LogisticRegression().fit(head.train.coordinates, train.targets)
    accuracy = solver.score(head.project(others).coordinates, others.targets)
    assert accuracy == pytest.approx(head.result.validation.accuracy, abs=0.15)


def rare(n: int, seed: int) -> LabelledMaps:
    """Two classes that overlap; one in ten is of the second."""
    of_each = labelled(2 * n, 2, seed, noise=3.0)
    kept = np.flatnonzero((of_each.targets == 0) | (np.arange(2 * n) % 20 == 1))

    def walk(numbers):
        return of_each.maps(kept[list(numbers)])

    return LabelledMaps(walk, of_each.targets[kept])


def test_class_weights_find_more_of_the_rare_class():
    train, validation = rare(300, 0), rare(300, 1)
    few, many = np.bincount(train.targets)[[1, 0]]
    assert (few, many) == (30, 300)

    def recalls(class_weight):
        model = model_of(2)
        fit_linear_probe(model, STAGES["head"], train, validation, (1.0,), class_weight)
        logits = suffix(model, "block5_pool").predict(maps_of(validation), verbose=0)
        right = logits.argmax(axis=1) == validation.targets
        return right[validation.targets == 0].mean(), right[validation.targets == 1].mean()

    common, seldom = recalls(None)
    balanced_common, balanced_seldom = recalls({0: 330 / 600, 1: 330 / 60})
    assert balanced_seldom > seldom + 0.2
    assert balanced_common > 0.6
    assert common > balanced_common


def test_validation_is_scored_without_class_weights():
    train, validation = rare(300, 0), rare(300, 1)
    model = model_of(2)
    weights = {0: 330 / 600, 1: 330 / 60}
    result = fit_linear_probe(model, STAGES["head"], train, validation, (1.0,), weights).result
    logits = suffix(model, "block5_pool").predict(maps_of(validation), verbose=0)
    held = score(validation.targets, probabilities_of(logits))
    assert result.validation.log_loss == pytest.approx(held.log_loss, rel=1e-4)
    assert fit_temperature(logits, validation.targets) == pytest.approx(1, abs=0.05)


def test_many_classes_share_directions(monkeypatch):
    """The network of a projection and a dense layer answers as it was solved."""
    for module in (app.network.classifier, app.training.linear_probe):
        monkeypatch.setattr(module, "MOST_FULL_CLASSES", DIRECTIONS)
    model = model_of(4)
    train, validation = labelled(160, 4, 0), labelled(240, 4, 1)
    head = fit_linear_probe(model, STAGES["head"], train, validation)
    assert [layer.name for layer in head_layers(model)] == ["projection", "dense"]
    assert head.train.coordinates.shape == (160, DIRECTIONS)
    assert head.result.trainable_parameters == DIRECTIONS * SIDE**2 + (DIRECTIONS + 1) * 4
    logits = suffix(model, "block5_pool").predict(maps_of(validation), verbose=0)
    held = score(validation.targets, probabilities_of(logits))
    assert held.log_loss == pytest.approx(head.result.validation.log_loss, rel=1e-3)
    assert held.accuracy == head.result.validation.accuracy > 0.35
