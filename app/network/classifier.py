"""The classifier: preprocessing, a VGG backbone that can be cut at a block, and a linear head.

    image (RGB 0–255) → preprocessing → block1 … block5 → second-order pooling
                      → (projection, of many classes) → dense → ÷ temperature

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

from app.core.config import Backbone, Stage
from app.core.console import say
from app.evaluation.ood import KnnOodDetector
from app.network.bilinear_pooling import FEATURES, bilinear_pooling
from app.network.pretrained_weights import (
    RANDOM_WEIGHTS_WARNING,
    load_weights,
    set_weights,
    tensor_digest,
)
from app.network.vgg import convolution_blocks

# ImageNet's mean colour (blue, green, red), as subtracted when VGG was trained
# (keras.applications.imagenet_utils, mode "caffe").
MEAN_BGR = (103.939, 116.779, 123.68)
HEAD = "dense"
PROJECTION = "projection"  # the layer below it, of more than ``MOST_FULL_CLASSES`` classes
# A class of its own kernel takes 262,144 numbers, 1 MB. More classes than these share as many
# directions: the files then hardly grow with the number of classes (docs/experiments.md).
MOST_FULL_CLASSES = 64
REFERENCE = "similarity"  # the dense layer that holds the photos novelty compares with
OUTLIERS = "outliers"  # the dense layer that holds what was learned from photos of neither
LAST = "channels_last"  # whatever the user's ~/.keras/keras.json says

# Layers whose output can be cached.
CUTS = ("block5_pool", "block4_pool", "block3_pool")


def build_classifier(
    num_classes: int,
    *,
    image_size: int,
    backbone: Backbone = "vgg16",
    precision: str = "float32",
    temperature: float = 1.0,
    mirror: bool = False,
    novelty: KnnOodDetector | None = None,
    initializer: str = "glorot_uniform",
) -> keras.Model:
    """Build the whole network, with random weights in the backbone and zeros in the head.

    On the pooled features (``app.network.bilinear_pooling``) stands one dense layer: softmax
    regression, a convex problem that ``app.training.linear_probe`` solves. Of more than 64 classes
    a projection onto 64 directions, which all classes share, lies between the two.

    Args:
        num_classes: width of the answer, 2 or more.
        image_size: height and width of the input in pixels.
        backbone: ``vgg16`` or ``vgg19``.
        precision: ``float32`` or ``bfloat16``, of the backbone's arithmetic; its variables and the
            head are float32 in both cases.
        temperature: the logits are divided by it (see ``app.evaluation.calibration``).
        mirror: test-time augmentation: predict the photo and its mirror image, and average the
            logits, for twice the time. For the served model.
        novelty: what photos of no class are told by. For the served model.
        initializer: of the backbone's kernels; ``"zeros"`` where other weights are set at once.
            XLA takes 2.6 s on a GPU to compile the random ones.

    Returns:
        A model from ``(batch, image_size, image_size, 3)`` RGB 0–255 (any dtype) to float32
        calibrated logits ``(batch, num_classes)``; with ``novelty`` to a dictionary of ``logits``
        and ``novelty`` ``(batch, 1)``, 0 to 1.
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
    maps = convolution_blocks(x, backbone, dtype=policy, initializer=initializer)
    features = bilinear_pooling(maps)
    x = features
    if num_classes > MOST_FULL_CLASSES:
        x = layers.Dense(
            MOST_FULL_CLASSES,
            use_bias=False,
            kernel_initializer="zeros",
            name=PROJECTION,
            dtype="float32",
        )(x)
    x = layers.Dense(num_classes, kernel_initializer="zeros", name=HEAD, dtype="float32")(x)
    x = layers.Rescaling(1.0 / temperature, name="temperature", dtype="float32")(x)
    if mirror:
        x = _mean_of_views(x)
    answer = x
    if novelty is not None:
        answer = {"logits": x, "novelty": _novelty_layers(maps, novelty, mirror=mirror)}
    model = keras.Model(image, answer, name=f"{backbone}_classifier")
    _set_preprocessing(model)
    if novelty is not None:
        model.get_layer(REFERENCE).set_weights([novelty.reference.T])
        if novelty.outliers is not None:
            model.get_layer(OUTLIERS).set_weights(
                [novelty.outliers.weights[:, None], np.array([novelty.outliers.bias])]
            )
    return model


def load_classifier(
    num_classes: int,
    *,
    image_size: int,
    backbone: Backbone,
    precision: str,
    weights: str | None,
    seed: int,
) -> tuple[keras.Model, str]:
    """Build the classifier and set the backbone's weights.

    Args:
        num_classes: as for ``build_classifier``, like the next three.
        image_size: in pixels.
        backbone: ``vgg16`` or ``vgg19``.
        precision: ``float32`` or ``bfloat16``.
        weights: a file, ``none`` for random ones, None to find the official ones.
        seed: of random numbers from here on.

    Returns:
        The model, and the digest of its backbone's weights.
    """
    keras.utils.set_random_seed(seed)
    model = build_classifier(
        num_classes,
        image_size=image_size,
        backbone=backbone,
        precision=precision,
        initializer="glorot_uniform" if weights == "none" else "zeros",
    )
    if weights != "none":
        loaded = load_weights(backbone, weights)
        set_weights(model, loaded)
        return model, loaded.digest
    say(RANDOM_WEIGHTS_WARNING)
    blocks = [layer for layer in model.layers if "_conv" in layer.name]
    return model, tensor_digest(
        {
            f"{layer.name}/{kind}": array
            for layer in blocks
            for kind, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)
        }
    )


def prefix(model: keras.Model, cuts: Sequence[str]) -> keras.Model:
    """Return the frozen lower part: images → the activations at each of ``cuts``."""
    return keras.Model(model.input, [model.get_layer(cut).output for cut in cuts])


def suffix(model: keras.Model, cut: str) -> keras.Model:
    """Return the upper part: activations at ``cut`` → logits. Shares its weights with ``model``."""
    return keras.Model(model.get_layer(cut).output, model.output)


def logits_and_embeddings(model: keras.Model, cut: str | None) -> keras.Model:
    """Return activations at ``cut``, or pixels where it is None → logits and embeddings.

    Embeddings, float32 ``(n, 512)``, are what ``app.evaluation.ood`` compares.
    """
    start = model.input if cut is None else model.get_layer(cut).output
    maps = model.get_layer(CUTS[0]).output
    return keras.Model(start, [model.output, _embeddings(maps)])


def pooling_part(model: keras.Model) -> keras.Model:
    """Return the layers from ``block5_pool`` to what the head sees, float32 ``(n, 512 · 512)``."""
    return keras.Model(model.get_layer(CUTS[0]).output, model.get_layer(FEATURES).output)


def row_bytes(model: keras.Model, cuts: Sequence[str]) -> int:
    """Return what one view takes in the cache, at 2 bytes (float16) a number."""
    shapes = (model.get_layer(cut).output.shape[1:] for cut in cuts)
    return sum(2 * math.prod(shape) for shape in shapes)


def open_layers(model: keras.Model, stage: Stage) -> int:
    """Make exactly what ``stage`` trains trainable; return how many numbers that is.

    That is the head, or the blocks that the stage opens below the head, which then stays as it was
    solved: Adam's steps are equally long for each of its half a million small numbers, and would
    throw the answers about.

    A model compiled before must be compiled again.
    """
    opened = stage.opens or (PROJECTION, HEAD)
    for layer in model.layers:
        layer.trainable = layer.name.split("_")[0] in opened
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers from the features to the logits: the dense one, or the projection first."""
    names = [PROJECTION, HEAD] if has_projection(model) else [HEAD]
    return [model.get_layer(name) for name in names]


def has_projection(model: keras.Model) -> bool:
    """Say whether the classes share directions: of more than ``MOST_FULL_CLASSES`` they do."""
    return any(layer.name == PROJECTION for layer in model.layers)


def set_head(
    model: keras.Model,
    kernel: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]],
    projection: NDArray[np.floating[Any]] | None = None,
) -> None:
    """Set the layers from the features to the logits.

    Args:
        model: the classifier.
        kernel: ``(features, classes)``; above a projection ``(64, classes)``.
        bias: ``(classes,)``.
        projection: ``(features, 64)`` where the model has one.
    """
    model.get_layer(HEAD).set_weights([kernel, bias])
    if projection is not None:
        model.get_layer(PROJECTION).set_weights([projection])


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy all weights of a classifier into one that differs in what it is served with only."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def _embeddings(maps: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.GlobalMaxPooling2D(data_format=LAST, name="strongest", dtype="float32")(
        maps
    )


def _novelty_layers(
    maps: keras.KerasTensor, novelty: KnnOodDetector, *, mirror: bool
) -> keras.KerasTensor:
    """Write ``KnnOodDetector.of`` as layers."""
    layers = keras.layers
    embeddings = layers.UnitNormalization(name="descriptor", dtype="float32")(_embeddings(maps))
    count = len(novelty.reference)
    x = layers.Dense(count, use_bias=False, trainable=False, name=REFERENCE, dtype="float32")(
        embeddings
    )
    x, _ = keras.ops.top_k(x, novelty.neighbours)
    x = keras.ops.mean(x, axis=-1, keepdims=True)  # of the cosines
    if mirror:
        x = _mean_of_views(x)
    scale, offset = -1 / novelty.scale, (1 - novelty.threshold) / novelty.scale
    x = layers.Rescaling(scale, offset=offset, name="beyond_threshold", dtype="float32")(x)
    if novelty.outliers is not None:
        y = layers.Dense(1, trainable=False, name=OUTLIERS, dtype="float32")(embeddings)
        if mirror:
            y = _mean_of_views(y)
        x = layers.Maximum(name="either", dtype="float32")([x, y])
    return layers.Activation("sigmoid", name="novelty", dtype="float32")(x)


def _mean_of_views(x: keras.KerasTensor) -> keras.KerasTensor:
    """Average the outputs for the images with those for their mirror images."""
    return keras.ops.mean(keras.ops.reshape(x, (2, -1, x.shape[-1])), axis=0)


def _with_mirror_images(images: keras.KerasTensor) -> keras.KerasTensor:
    """Return a batch twice as long: the images, then their mirror images."""
    return keras.ops.concatenate([images, keras.ops.flip(images, axis=2)], axis=0)


def _set_preprocessing(model: keras.Model) -> None:
    """RGB → BGR without ImageNet's mean, written as a 1×1 convolution: a standard layer.

    Exact: each output is one input times 1, plus zeros, minus the mean. Folding it into
    block1_conv1 would not be, since that layer pads the picture with zeros *after* the mean.
    """
    reverse = np.eye(3, dtype="float32")[::-1].reshape(1, 1, 3, 3)
    model.get_layer("preprocessing").set_weights([reverse, -np.array(MEAN_BGR, "float32")])
