"""The classifier: preprocessing, a VGG backbone that can be cut at a block, and a linear head.

    image (RGB 0–255) → preprocessing → block1 … block5 → average ‖ maximum → square root
                      → standardise → dropout → dense → ÷ temperature

One functional model of standard layers. ``prefix`` and ``suffix`` are the same layers cut in two,
so what is trained in a piece is trained in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from app.config import Backbone, Stage
from app.vgg import convolution_blocks

# ImageNet's mean colour (blue, green, red), as subtracted when VGG was trained
# (keras.applications.imagenet_utils, mode "caffe").
MEAN_BGR = (103.939, 116.779, 123.68)
# Added before the square root, whose slope at 0 is infinite. Features reach from 0 to some hundred;
# 0.01 and 0.1 did as well on validation (docs/experiments.md).
ROOT_OFFSET = 0.1
HEAD = "dense"
LAST = "channels_last"  # whatever the user's ~/.keras/keras.json says

# A cut and the layer whose output is cached for it.
CUTS = {"pooled": "features", "block4_pool": "block4_pool", "block3_pool": "block3_pool"}


def build_classifier(
    num_classes: int,
    *,
    image_size: int,
    backbone: Backbone = "vgg16",
    head_dropout: float = 0.5,
    precision: str = "float32",
    temperature: float = 1.0,
    mirror: bool = False,
) -> keras.Model:
    """Build the whole network, with random weights in the backbone and zeros in the head.

    The head is one dense layer on the standardised square roots of the pooled features: softmax
    regression, a convex problem that ``app.head`` solves. The root keeps a few very large
    activations from drowning the others ("signed square root", Perronnin, Sánchez & Mensink 2010).

    Args:
        num_classes: width of the answer, 2 or more.
        image_size: height and width of the input in pixels.
        backbone: ``vgg16`` or ``vgg19``.
        head_dropout: share of the features hidden at each training step.
        precision: ``float32`` or ``bfloat16``, of the backbone's arithmetic; its variables and the
            head are float32 in both cases.
        temperature: the logits are divided by it (see ``app.calibration``).
        mirror: look at the photo and at its mirror image, and average the logits: fewer mistakes
            (16 instead of 21 of 1,477, docs/experiments.md) for twice the time. For the served
            model.

    Returns:
        A model from ``(batch, image_size, image_size, 3)`` RGB 0–255 (any dtype) to float32
        calibrated logits ``(batch, num_classes)``.
    """
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    layers = keras.layers
    image = keras.Input((image_size, image_size, 3), dtype="float32", name="image")
    x = layers.Conv2D(
        3,
        1,
        padding="same",
        data_format=LAST,
        trainable=False,
        name="preprocessing",
        dtype="float32",
    )(_with_mirror_images(image) if mirror else image)
    x = convolution_blocks(x, backbone, dtype=policy)
    average = layers.GlobalAveragePooling2D(LAST, name="average", dtype="float32")(x)
    maximum = layers.GlobalMaxPooling2D(LAST, name="maximum", dtype="float32")(x)
    x = layers.Concatenate(name="features", dtype="float32")([average, maximum])
    x = layers.Rescaling(1.0, offset=ROOT_OFFSET, name="root_offset", dtype="float32")(x)
    x = keras.ops.sqrt(x)
    # Fixed once from the training features; the layer's standard inference mode is what is meant.
    # 1e-3: a feature that training hardly ever saw must not explode when it appears.
    x = layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-3, trainable=False, name="standardise"
    )(x)
    x = layers.Dropout(head_dropout, name="dropout", dtype="float32")(x)
    x = layers.Dense(num_classes, kernel_initializer="zeros", name=HEAD, dtype="float32")(x)
    x = layers.Rescaling(1.0 / temperature, name="temperature", dtype="float32")(x)
    if mirror:
        x = keras.ops.mean(keras.ops.reshape(x, (2, -1, num_classes)), axis=0)
    model = keras.Model(image, x, name=f"{backbone}_classifier")
    _set_preprocessing(model)
    return model


def prefix(model: keras.Model, cuts: Sequence[str]) -> keras.Model:
    """Return the frozen lower part: images → the activations at each of ``cuts``."""
    return keras.Model(model.input, [model.get_layer(CUTS[cut]).output for cut in cuts])


def suffix(model: keras.Model, cut: str) -> keras.Model:
    """Return the upper part: activations at ``cut`` → logits. Shares its weights with ``model``."""
    return keras.Model(model.get_layer(CUTS[cut]).output, model.output)


def row_bytes(model: keras.Model, cuts: Sequence[str]) -> int:
    """Return what one view takes in the cache, at 2 bytes (float16) a number."""
    shapes = (model.get_layer(CUTS[cut]).output.shape[1:] for cut in cuts)
    return sum(2 * math.prod(shape) for shape in shapes)


def open_layers(model: keras.Model, stage: Stage) -> int:
    """Make exactly the head and the blocks of ``stage`` trainable; return how many numbers that is.

    A model compiled before must be compiled again.
    """
    for layer in model.layers:
        opened = layer.name.split("_")[0] in stage.opens
        layer.trainable = opened or layer.name == HEAD
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def set_standardisation(model: keras.Model, features: NDArray[np.floating[Any]]) -> None:
    """Fix the head's standardisation to the mean and variance of the training features.

    Args:
        model: from ``build_classifier``.
        features: ``(views, 1024)``, the activations at the cut ``pooled``.
    """
    standardise = model.get_layer("standardise")
    roots = _between(model, CUTS["pooled"], standardise.input, features)
    standardise.set_weights([roots.mean(axis=0), roots.var(axis=0)])


def head_inputs(model: keras.Model, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return what the dense layer sees of pooled features, dropout aside: float32, same shape."""
    return _between(model, CUTS["pooled"], model.get_layer("standardise").output, features)


def set_head(
    model: keras.Model, kernel: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]]
) -> None:
    """Set the dense layer: ``kernel`` ``(1024, classes)``, ``bias`` ``(classes,)``."""
    model.get_layer(HEAD).set_weights([kernel, bias])


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy all weights between two classifiers that differ in precision or temperature only."""
    target.set_weights(source.get_weights())


def _with_mirror_images(images: keras.KerasTensor) -> keras.KerasTensor:
    """Return a batch twice as long: the images, then their mirror images."""
    return keras.ops.concatenate([images, keras.ops.flip(images, axis=2)], axis=0)


def _between(
    model: keras.Model, layer: str, end: keras.KerasTensor, values: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Run the layers after ``layer`` up to the tensor ``end``."""
    part = keras.Model(model.get_layer(layer).output, end)
    return np.asarray(part.predict(values, batch_size=4096, verbose=0), np.float32)


def _set_preprocessing(model: keras.Model) -> None:
    """RGB → BGR without ImageNet's mean, written as a 1×1 convolution: a standard layer.

    Exact: each output is one input times 1, plus zeros, minus the mean. Folding it into
    block1_conv1 would not be, since that layer pads the picture with zeros *after* the mean.
    """
    reverse = np.eye(3, dtype="float32")[::-1].reshape(1, 1, 3, 3)
    model.get_layer("preprocessing").set_weights([reverse, -np.array(MEAN_BGR, "float32")])
