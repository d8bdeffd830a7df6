"""The VGG networks, all six of them, from one table.

Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, arXiv:1409.1556. Table 1 names the six configurations A, A-LRN, B, C, D and E;
D is known as VGG16 and E as VGG19.

Layers bear the names of ``keras.applications`` (``block1_conv1`` … ``block5_pool``, ``flatten``,
``fc1``, ``fc2``, ``predictions``), so the official weight files load into D and E, and a layer can
be addressed by its block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import keras

from app.core.errors import UsageError

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
ALIASES = MappingProxyType({"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"})

FILTERS = (64, 128, 256, 512, 512)  # the width of each block, the same in every configuration
FC_UNITS = 4096  # the width of fc1 and fc2
WINDOW = 7  # five halvings leave 7×7 of the 224×224 that the paper trains on; fc1 sees just that
GLOROT = "glorot_uniform"  # Keras's default; the paper drew from a normal one of spread 0.01


@keras.saving.register_keras_serializable(package="cats_vs_dogs")
class LocalResponseNormalisation(keras.layers.Layer):  # type: ignore[misc]
    """Divide each number by a power of the squares around it in the neighbouring channels.

    ``y[c] = x[c] / (bias + alpha · Σ x[j]²) ** beta``, the sum over the channels ``c - radius`` to
    ``c + radius`` that exist. Only A-LRN uses it: the paper built that network to find out whether
    AlexNet's normalisation helps, and found that it does not (Section 4.1).

    Input and output: ``(batch, height, width, channels)``, floating point, channels last.

    Args:
        radius: neighbours on either side; 2 makes AlexNet's window of five channels.
        bias: keeps the divisor away from zero.
        alpha: weight of the *sum*, as in the AlexNet paper. Caffe and PyTorch weigh the mean:
            their alpha is five times this one for the same result.
        beta: the power.

    Source: Krizhevsky, Sutskever & Hinton 2012, Section 3.3; VGG takes its constants from there.
    """

    def __init__(
        self,
        radius: int = 2,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.radius = radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalise ``inputs``; same shape, same dtype."""
        # Squares of activations above 255 do not fit into float16.
        squares = keras.ops.square(keras.ops.cast(inputs, "float32"))
        channels = inputs.shape[-1]
        padded = keras.ops.pad(squares, [(0, 0)] * 3 + [(self.radius, self.radius)])
        total = sum(padded[..., i : i + channels] for i in range(2 * self.radius + 1))
        scale = keras.ops.power(self.bias + self.alpha * total, -self.beta)
        return inputs * keras.ops.cast(scale, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``input_shape``: the layer changes values, not shapes."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        own = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}


def vgg(
    configuration: str = "D",
    *,
    top: Top = "none",
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    batch_normalisation: bool = False,
    kernel_initializer: str | keras.initializers.Initializer = GLOROT,
    dtype: keras.DTypePolicy | str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build one VGG network with fresh weights.

    Use it for a whole network. Use ``convolution_blocks`` to put the convolution part on a tensor
    of your own, ``app.network.pretrained_weights`` for the ImageNet weights.

    Args:
        configuration: a row of Table 1 (``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"``, ``"E"``)
            or ``"vgg11"``, ``"vgg13"``, ``"vgg16"``, ``"vgg19"``.
        top: what follows the convolutions. ``"none"``: nothing; the output is block5_pool,
            ``(batch, height / 32, width / 32, 512)``. ``"dense"``: fc1, fc2 and predictions, for
            one fixed size; ``(batch, classes)``. ``"convolutional"``: the same three as
            convolutions (Section 3.2), for any size; ``(batch, height / 32 - 6, width / 32 - 6,
            classes)``, an answer for each 224×224 window, 32 pixels apart.
        classes: width of the answer; without a top it has no meaning.
        classifier_activation: on predictions; ``None`` gives logits.
        input_shape: height, width, channels; ``None`` for a side that may vary.
        batch_normalisation: between each convolution and its ReLU.
        kernel_initializer: draws the weights of every layer, without a seed of its own other ones
            for each; biases begin at zero.
        dtype: Keras dtype policy of every layer, such as ``"mixed_bfloat16"``.
        name: of the model; ``"vgg16"`` and the like by default.

    Returns:
        A functional model. Input: RGB made BGR, ImageNet's mean subtracted, unscaled, floating
        point, ``(batch, height, width, 3)`` (``keras.applications.vgg16.preprocess_input``).

    Raises:
        UsageError: for an unknown configuration or top, or a size that does not fit the top.
    """
    row = _row_name(configuration)
    _check_size(input_shape, top, classes)
    image = keras.Input(input_shape, name="image")
    x = convolution_blocks(
        image,
        row,
        batch_normalisation=batch_normalisation,
        kernel_initializer=kernel_initializer,
        dtype=dtype,
    )
    if top != "none":
        x = _top(x, top, classes, classifier_activation, kernel_initializer, dtype)
    if name is None:
        name = next((alias for alias, its_row in ALIASES.items() if its_row == row), None)
        name = name or f"vgg_{row.lower().replace('-', '_')}"
    return keras.Model(image, x, name=name)


def convolution_blocks(
    x: keras.KerasTensor,
    configuration: str = "D",
    *,
    batch_normalisation: bool = False,
    kernel_initializer: str | keras.initializers.Initializer = GLOROT,
    dtype: keras.DTypePolicy | str | None = None,
) -> keras.KerasTensor:
    """Put the five convolution blocks of a configuration on ``x``.

    Use it inside a model that prepares its own input.

    Args:
        x: ``(batch, height, width, channels)``, prepared as ``vgg`` says.
        configuration: as in ``vgg``.
        batch_normalisation: as in ``vgg``.
        kernel_initializer: as in ``vgg``.
        dtype: as in ``vgg``.

    Returns:
        The output of ``block5_pool``: ``(batch, height / 32, width / 32, 512)``, rounded down.

    Raises:
        UsageError: for an unknown configuration.
    """
    blocks = zip(CONFIGURATIONS[_row_name(configuration)], FILTERS, strict=True)
    for block, (kernels, filters) in enumerate(blocks, start=1):
        for number, kernel in enumerate(kernels, start=1):
            if kernel == LRN:
                x = LocalResponseNormalisation(dtype=dtype, name=f"block{block}_lrn")(x)
            else:
                name = f"block{block}_conv{number}"
                x = _convolution(
                    x, filters, kernel, name, batch_normalisation, kernel_initializer, dtype
                )
        x = keras.layers.MaxPooling2D(
            2, data_format="channels_last", dtype=dtype, name=f"block{block}_pool"
        )(x)
    return x


def copy_dense_weights(dense: keras.Model, convolutional: keras.Model) -> None:
    """Carry the weights of a dense-top network into its convolutional twin.

    Use it to answer for photos larger than those that the dense top was trained on (Section 3.2).
    A dense layer on a flattened 7×7 map is a 7×7 convolution on that map: the numbers are the same
    in the same order, only their shape differs.

    Args:
        dense: ``vgg(…, top="dense")`` for 224×224 input.
        convolutional: ``vgg(…, top="convolutional")``, otherwise alike; changed in place.

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
        model: of ``vgg``, of one fixed size. It may be one whose weights were never allocated: only
            shapes are read.

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


def _convolution(
    x: keras.KerasTensor,
    filters: int,
    kernel: int | str,
    name: str,
    batch_normalisation: bool,
    kernel_initializer: str | keras.initializers.Initializer,
    dtype: keras.DTypePolicy | str | None,
) -> keras.KerasTensor:
    """Add one convolution and its ReLU, with batch normalisation between them if wanted."""
    x = keras.layers.Conv2D(
        filters,
        kernel,
        padding="same",
        activation=None if batch_normalisation else "relu",
        kernel_initializer=_anew(kernel_initializer),
        data_format="channels_last",  # whatever the user's ~/.keras/keras.json says
        dtype=dtype,
        name=name,
    )(x)
    if not batch_normalisation:
        return x
    # The paper is older than batch normalisation. As in torchvision's vgg*_bn: the bias stays, so
    # the official convolutions still fit, with PyTorch's momentum and epsilon. Keras's default
    # momentum, 0.99, would take hundreds of steps to forget the initial statistics.
    x = keras.layers.BatchNormalization(
        axis=-1, momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"{name}_bn"
    )(x)
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)


def _top(
    x: keras.KerasTensor,
    top: Top,
    classes: int,
    activation: str | None,
    kernel_initializer: str | keras.initializers.Initializer,
    dtype: keras.DTypePolicy | str | None,
) -> keras.KerasTensor:
    """Add fc1, fc2 and predictions, as dense layers or as convolutions."""
    widths = (("fc1", FC_UNITS, "relu"), ("fc2", FC_UNITS, "relu"))
    layers = (*widths, ("predictions", classes, activation))
    if top == "dense":
        x = keras.layers.Flatten(data_format="channels_last", dtype=dtype, name="flatten")(x)
        for name, units, function in layers:
            x = keras.layers.Dense(
                units,
                activation=function,
                kernel_initializer=_anew(kernel_initializer),
                dtype=dtype,
                name=name,
            )(x)
        return x
    for name, units, function in layers:
        x = keras.layers.Conv2D(
            units,
            WINDOW if name == "fc1" else 1,
            activation=function,
            kernel_initializer=_anew(kernel_initializer),
            data_format="channels_last",
            dtype=dtype,
            name=name,
        )(x)
    return x


def _anew(
    initializer: str | keras.initializers.Initializer,
) -> str | keras.initializers.Initializer:
    """Return one for the next layer: an object draws the same numbers whenever it is asked."""
    return initializer if isinstance(initializer, str) else initializer.clone()


def _row_name(configuration: str) -> str:
    """Return the row of Table 1 that a name or an alias stands for."""
    row = ALIASES.get(configuration, configuration)
    if row not in CONFIGURATIONS:
        known = ", ".join([*CONFIGURATIONS, *ALIASES])
        raise UsageError(f"Expected a VGG configuration; received {configuration!r}. Use {known}.")
    return row


def _check_size(input_shape: tuple[int | None, int | None, int], top: Top, classes: int) -> None:
    """Refuse what Keras would refuse later, in words about tensors."""
    if top not in ("none", "dense", "convolutional"):
        raise UsageError(f"Expected top none, dense or convolutional; received {top!r}. Use one.")
    if classes < 1:
        raise UsageError(f"Expected one class or more; received classes={classes}. Raise it.")
    sides = input_shape[:2]
    if top == "dense" and None in sides:
        raise UsageError(
            f"Expected a fixed size below a dense top; received input_shape={input_shape}. Give "
            'height and width, or use top="convolutional".'
        )
    smallest = 32 * WINDOW if top == "convolutional" else 32  # five halvings
    if any(side is not None and side < smallest for side in sides):
        raise UsageError(
            f"Expected photos of at least {smallest}×{smallest} pixels with top={top!r}; received "
            f"input_shape={input_shape}. Enlarge them."
        )
