"""Coordinates among the landmarks: the same products, and the same answers as on the features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import app.training.nystroem
from app.training.nystroem import (
    NystroemFeatures,
    choose_landmarks,
    each_pair_once,
    fit_nystroem,
)

SIDE = 6


def symmetric(n: int, seed: int) -> np.ndarray:
    """Features as the network gives them: a symmetric matrix a photo, flattened."""
    x = np.random.default_rng(seed).normal(size=(n, SIDE, SIDE))
    return (x + x.transpose(0, 2, 1)).reshape(n, -1).astype("float32")


def basis_of(features: np.ndarray) -> NystroemFeatures:
    return fit_nystroem(each_pair_once(features))


@pytest.fixture
def few_landmarks(monkeypatch):
    monkeypatch.setattr(app.training.nystroem, "LANDMARKS", 10)


def test_products_of_centred_photos_are_kept():
    features = symmetric(9, 0)
    basis = basis_of(features)
    centred = features - features.mean(axis=0)
    products = centred @ centred.T
    np.testing.assert_allclose(
        basis.landmark_coordinates @ basis.landmark_coordinates.T,
        products / np.trace(products) * 9,
        rtol=1e-3,
        atol=1e-4,
    )
    assert np.square(basis.landmark_coordinates).sum(axis=1).mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(
        basis.coordinates(features), basis.landmark_coordinates, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("classes", [1, 3])
def test_an_answer_on_coordinates_is_one_on_features(classes):
    features, others = symmetric(9, 0), symmetric(5, 1)
    basis = basis_of(features)
    generator = np.random.default_rng(2)
    coefficients = generator.normal(size=(basis.landmark_coordinates.shape[1], classes))
    intercept = generator.normal(size=classes)
    kernel, bias = basis.dense(coefficients, intercept)
    assert kernel.shape == (SIDE * SIDE, classes)
    np.testing.assert_allclose(
        others @ kernel + bias,
        basis.coordinates(others) @ coefficients + intercept,
        rtol=1e-3,
        atol=1e-3,
    )
    square = kernel.reshape(SIDE, SIDE, classes)
    np.testing.assert_array_equal(square, square.transpose(1, 0, 2))


def test_regression_among_all_photos_is_regression_on_the_features():
    """Fewer photos than features: the solution lies in what the photos span."""
    features, others = symmetric(12, 3), symmetric(7, 4)
    targets = (np.random.default_rng(5).random(12) < 0.5).astype(int)
    basis = basis_of(features)
    centred = features - features.mean(axis=0)
    scale = np.sqrt(np.square(centred).sum(axis=1).mean())
    on_features = LogisticRegression(C=2, tol=1e-8, max_iter=9999).fit(centred / scale, targets)
    expected = on_features.decision_function((others - features.mean(axis=0)) / scale)
    solver = LogisticRegression(C=2, tol=1e-8, max_iter=9999).fit(
        basis.landmark_coordinates, targets
    )
    kernel, bias = basis.dense(solver.coef_.T, solver.intercept_)
    np.testing.assert_allclose((others @ kernel + bias)[:, 0], expected, rtol=1e-2, atol=1e-2)


def test_of_many_photos_some_of_each_class_span_the_space(few_landmarks):
    targets = np.repeat([0, 1, 2], [40, 40, 20])
    chosen = choose_landmarks(targets)
    assert len(chosen) == 10 == len(set(chosen.tolist()))
    assert np.bincount(targets[chosen]).tolist() == [4, 4, 2]
    features = symmetric(100, 6)
    basis = basis_of(features[chosen])
    assert basis.landmarks.shape == (10, SIDE * (SIDE + 1) // 2)
    np.testing.assert_allclose(
        basis.coordinates(features[chosen]), basis.landmark_coordinates, rtol=1e-3, atol=1e-3
    )


def test_photos_that_are_all_alike_have_finite_coordinates():
    features = np.repeat(np.round(symmetric(1, 0)), 4, axis=0)  # their mean is exact
    basis = basis_of(features)
    assert basis.landmark_coordinates.shape == (4, 1)
    np.testing.assert_allclose(basis.landmark_coordinates, 0, atol=1e-5)
    np.testing.assert_array_equal(basis.coordinates(features), 0)


def test_leading_directions_are_the_same_coordinates_without_the_others():
    basis = basis_of(symmetric(15, 0))
    others = symmetric(5, 1)
    few = basis.leading(4)
    assert few.landmarks.shape == (4, SIDE * (SIDE + 1) // 2)
    np.testing.assert_allclose(
        few.coordinates(others), basis.coordinates(others)[:, -4:], rtol=1e-3, atol=1e-4
    )
    variances = np.square(basis.landmark_coordinates).sum(axis=0)
    assert variances[-4:].min() >= variances[:-4].max()
    coefficients, intercept = np.random.default_rng(2).normal(size=(4, 3)), np.arange(3.0)
    kernel, bias = few.dense(coefficients, intercept)
    np.testing.assert_allclose(
        others @ kernel + bias,
        few.coordinates(others) @ coefficients + intercept,
        rtol=1e-3,
        atol=1e-3,
    )
