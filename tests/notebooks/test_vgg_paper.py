"""The networks of the paper: its tables, and equality with keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import vgg_paper as module
from vgg_paper import (
    LocalResponseNormalisation,
    copy_dense_weights,
    layer_costs,
    vgg,
)

from app.core.config import Backbone
from app.core.errors import UsageError
from app.network.vgg import convolution_blocks


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(0)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks, a few channels wide."""
    monkeypatch.setattr(module, "FILTERS", (2, 3, 4, 5, 6))
    monkeypatch.setattr(module, "FC_UNITS", 8)


@pytest.fixture(scope="module")
def shapes() -> Callable[..., keras.Model]:
    """Build networks of half a gigabyte for their shapes alone; no number is ever allocated."""

    @cache
    def build(make: Callable[..., keras.Model] = vgg, **arguments: Any) -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            model = make(**arguments)
        keras.utils.clear_session(free_memory=False)  # forgets variables that wait for numbers
        return model

    return build


def photos(height: int, width: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).uniform(-120, 140, (batch, height, width, 3)).astype("float32")


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def assert_alike(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compare with the largest value as the measure, for values near zero are mere rounding."""
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("configuration", "millions", "layers"),
    [
        ("A", 133, 11),
        ("A-LRN", 133, 11),
        ("B", 133, 13),
        ("C", 134, 16),
        ("D", 138, 16),
        ("E", 144, 19),
    ],
)
def test_the_papers_tables(shapes: Any, configuration: str, millions: int, layers: int) -> None:
    model = shapes(configuration=configuration, top="dense")
    assert round(model.count_params() / 1e6) == millions  # Table 2
    assert sum(bool(layer.weights) for layer in model.layers) == layers  # Table 1
    assert sum(cost.weights for cost in layer_costs(model)) == model.count_params()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"configuration": "A", "top": "dense"}, 132_863_336),
        ({"configuration": "B", "top": "dense"}, 133_047_848),
        # D, less eight ninths of the third kernels of blocks 3, 4 and 5
        ({"configuration": "C", "top": "dense"}, 138_357_544 - 8 * (256**2 + 2 * 512**2)),
        ({"configuration": "D"}, 14_714_688),
        ({"configuration": "E"}, 20_024_384),
        ({"configuration": "D", "top": "dense"}, 138_357_544),
        ({"configuration": "D", "top": "convolutional"}, 138_357_544),
        ({"configuration": "D", "top": "dense", "classes": 24}, 134_358_872),
        ({"configuration": "E", "top": "dense"}, 143_667_240),
        # torchvision's vgg16_bn (138,365,992) and two moving statistics of 4,224 channels
        ({"top": "dense", "batch_normalisation": True}, 138_365_992 + 2 * 4_224),
    ],
)
def test_number_of_parameters(shapes: Any, arguments: dict[str, Any], count: int) -> None:
    model = shapes(**arguments)
    assert model.count_params() == count
    assert sum(cost.weights for cost in layer_costs(model)) == count


def test_layer_costs_of_vgg16(shapes: Any) -> None:
    costs = {cost.name: cost for cost in layer_costs(shapes(configuration="D", top="dense"))}
    assert list(costs)[:4] == ["image", "block1_conv1", "block1_conv2", "block1_pool"]
    first = costs["block1_conv1"]
    assert first.shape == (224, 224, 64)
    assert first.activations == 224 * 224 * 64
    assert first.bytes_of_activations() == 4 * 224 * 224 * 64
    assert first.weights == 3 * 3 * 3 * 64 + 64
    assert first.multiply_adds == 224 * 224 * 3 * 3 * 3 * 64
    assert costs["fc1"].multiply_adds == 7 * 7 * 512 * 4096
    assert costs["fc1"].weights == 7 * 7 * 512 * 4096 + 4096
    assert costs["block5_pool"].activations == 7 * 7 * 512
    assert costs["block5_pool"].multiply_adds == costs["image"].weights == 0
    assert costs["flatten"].activations == 0  # the pool's numbers in a row
    # The list of CS231n's notes ("VGGNet in detail") adds up to this, 15.2 M, not to the 24 M that
    # stand under it: https://github.com/cs231n/cs231n.github.io/issues/88
    assert sum(cost.activations for cost in costs.values()) == 15_237_608
    assert sum(cost.multiply_adds for cost in costs.values()) == 15_470_264_320


def test_both_tops_cost_the_same(shapes: Any) -> None:
    tops: tuple[module.Top, module.Top] = ("dense", "convolutional")
    dense, convolutional = (layer_costs(shapes(configuration="D", top=top)) for top in tops)
    assert sum(c.multiply_adds for c in dense) == sum(c.multiply_adds for c in convolutional)
    assert sum(c.activations for c in dense) == sum(c.activations for c in convolutional)


def test_a_network_of_open_size_has_no_costs(shapes: Any) -> None:
    with pytest.raises(UsageError, match=r"received \(None, None, 3\) as the output of image"):
        layer_costs(shapes(input_shape=(None, None, 3)))


@pytest.mark.usefixtures("tiny")
def test_the_initialiser_reaches_every_layer_and_draws_anew() -> None:
    given = keras.initializers.RandomNormal(5.0, 0.01)
    tops: tuple[module.Top, module.Top] = ("dense", "convolutional")
    for top in tops:
        model = vgg("E", top=top, kernel_initializer=given)
        kernels = [w for w in model.get_weights() if w.ndim > 1]
        assert len(kernels) == 19
        assert all(abs(kernel.mean() - 5) < 0.1 for kernel in kernels)
        twins = (model.get_layer(f"block3_conv{number}").get_weights()[0] for number in (3, 4))
        assert not np.array_equal(*twins)


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.slow
def test_dense_top_is_that_of_keras_applications(activation: str | None) -> None:
    arguments = {
        "input_shape": (32, 32, 3),
        "classes": 3,
        "classifier_activation": activation,
    }
    theirs = keras.applications.VGG16(weights=None, include_top=True, **arguments)
    ours = vgg("D", top="dense", **arguments)
    ours.set_weights(theirs.get_weights())
    x = photos(32, 32)
    assert_alike(predict(ours, x), predict(theirs, x))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("batch_normalisation", [False, True])
def test_convolutional_top_equals_dense_top(batch_normalisation: bool) -> None:
    dense = vgg("C", top="dense", classes=3, batch_normalisation=batch_normalisation)
    convolutional = vgg(
        "C",
        top="convolutional",
        classes=3,
        batch_normalisation=batch_normalisation,
        input_shape=(None, None, 3),
    )
    copy_dense_weights(dense, convolutional)

    x = photos(256, 288)
    answers = predict(convolutional, x)
    assert answers.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(answers.sum(axis=-1), 1, rtol=1e-5)

    x = x[:, :224, :224]
    expected = predict(dense, x)
    assert np.abs(expected[0] - expected[1]).max() > 1e-4  # the answer depends on the photo
    assert_alike(predict(convolutional, x)[:, 0, 0], expected)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "arguments",
    [{"classes": 4}, {"configuration": "A"}, {"input_shape": (256, 256, 3)}],
)
def test_only_twins_exchange_weights(arguments: dict[str, Any]) -> None:
    convolutional = vgg(top="convolutional", classes=3)
    before = convolutional.get_weights()
    with pytest.raises(UsageError, match=r"that differ in (fc1|predictions|block1_conv2)"):
        copy_dense_weights(vgg(**{"top": "dense", "classes": 3, **arguments}), convolutional)
    for weight, old in zip(convolutional.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_local_response_normalisation_is_the_formula() -> None:
    x = np.random.default_rng(0).normal(0, 100, (1, 2, 3, 7)).astype("float32")
    expected = np.empty_like(x)
    for c in range(7):
        window = x[..., max(0, c - 2) : c + 3]
        expected[..., c] = x[..., c] / (2 + 1e-4 * (window**2).sum(-1)) ** 0.75
    actual = LocalResponseNormalisation()(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(actual), expected, rtol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_normalisation_only_where_the_table_has_it() -> None:
    kinds = {
        name: [type(layer) for layer in vgg(name).layers].count(LocalResponseNormalisation)
        for name in module.CONFIGURATIONS
    }
    assert kinds == {"A": 0, "A-LRN": 1, "B": 0, "C": 0, "D": 0, "E": 0}
    names = [layer.name for layer in vgg("A-LRN").layers]
    assert names[1:4] == ["block1_conv1", "block1_lrn", "block1_pool"]
    assert vgg("A-LRN").name == "vgg_a_lrn"


@pytest.mark.usefixtures("tiny")
def test_batch_normalisation_stands_between_convolution_and_relu() -> None:
    model = vgg("A", batch_normalisation=True)
    names = [layer.name for layer in model.layers]
    assert names[1:5] == ["block1_conv1", "block1_conv1_bn", "block1_conv1_relu", "block1_pool"]
    assert model.get_layer("block1_conv1").activation is keras.activations.linear


@pytest.mark.parametrize("top", ["none", "dense"])
@pytest.mark.parametrize(("name", "twin"), [("D", "VGG16"), ("E", "VGG19")])
def test_layers_are_those_of_keras_applications(
    shapes: Any, name: str, twin: str, top: module.Top
) -> None:
    make = getattr(keras.applications, twin)
    theirs = shapes(make, weights=None, include_top=top == "dense")
    ours = shapes(configuration=name, top=top, input_shape=theirs.input_shape[1:])

    def described(model: keras.Model) -> list[Any]:
        return [
            (layer.name, type(layer), layer.output.shape, [w.shape for w in layer.weights])
            for layer in model.layers[1:]
        ]

    assert described(ours) == described(theirs)


@pytest.mark.parametrize(("name", "backbone"), [("D", "vgg16"), ("E", "vgg19")])
def test_the_application_trains_the_same_convolutions(
    shapes: Any, name: str, backbone: Backbone
) -> None:
    image = keras.Input((224, 224, 3))
    trained = shapes(lambda: keras.Model(image, convolution_blocks(image, backbone)))

    def described(model: keras.Model) -> list[Any]:
        return [
            {**layer.get_config(), "dtype": layer.dtype_policy.name} for layer in model.layers[1:]
        ]

    assert described(shapes(configuration=name)) == described(trained)


def test_an_unknown_configuration_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"received 'F'. Use A, A-LRN, B, C, D, E\.$"):
        vgg("F")
