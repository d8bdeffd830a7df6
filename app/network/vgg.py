"""The convolutions of VGG16 and VGG19, without the dense layers above them.

Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, arXiv:1409.1556, configurations D and E of Table 1. The other configurations and the
dense layers are in ``notebooks/vgg_paper.py``, which the notebook about VGG16 uses.

Layers have the names of ``keras.applications`` (``block1_conv1`` … ``block5_pool``), so the
official weight files load, and a layer can be addressed by its block.
"""

from __future__ import annotations

from types import MappingProxyType

import keras

from app.core.config import Backbone

# The number of 3×3 convolutions in each block; every block ends in a 2×2 maximum pooling.
CONVOLUTIONS: MappingProxyType[Backbone, tuple[int, ...]] = MappingProxyType(
    {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
)
FILTERS = (64, 128, 256, 512, 512)  # the width of each block, the same in both networks


def convolution_blocks(
    x: keras.KerasTensor,
    backbone: Backbone = "vgg16",
    *,
    dtype: keras.DTypePolicy | str | None = None,
    initializer: str = "glorot_uniform",
) -> keras.KerasTensor:
    """Put the five convolution blocks of a VGG network on ``x``, with random weights.

    Use it inside a model that prepares its own input; ``app.network.pretrained_weights`` has the
    ImageNet weights.

    Args:
        x: RGB made BGR, ImageNet's mean subtracted, unscaled, floating point,
            ``(batch, height, width, 3)``; a side may be None.
        backbone: ``vgg16`` or ``vgg19``.
        dtype: Keras dtype policy of every layer, such as ``"mixed_bfloat16"``.
        initializer: of the kernels; ``"zeros"`` where other weights are set at once.

    Returns:
        The output of ``block5_pool``: ``(batch, height / 32, width / 32, 512)``, rounded down.
    """
    # Whatever the user's ~/.keras/keras.json says.
    options = {"data_format": "channels_last", "dtype": dtype}
    kernels = {"activation": "relu", "kernel_initializer": initializer}
    blocks = zip(CONVOLUTIONS[backbone], FILTERS, strict=True)
    for block, (convolutions, filters) in enumerate(blocks, start=1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(filters, 3, padding="same", name=name, **kernels, **options)(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool", **options)(x)
    return x
