"""Class activation maps: exact, from the exported model, and as a picture."""

import math

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from small_vgg import few_channels

import app.network.classifier
from app.evaluation.ood import KnnOodDetector, unit_length
from app.inference.heatmap import EDGE, LONGEST, contrastive_cam, overlay
from app.network.activation_maps import add_activation_maps
from app.network.bilinear_pooling import ROOT_OFFSET
from app.network.classifier import build_classifier, set_head
from app.network.onnx_graph import to_onnx

SIZE, PLACES = 96, (3, 3)
CHANNELS = 32


def novelty() -> KnnOodDetector:
    rows = np.random.default_rng(0).normal(size=(20, CHANNELS))
    return KnnOodDetector(unit_length(np.maximum(rows, 0)), 3, threshold=0.45, scale=0.05)


def classifier(**settings) -> keras.Model:
    """Return a classifier of three classes with random weights everywhere."""
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    with few_channels(CHANNELS):
        model = build_classifier(3, image_size=SIZE, temperature=1.7, novelty=novelty(), **settings)
    weights = [generator.normal(size=(CHANNELS**2, 3)), generator.normal(size=3)]
    model.get_layer("dense").set_weights(weights)
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise, and one photo that excites nothing at all once the network is told so."""
    return np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def maps_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    proto = to_onnx(model, ["logits", "novelty"], also=[add_activation_maps])
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["activation_maps"], {"image": images})[0]


@pytest.mark.parametrize("mirror", [False, True])
def test_the_map_adds_up_to_the_logit(images, mirror):
    model = classifier(mirror=mirror)
    maps = maps_of(model, images)
    logits = model.predict(images, verbose=0)["logits"]
    assert maps.shape == (3, *PLACES, 3)
    assert np.ptp(logits, axis=0).min() > 0.01  # else a constant would pass
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits, rtol=1e-4, atol=2e-4)


def test_each_place_gets_what_its_own_activations_contribute(images):
    model = classifier()
    maps = maps_of(model, images)
    at_block5 = keras.Model(model.input, model.get_layer("block5_pool").output)
    places = at_block5.predict(images, verbose=0).reshape(3, 9, CHANNELS).astype(np.float64)
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("dense").get_weights())
    for place, map_ in zip(places, maps, strict=True):
        products = np.einsum("pi,pj->pij", place, place).reshape(9, -1)
        pairs = products.sum(axis=0)
        unit = pairs / np.linalg.norm(pairs)
        roots = np.sqrt(unit + ROOT_OFFSET)
        rest = math.sqrt(ROOT_OFFSET)
        shares = products / np.linalg.norm(pairs) / (roots + rest) + rest / 9
        expected = (shares / np.linalg.norm(roots) @ kernel + bias / 9) / 1.7
        np.testing.assert_allclose(map_.reshape(9, 3), expected, rtol=1e-3, atol=2e-4)


def test_mirrored_photos_have_mirrored_maps(images):
    model = classifier(mirror=True)
    there, back = maps_of(model, images), maps_of(model, images[:, :, ::-1])
    assert np.abs(there - there[:, :, ::-1]).max() > 0.01
    np.testing.assert_allclose(back[:, :, ::-1], there, atol=1e-3)


def test_of_many_classes_with_a_projection_the_maps_are_exact_too(images, monkeypatch):
    monkeypatch.setattr(app.network.classifier, "MOST_FULL_CLASSES", 2)
    generator = np.random.default_rng(2)
    with few_channels(CHANNELS):
        model = build_classifier(5, image_size=SIZE, temperature=1.7, novelty=novelty())
    kernels = [generator.normal(size=shape) for shape in ((2, 5), (5,), (CHANNELS**2, 2))]
    set_head(model, *kernels)
    maps = maps_of(model, images)
    assert maps.shape == (3, *PLACES, 5)
    logits = model.predict(images, verbose=0)["logits"]
    assert np.ptp(logits, axis=0).min() > 0.01
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits, rtol=1e-4, atol=2e-4)


def test_a_photo_that_excites_nothing_has_a_map_too(images):
    model = classifier()
    layer = model.get_layer("block5_conv3")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.zeros_like(kernel), np.zeros_like(bias)])
    logits = model.predict(images, verbose=0)["logits"]
    maps = maps_of(model, images)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits, rtol=1e-4, atol=2e-4)
    assert np.ptp(maps, axis=(1, 2)).max() < 1e-6


def test_evidence_is_for_a_class_against_the_others():
    maps = np.random.default_rng(0).normal(size=(4, 5, 3))
    shifted = maps + np.random.default_rng(1).normal(size=(4, 5, 1))  # changes no probability
    np.testing.assert_allclose(contrastive_cam(shifted, 1), contrastive_cam(maps, 1))
    two = maps[..., :2]
    np.testing.assert_allclose(contrastive_cam(two, 0), -contrastive_cam(two, 1))
    np.testing.assert_allclose(contrastive_cam(two, 0), (two[..., 0] - two[..., 1]) / 2)


def test_a_place_that_speaks_keeps_its_colour_and_is_outlined():
    photo = np.full((300, 1280, 3), (200, 40, 40), np.uint8)
    spoken = np.full((3, 8), -1.0)
    spoken[1, 1] = 2.0
    picture = overlay(photo, spoken)
    assert picture.size == (LONGEST, 150)
    pixels = np.asarray(picture).astype(int)
    np.testing.assert_allclose(pixels[75, 120], photo[0, 0], atol=4)
    assert np.ptp(pixels[75, 500]) <= 1  # grey
    assert pixels[75, 500].mean() < 0.5 * photo[0, 0].mean()
    outlined = (pixels == EDGE).all(axis=-1)
    ys, xs = np.nonzero(outlined)
    ends = (ys.min(), ys.max(), xs.min(), xs.max())
    np.testing.assert_allclose(ends, (50, 100, 80, 160), atol=6)  # of the one place's cell


def test_tiny_photos_are_shown_larger_lest_the_line_cover_them():
    spoken = np.zeros((3, 3))
    spoken[1, 1] = 1.0
    picture = overlay(np.full((40, 60, 3), 90, np.uint8), spoken)
    assert picture.size == (240, 160)
    outlined = (np.asarray(picture) == EDGE).all(axis=-1)
    assert 0 < outlined.mean() < 0.05


@pytest.mark.parametrize(("height", "width"), [(3, 5000), (2000, 1), (1, 1)])
def test_photos_as_thin_as_a_thread_have_a_picture(height, width):
    picture = overlay(np.zeros((height, width, 3), np.uint8), np.ones((2, 2)))
    assert 240 <= max(picture.size) <= LONGEST
    assert min(picture.size) >= 1


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_where_nothing_speaks_nothing_is_lit(value):
    photo = Image.effect_noise((64, 48), 60).convert("RGB")
    pixels = np.asarray(overlay(np.asarray(photo), np.full((3, 4), value)))
    assert not (pixels == EDGE).all(axis=-1).any()
    assert np.ptp(pixels.astype(int), axis=-1).max() <= 1
