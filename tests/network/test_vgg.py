"""The convolutions of VGG16 and VGG19 are those of keras.applications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from app.core.config import Backbone
from app.network import vgg as module
from app.network.vgg import convolution_blocks

OFFICIAL = (
    Path(__file__).parents[3] / "shared/weights/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
TWINS: list[tuple[Backbone, str]] = [("vgg16", "VGG16"), ("vgg19", "VGG19")]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks, a few channels wide."""
    monkeypatch.setattr(module, "FILTERS", (2, 3, 4, 5, 6))


def network(backbone: Backbone = "vgg16", **options: Any) -> keras.Model:
    image = keras.Input((None, None, 3))
    return keras.Model(image, convolution_blocks(image, backbone, **options))


def photos(height: int, width: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).uniform(-120, 140, (batch, height, width, 3)).astype("float32")


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def assert_alike(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compare with the largest value as the measure, for values near zero are mere rounding."""
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("name", "twin"), TWINS)
def test_layers_and_outputs_are_those_of_keras_applications(name: Backbone, twin: str) -> None:
    theirs = getattr(keras.applications, twin)(weights=None, include_top=False)
    ours = network(name)

    def described(model: keras.Model) -> list[Any]:
        return [
            (layer.name, type(layer), layer.output.shape, [w.shape for w in layer.weights])
            for layer in model.layers[1:]
        ]

    assert described(ours) == described(theirs)
    ours.set_weights(theirs.get_weights())
    x = photos(32, 64, batch=1)
    assert_alike(predict(ours, x), predict(theirs, x))


@pytest.mark.usefixtures("tiny")
def test_dtype_policy_reaches_every_layer() -> None:
    model = network(dtype="mixed_bfloat16")
    assert {layer.dtype_policy.name for layer in model.layers[1:]} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in model.weights} == {"float32"}


@pytest.mark.usefixtures("tiny")
def test_blocks_on_a_tensor_of_ones_own() -> None:
    image = keras.Input((None, None, 3))
    model = keras.Model(image, convolution_blocks(keras.layers.Rescaling(2.0)(image)))
    plain = network()
    plain.set_weights(model.get_weights())
    x = photos(40, 70)
    assert model.output.shape == (None, None, None, 6)
    assert_alike(predict(model, x), predict(plain, 2 * x))


@pytest.mark.weights
def test_official_file_loads() -> None:
    if not OFFICIAL.is_file():
        pytest.skip(f"no file {OFFICIAL}")
    ours = network()
    ours.load_weights(OFFICIAL)
    theirs = keras.applications.VGG16(include_top=False, weights=OFFICIAL, input_shape=(48, 64, 3))
    x = photos(48, 64)
    assert_alike(predict(ours, x), predict(theirs, x))
