import keras
import numpy as np
import pytest

from app.core.config import STAGES
from app.network.bilinear_pooling import ROOT_OFFSET, TINY
from app.network.classifier import (
    CUTS,
    build_classifier,
    open_layers,
    pooling_part,
    prefix,
    row_bytes,
    suffix,
)
from app.network.pretrained_weights import BACKBONES

SIZE = 32


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_classifier(3, image_size=SIZE)
    generator = np.random.default_rng(0)
    model.get_layer("dense").set_weights(
        [20 * generator.normal(size=(512 * 512, 3)), generator.normal(size=3)]
    )
    return model


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def test_preprocessing_is_inside_and_the_official_one(model, photos):
    inner = keras.Model(model.input, model.get_layer("preprocessing").output)
    expected = keras.applications.vgg16.preprocess_input(photos.astype("float32"))
    np.testing.assert_array_equal(inner.predict(photos, verbose=0), expected)


def test_only_standard_layers(model):
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)


def test_backbone_equals_keras_applications(model, photos):
    official = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)
    )
    for layer in official.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    ours = keras.Model(model.input, model.get_layer("block5_pool").output)
    prepared = keras.applications.vgg16.preprocess_input(photos.astype("float32"))
    np.testing.assert_allclose(
        ours.predict(photos, verbose=0), official.predict(prepared, verbose=0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("cut", CUTS)
def test_prefix_then_suffix_is_the_whole(model, photos, cut):
    whole = model.predict(photos, verbose=0)
    activations = prefix(model, [cut]).predict(photos, verbose=0)
    assert activations[0].nbytes == 2 * row_bytes(model, [cut])  # float32 here, float16 cached
    parts = suffix(model, cut).predict(activations, verbose=0)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_head_starts_undecided():
    fresh = build_classifier(2, image_size=SIZE)
    np.testing.assert_array_equal(
        fresh.predict(np.full((1, SIZE, SIZE, 3), 200, np.uint8), verbose=0), [[0, 0]]
    )


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Activations as ``block5_pool`` gives them: many zeros, and sizes that differ widely."""
    generator = np.random.default_rng(2)
    return np.maximum(generator.normal(-1, 2, (5, 3, 4, 512)), 0).astype("float32") ** 2


@pytest.fixture(scope="module")
def larger() -> keras.Model:
    return build_classifier(2, image_size=128)  # 4×4 places


def test_features_are_square_roots_of_pairs_at_unit_length(larger, maps):
    maps = np.resize(maps, (4, 4, 4, 512))
    features = pooling_part(larger).predict(maps, verbose=0)
    places = maps.reshape(4, 16, 512).astype("float64")
    pairs = np.einsum("npi,npj->nij", places, places).reshape(4, -1)
    roots = np.sqrt(pairs / np.linalg.norm(pairs, axis=1, keepdims=True) + ROOT_OFFSET)
    expected = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-6)
    brighter = pooling_part(larger).predict(7 * maps, verbose=0)
    np.testing.assert_allclose(brighter, features, rtol=1e-4, atol=1e-7)


def test_a_photo_that_excites_nothing_has_an_answer_and_a_slope(larger):
    empty = np.zeros((2, 4, 4, 512), "float32")
    features = pooling_part(larger).predict(empty, verbose=0)
    np.testing.assert_allclose(features, 1 / 512, rtol=1e-4)
    above = suffix(larger, "block4_pool")
    above.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(True))
    kernel = np.random.default_rng(0).normal(size=(512 * 512, 2))
    larger.get_layer("dense").set_weights([kernel, np.zeros(2)])
    above.train_on_batch(np.zeros((2, 8, 8, 512)), np.array([0, 1]))
    assert all(np.isfinite(weights).all() for weights in above.get_weights())


def test_each_place_has_an_exact_share_in_the_logits(model, photos):
    """An exact heat map needs it: √(p + o) - √o = p / (√(p + o) + √o), p a sum over places."""
    maps = prefix(model, ["block5_pool"]).predict(photos, verbose=0)
    head = suffix(model, "block5_pool")
    kernel, bias = model.get_layer("dense").get_weights()
    places = maps.reshape(len(maps), -1, 512).astype("float64")
    products = np.einsum("npi,npj->npij", places, places)  # of each place
    pairs = products.sum(axis=1).reshape(len(maps), -1) + TINY
    scale = np.linalg.norm(pairs, axis=1, keepdims=True)
    roots = np.sqrt(pairs / scale + ROOT_OFFSET)
    slopes = 1 / (roots + np.sqrt(ROOT_OFFSET)) / scale / np.linalg.norm(roots, axis=1)[:, None]
    weighted = slopes[:, :, None] * kernel
    shares = products.reshape(*places.shape[:2], -1) @ weighted
    floor = np.sqrt(ROOT_OFFSET) / np.linalg.norm(roots, axis=1)[:, None]
    nothing = bias + floor * kernel.sum(axis=0)
    np.testing.assert_allclose(
        nothing + shares.sum(axis=1), head.predict(maps, verbose=0), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("stage", "parameters"),
    [("head", 3 * 512 * 512 + 3), ("block5", 7_079_424), ("block4", 7_079_424 + 5_899_776)],
)
def test_a_stage_opens_its_blocks_or_the_head(model, stage, parameters):
    assert open_layers(model, STAGES[stage]) == parameters


def test_temperature_divides_the_logits(model, photos):
    cooler = build_classifier(3, image_size=SIZE, temperature=2.0)
    cooler.set_weights(model.get_weights())
    np.testing.assert_allclose(
        2 * cooler.predict(photos, verbose=0), model.predict(photos, verbose=0), rtol=1e-5
    )


def test_bfloat16_keeps_float32_variables_and_head(photos):
    model = build_classifier(2, image_size=SIZE, precision="bfloat16")
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert model.get_layer("block5_conv3").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
    assert np.isfinite(model.predict(photos, verbose=0)).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_both_backbones(backbone, photos):
    model = build_classifier(2, image_size=SIZE, backbone=backbone)
    assert model.predict(photos, verbose=0).shape == (4, 2)


def test_with_mirror_the_logits_are_the_mean_of_two_looks(model, photos):
    both = build_classifier(3, image_size=SIZE, mirror=True)
    both.set_weights(model.get_weights())
    tta_views = [model.predict(x, verbose=0) for x in (photos, photos[:, :, ::-1])]
    assert np.abs(tta_views[0] - tta_views[1]).max() > 0.01
    np.testing.assert_allclose(
        both.predict(photos, verbose=0), np.mean(tta_views, axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        both.predict(photos[2:3], verbose=0), np.mean(tta_views, axis=0)[2:3], rtol=1e-5
    )
