"""The VGG networks of the paper, all six of them, from one table, for
``notebooks/2_vgg16_in_depth.py``.

``app.network.vgg`` has what the application trains: the convolutions of two of them. Here are
also the dense layers, their convolutional form, batch normalisation and what each layer costs.

Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, arXiv:1409.1556. Table 1 names the six configurations A, A-LRN, B, C, D and E;
D is known as VGG16 and E as VGG19.

Layers have the names of ``keras.applications`` (``block1_conv1`` … ``block5_pool``, ``flatten``,
``fc1``, ``fc2``, ``predictions``), so the official weight files load into D and E, and a layer can
be addressed by its block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import keras

from app.core.errors import UsageError
from app.network.vgg import FILTERS

Top = Literal["none", "dense", "convolutional"]

LRN = "LRN"

# Table 1, a row a configuration: five blocks, each a list of kernel sizes; every block ends in a
# 2×2 maximum pooling. LRN is a local response normalisation.
CONFIGURATIONS: MappingProxyType[str, tuple[tuple[int | str, ...], ...]] = MappingProxyType(
    {
        "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
        "A-LRN": ((3, LRN), (3,), (3, 3), (3, 3), (3, 3)),
        "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
        "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
        "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
    }
)

FC_UNITS = 4096  # the width of fc1 and fc2
WINDOW = 7  # five halvings leave 7×7 of the 224×224 that the paper trains on; fc1 sees just that
GLOROT = "glorot_uniform"  # Keras's default; the paper drew from a normal one of spread 0.01
LAST = "channels_last"  # whatever the user's ~/.keras/keras.json says


class LocalResponseNormalisation(keras.layers.Layer):  # type: ignore[misc]
    """Divide each number by a power of the squares around it in the neighbouring channels.

    ``y[c] = x[c] / (2 + 1e-4 · Σ x[j]²) ** 0.75``, the sum over the channels ``c - 2`` to ``c + 2``
    that exist. Only A-LRN uses it: the paper built that network to find out whether AlexNet's
    normalisation helps, and found that it does not (Section 4.1).

    Input and output: ``(batch, height, width, channels)``, floating point, channels last.

    Source: Krizhevsky, Sutskever & Hinton 2012, Section 3.3; VGG takes its constants from there.
    Caffe and PyTorch weigh the mean of the squares: their alpha is five times this one.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalise ``inputs``; same shape, same dtype."""
        squares = keras.ops.square(inputs)
        padded = keras.ops.pad(squares, [(0, 0)] * 3 + [(2, 2)])
        channels = inputs.shape[-1]
        total = sum(padded[..., i : i + channels] for i in range(5))
        return inputs * keras.ops.power(2 + 1e-4 * total, -0.75)


def vgg(
    configuration: str = "D",
    *,
    top: Top = "none",
    classes: int = 1000,
    units: int | None = None,
    classifier_activation: str | None = "softmax",
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    batch_normalisation: bool = False,
    kernel_initializer: str | keras.initializers.Initializer = GLOROT,
) -> keras.Model:
    """Build one VGG network with random weights.

    Args:
        configuration: a row of Table 1: ``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"`` or ``"E"``.
        top: what follows the convolutions. ``"none"``: nothing; the output is block5_pool,
            ``(batch, height / 32, width / 32, 512)``. ``"dense"``: fc1, fc2 and predictions, for
            one fixed size; ``(batch, classes)``. ``"convolutional"``: the same three as
            convolutions (Section 3.2), for any size; ``(batch, height / 32 - 6, width / 32 - 6,
            classes)``, an answer for each 224×224 window, 32 pixels apart.
        classes: width of the answer; without a top it has no meaning.
        units: width of fc1 and fc2, if not the paper's 4096; without a top it has no meaning.
        classifier_activation: on predictions; ``None`` gives logits.
        input_shape: height, width, channels; ``None`` for a side that may vary.
        batch_normalisation: between each convolution and its ReLU.
        kernel_initializer: draws the weights of every layer, without a seed of its own other ones
            for each; biases begin at zero.

    Returns:
        A functional model. Input: RGB made BGR, ImageNet's mean subtracted, unscaled, floating
        point, ``(batch, height, width, 3)`` (``keras.applications.vgg16.preprocess_input``).

    Raises:
        UsageError: for an unknown configuration.
    """
    if configuration not in CONFIGURATIONS:
        known = ", ".join(CONFIGURATIONS)
        raise UsageError(f"Expected a VGG configuration; received {configuration!r}. Use {known}.")

    def convolution(
        x: keras.KerasTensor, filters: int, kernel: int | str, name: str, activation: str | None
    ) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            filters,
            kernel,
            padding="same" if name.startswith("block") else "valid",
            activation=activation,
            kernel_initializer=_anew(kernel_initializer),
            data_format=LAST,
            name=name,
        )(x)

    x = image = keras.Input(input_shape, name="image")
    blocks = zip(CONFIGURATIONS[configuration], FILTERS, strict=True)
    for block, (kernels, filters) in enumerate(blocks, start=1):
        for number, kernel in enumerate(kernels, start=1):
            name = f"block{block}_conv{number}"
            if kernel == LRN:
                x = LocalResponseNormalisation(name=f"block{block}_lrn")(x)
            elif batch_normalisation:
                x = convolution(x, filters, kernel, name, None)
                # The paper is older than batch normalisation. As in torchvision's vgg*_bn: the
                # bias stays, so the official convolutions still fit, with PyTorch's momentum and
                # epsilon. Keras's default momentum, 0.99, would take hundreds of steps to forget
                # the initial statistics.
                x = keras.layers.BatchNormalization(
                    axis=-1, momentum=0.9, epsilon=1e-5, name=f"{name}_bn"
                )(x)
                x = keras.layers.ReLU(name=f"{name}_relu")(x)
            else:
                x = convolution(x, filters, kernel, name, "relu")
        x = keras.layers.MaxPooling2D(2, data_format=LAST, name=f"block{block}_pool")(x)
    layers: list[tuple[str, int, str | None]] = [
        ("fc1", units or FC_UNITS, "relu"),
        ("fc2", units or FC_UNITS, "relu"),
    ]
    layers.append(("predictions", classes, classifier_activation))
    if top == "dense":
        x = keras.layers.Flatten(data_format=LAST, name="flatten")(x)
        for name, units, activation in layers:
            initializer = _anew(kernel_initializer)
            x = keras.layers.Dense(
                units, activation=activation, kernel_initializer=initializer, name=name
            )(x)
    elif top == "convolutional":
        for name, units, activation in layers:
            x = convolution(x, units, WINDOW if name == "fc1" else 1, name, activation)
    return keras.Model(image, x, name=f"vgg_{configuration.lower().replace('-', '_')}")


def copy_dense_weights(dense: keras.Model, convolutional: keras.Model) -> None:
    """Carry the weights of a dense-top network into its convolutional twin.

    Use it to answer for photos larger than those that the dense top was trained on (Section 3.2).
    A dense layer on a flattened 7×7 map is a 7×7 convolution on that map: the numbers are the same
    in the same order, only their shape differs.

    Args:
        dense: ``vgg(…, top="dense")`` for 224×224 input.
        convolutional: ``vgg(…, top="convolutional")``, otherwise the same; changed in place.

    Raises:
        UsageError: if the two are not twins; nothing is changed then.
    """
    given = {layer.name: layer.get_weights() for layer in dense.layers if layer.weights}
    wanted = {layer.name: layer for layer in convolutional.layers if layer.weights}
    sizes = {name: [array.size for array in arrays] for name, arrays in given.items()}
    wanted_sizes = {
        name: [math.prod(weight.shape) for weight in layer.weights]
        for name, layer in wanted.items()
    }
    differing = [
        name for name in {**sizes, **wanted_sizes} if sizes.get(name) != wanted_sizes.get(name)
    ]
    if differing:
        raise UsageError(
            "Expected a dense network and its convolutional twin; received networks that differ "
            f"in {', '.join(differing)}. Build both with the same configuration, classes and batch "
            "normalisation, the dense one for 224×224 photos."
        )
    for name, layer in wanted.items():
        arrays = zip(given[name], layer.weights, strict=True)
        layer.set_weights([array.reshape(weight.shape) for array, weight in arrays])


@dataclass(frozen=True)
class LayerCost:
    """What one layer takes for one photo.

    Attributes:
        name: of the layer.
        shape: of its output, without the batch.
        activations: the numbers in that output, which the layer behind it reads; training keeps
            them until the gradient has come back. 0 where only the shape changes (flatten).
        weights: the numbers that it learns, or keeps: kernel, bias, normalisation.
        multiply_adds: multiplications, each with an addition, in its kernel. Those of biases,
            activation functions, poolings and normalisations are not counted, as is usual.
    """

    name: str
    shape: tuple[int, ...]
    activations: int
    weights: int
    multiply_adds: int

    def bytes_of_activations(self, width: int = 4) -> int:
        """Return what the output takes at ``width`` bytes a number: 4 in float32."""
        return width * self.activations


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """Count what each layer of a network takes, the input first.

    Args:
        model: of ``vgg``, of one fixed size. Its weights need not be allocated: only shapes are
            read.

    Raises:
        UsageError: if the model leaves a side of its input open.
    """
    costs = []
    for layer in model.layers:
        shape = tuple(layer.output.shape[1:])
        if None in shape:
            raise UsageError(
                f"Expected a network of one fixed size; received {shape} as the output of "
                f"{layer.name}. Give input_shape a height and a width."
            )
        kernel = math.prod(layer.kernel.shape) if hasattr(layer, "kernel") else 0
        places = math.prod(shape[:-1])  # 1 for a dense layer
        is_view = isinstance(layer, keras.layers.Flatten)  # of what the layer before it holds
        costs.append(
            LayerCost(
                name=layer.name,
                shape=shape,
                activations=0 if is_view else math.prod(shape),
                weights=sum(math.prod(weight.shape) for weight in layer.weights),
                multiply_adds=places * kernel,
            )
        )
    return costs


def _anew(
    initializer: str | keras.initializers.Initializer,
) -> str | keras.initializers.Initializer:
    """Return one for the next layer: an object draws the same numbers whenever it is called."""
    return initializer if isinstance(initializer, str) else initializer.clone()
