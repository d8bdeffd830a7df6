"""What is unlike the training photos, in NumPy, in Keras and in ONNX Runtime alike."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors
from small_vgg import few_channels

import app.evaluation.ood
from app.evaluation.ood import (
    KnnOodDetector,
    distances_to_others,
    embeddings_of,
    fit_ood_detector,
    unit_length,
)
from app.evaluation.outlier_classifier import OutlierClassifier
from app.network.classifier import build_classifier, logits_and_embeddings

CHANNELS = 16


def photos(n: int, seed: int, channels: slice = slice(0, 8)) -> np.ndarray:
    """Descriptors whose large numbers lie in some of the channels."""
    generator = np.random.default_rng(seed)
    rows = generator.gamma(1, 0.2, (n, CHANNELS))
    rows[:, channels] += generator.gamma(4, 1, (n, 8))
    return rows.astype(np.float32)


@pytest.fixture
def detector() -> KnnOodDetector:
    return fit_ood_detector(photos(300, 0), [photos(200, 1)])


def test_distance_is_the_mean_cosine_distance_to_the_ten_nearest(detector):
    asked = photos(50, 2)
    nearest = NearestNeighbors(n_neighbors=10, metric="cosine").fit(photos(300, 0))
    expected = nearest.kneighbors(asked)[0].mean(axis=1)
    np.testing.assert_allclose(detector.distances([asked]), expected, atol=1e-5)
    np.testing.assert_allclose(detector.distances([7 * asked]), expected, atol=1e-5)


def test_two_percent_of_validation_are_refused_and_its_middle_gets_a_twentieth(detector):
    given = detector.novelty([photos(200, 1)])
    assert (given > 0.5).sum() == 4
    assert np.median(given) == pytest.approx(0.05, rel=0.03)
    assert ((given >= 0) & (given <= 1)).all()


@pytest.mark.parametrize("count", [2, 4, 10, 30])
def test_a_small_validation_set_does_not_refuse_its_own_kind(count):
    """Its largest distance alone would refuse a quarter of all photos to come."""
    shares = []
    for seed in range(30):
        small = fit_ood_detector(photos(8 * count, seed), [photos(count, 100 + seed)])
        fresh = small.novelty([photos(200, 200 + seed)])
        shares.append((fresh > 0.5).mean())
    assert np.mean(shares) < 0.08


def test_strangers_are_refused_and_other_photos_of_the_kind_are_not(detector):
    strangers = detector.novelty([photos(100, 3, slice(8, 16))])
    assert strangers.min() > 0.9
    assert (detector.novelty([photos(500, 4)]) > 0.5).mean() < 0.06


def test_several_looks_are_averaged(detector):
    one, other = photos(5, 5), photos(5, 6)
    both = detector.distances([one, other])
    np.testing.assert_allclose(
        both, (detector.distances([one]) + detector.distances([other])) / 2, atol=1e-6
    )


def test_fewer_photos_than_neighbours_are_enough():
    few = fit_ood_detector(photos(3, 0), [photos(2, 1)])
    assert few.neighbours == 3
    assert np.isfinite(few.novelty([photos(4, 2)])).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_photos_that_are_all_alike_give_numbers_too(value):
    """As a network of random weights may see them; zeros have no direction."""
    same = np.full((6, CHANNELS), value, np.float32)
    alike = fit_ood_detector(same, [same])
    np.testing.assert_allclose(alike.novelty([same]), 0.5, atol=0.01)


def test_distance_to_others_leaves_the_photo_itself_out(monkeypatch):
    monkeypatch.setattr(app.evaluation.ood, "ROWS", 7)  # in several pieces
    rows = photos(40, 0)
    found = distances_to_others(rows)
    table = cosine_distances(rows)
    np.fill_diagonal(table, np.inf)
    np.testing.assert_allclose(found, np.sort(table, axis=1)[:, :10].mean(axis=1), atol=1e-5)


@pytest.mark.parametrize(("mirror", "shown"), [(False, False), (True, False), (True, True)])
def test_the_layers_say_what_numpy_says(mirror, shown):
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, 32, 32, 3)).astype(np.float32)
    images[3:, ::2] = 255  # of several kinds
    with few_channels(128):
        part = logits_and_embeddings(build_classifier(2, image_size=32), None)
    tta_views = [images, images[:, :, ::-1]] if mirror else [images]
    descriptors = [part.predict(look, verbose=0)[1] for look in tta_views]
    at_block5 = keras.Model(part.input, part.get_layer("block5_pool").output)
    np.testing.assert_array_equal(
        embeddings_of(at_block5.predict(images, verbose=0)), descriptors[0]
    )
    # Random filters see hardly any difference between pictures: so near are the references.
    reference = unit_length(descriptors[0][:3])
    raw = KnnOodDetector(reference, neighbours=2, threshold=0, scale=1).distances(descriptors)
    detector = KnnOodDetector(
        reference, 2, threshold=float(np.median(raw)), scale=float(np.ptp(raw))
    )
    if shown:  # decides for some of the photos
        weights = (reference[2] - reference[0]).astype(np.float32)
        weights /= np.ptp(np.mean([unit_length(view) for view in descriptors], axis=0) @ weights)
        likeness = np.mean([unit_length(view) @ weights for view in descriptors], axis=0)
        learned = OutlierClassifier(weights, float(-np.median(likeness)))
        detector, far = replace(detector, outliers=learned), detector
        decided = detector.novelty(descriptors) != far.novelty(descriptors)
        assert 0 < decided.sum() < len(images)
    with few_channels(128):
        served = build_classifier(2, image_size=32, mirror=mirror, novelty=detector)
    for layer in part.layers:
        if layer.weights:
            served.get_layer(layer.name).set_weights(layer.get_weights())
    given = served.predict(images, verbose=0)["novelty"][:, 0]
    expected = detector.novelty(descriptors)
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(given, expected, atol=0.01)
