import keras
import numpy as np
import pytest

from app.config import STAGES
from app.model import (
    CUTS,
    ROOT_OFFSET,
    build_classifier,
    head_inputs,
    open_layers,
    prefix,
    row_bytes,
    set_standardisation,
    suffix,
)
from app.weights import BACKBONES

SIZE = 32


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_classifier(3, image_size=SIZE)
    generator = np.random.default_rng(0)
    model.get_layer("dense").set_weights(
        [generator.normal(size=(1024, 3)), generator.normal(size=3)]
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


def test_each_feature_has_an_exact_share_in_the_logits(model, photos):
    """An exact heat map needs it: √(f + o) - √o = f / (√(f + o) + √o), and f is a sum of places."""
    features = prefix(model, ["pooled"]).predict(photos, verbose=0)
    head = suffix(model, "pooled")
    nothing = head.predict(np.zeros((1, 1024)), verbose=0)
    _, variance = model.get_layer("standardise").get_weights()
    kernel, _ = model.get_layer("dense").get_weights()
    slopes = 1 / (np.sqrt(features + ROOT_OFFSET) + np.sqrt(ROOT_OFFSET))
    shares = (features * slopes / np.sqrt(variance + 1e-3))[:, :, None] * kernel
    np.testing.assert_allclose(
        nothing + shares.sum(axis=1), head.predict(features, verbose=0), rtol=1e-4, atol=1e-4
    )


def test_standardisation_comes_from_the_training_features():
    fresh = build_classifier(2, image_size=SIZE)
    features = np.random.default_rng(0).gamma(2, 5, (50, 1024)).astype("float32")
    set_standardisation(fresh, features)
    scaled = head_inputs(fresh, features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("stage", "parameters"),
    [("head", 3075), ("block5", 3075 + 7_079_424), ("block4", 3075 + 7_079_424 + 5_899_776)],
)
def test_a_stage_opens_its_blocks_and_the_head(model, stage, parameters):
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
    looks = [model.predict(x, verbose=0) for x in (photos, photos[:, :, ::-1])]
    assert np.abs(looks[0] - looks[1]).max() > 0.01
    np.testing.assert_allclose(both.predict(photos, verbose=0), np.mean(looks, axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        both.predict(photos[2:3], verbose=0), np.mean(looks, axis=0)[2:3], rtol=1e-5
    )
