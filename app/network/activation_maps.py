"""Class activation maps: what each place of a photo contributes to a class's logit, exactly.

    logit = Σ over places (share of the place)

The classifier's logit is linear in √(v + o), v the pairs at unit length, o ``ROOT_OFFSET``. A root
is not linear, but √(v + o) = √o + v / (√(v + o) + √o), and v is a sum over places: so is the logit.
What no place has contributed (the bias, √o) is spread evenly. Idea: Zhou et al. 2016, "Learning
Deep Features for Discriminative Localization", section 2, where the features are averages.

They are nodes of ``model.onnx`` beside the classifier's own: no Keras is needed to ask for them.
Where many classes share a projection, the places' shares in its 64 directions are computed, and
the dense layer, which is linear, makes those of the classes of them: memory hardly grows with the
number of classes.
"""

from __future__ import annotations

import math

import keras
import numpy as np
import onnx

from app.network.bilinear_pooling import ROOT_OFFSET, TINY
from app.network.classifier import CUTS, HEAD, head_layers
from app.network.onnx_graph import Graph, value_info

OUTPUT = "activation_maps"


def add_activation_maps(graph: Graph, model: keras.Model) -> onnx.ValueInfoProto:
    """Add the output ``activation_maps``, float32 ``(batch, height, width, classes)``.

    Height and width are those of block5's map, 10 × 10 for a photo of 320 pixels. The sum over
    them is the calibrated logit. A model that looks at the mirror image too gives the mean of both
    maps, the second one turned back.

    Args:
        graph: with the nodes of ``model``, as ``app.network.onnx_graph.to_onnx`` writes them.
        model: a classifier from ``app.network.classifier``.
    """
    height, width, channels = model.get_layer(CUTS[0]).output.shape[1:]
    classes = model.get_layer(HEAD).units
    shares = _shares(graph, model, height * width, channels)
    turned = graph.node("Transpose", [shares], f"{OUTPUT}/turned", perm=[0, 2, 1])
    shape = graph.integers(f"{OUTPUT}/shape", [-1, height, width, classes])
    maps = graph.node("Reshape", [turned, shape], f"{OUTPUT}/maps")
    if any(type(operation).__name__ == "Flip" for operation in model.operations):
        maps = _mean_of_views(graph, maps, (height, width, classes))
    graph.node("Identity", [maps], OUTPUT)
    return value_info(OUTPUT, (None, height, width, classes))


def _shares(graph: Graph, model: keras.Model, places: int, channels: int) -> str:
    """Add each place's share in each logit, ``(batch, classes, places)``."""
    first, *further = head_layers(model)
    classes = first.units  # or directions that all classes share
    root_of_offset = math.sqrt(ROOT_OFFSET)

    # The weight of a pair: its weight in the head, by the root that it is divided by.
    root = graph.node("Sqrt", ["root_offset"], f"{OUTPUT}/root")
    offset = graph.constant(f"{OUTPUT}/root_of_offset", np.asarray(root_of_offset))
    divisor = graph.node("Add", [root, offset], f"{OUTPUT}/divisor")
    square = graph.integers(f"{OUTPUT}/square", [-1, 1, channels, channels])
    divisor = graph.node("Reshape", [divisor, square], f"{OUTPUT}/divisors")
    kernel = graph.node("Transpose", [f"{first.name}/kernel"], f"{OUTPUT}/kernel", perm=[1, 0])
    by_class = graph.integers(f"{OUTPUT}/by_class", [classes, channels, channels])
    kernel = graph.node("Reshape", [kernel, by_class], f"{OUTPUT}/kernels")
    weights = graph.node("Div", [kernel, divisor], f"{OUTPUT}/weights")

    # aᵀ · weights · a for the activations a of each place.
    axis = graph.integers(f"{OUTPUT}/axis", [1])
    active = graph.node("Unsqueeze", ["places", axis], f"{OUTPUT}/active")
    weighed = graph.node("MatMul", [active, weights], f"{OUTPUT}/weighed")
    products = graph.node("Mul", [weighed, active], f"{OUTPUT}/products")
    last = graph.integers(f"{OUTPUT}/last", [3])
    sums = graph.node("ReduceSum", [products, last], f"{OUTPUT}/sums", keepdims=0)

    # What was added to the pairs before they were brought to unit length, spread over the places.
    both = graph.integers(f"{OUTPUT}/both", [2, 3])
    total = graph.node("ReduceSum", [weights, both], f"{OUTPUT}/total", keepdims=0)
    tiny = graph.constant(f"{OUTPUT}/tiny", np.asarray(TINY / places))
    added = graph.node("Mul", [total, tiny], f"{OUTPUT}/added")
    each = graph.node("Unsqueeze", [added, graph.integers(f"{OUTPUT}/each", [2])], f"{OUTPUT}/even")
    sums = graph.node("Add", [sums, each], f"{OUTPUT}/with_tiny")
    length = graph.node(
        "Unsqueeze", ["pairs_of_unit_length/divisor", axis], f"{OUTPUT}/length_of_pairs"
    )
    shares = graph.node("Div", [sums, length], f"{OUTPUT}/of_unit_length")

    # √o of every pair, then the length of the roots, the bias and the temperature.
    kernel_of_features = first.get_weights()[0]
    nothing = root_of_offset * kernel_of_features.astype(np.float64).sum(axis=0) / places
    column = (1, -1, 1)
    zero = graph.constant(f"{OUTPUT}/nothing", nothing.reshape(column))
    shares = graph.node("Add", [shares, zero], f"{OUTPUT}/with_nothing")
    length = graph.node("Unsqueeze", ["features/divisor", axis], f"{OUTPUT}/length_of_roots")
    shares = graph.node("Div", [shares, length], f"{OUTPUT}/of_features")
    for layer in further:
        turned = graph.node("Transpose", [f"{layer.name}/kernel"], f"{OUTPUT}/{layer.name}/kernel")
        shares = graph.node("MatMul", [turned, shares], f"{OUTPUT}/{layer.name}")
    bias = model.get_layer(HEAD).get_weights()[1]
    spread = graph.constant(f"{OUTPUT}/bias", (bias / places).reshape(column))
    shares = graph.node("Add", [shares, spread], f"{OUTPUT}/with_bias")
    scale = graph.constant(f"{OUTPUT}/scale", np.asarray(model.get_layer("temperature").scale))
    return graph.node("Mul", [shares, scale], f"{OUTPUT}/shares")


def _mean_of_views(graph: Graph, maps: str, shape: tuple[int, int, int]) -> str:
    """Add the mean of the maps of the photos and, turned back, of their mirror images."""
    pair = graph.integers(f"{OUTPUT}/looks", [2, -1, *shape])
    tta_views = graph.node("Reshape", [maps, pair], f"{OUTPUT}/by_look")
    first, second = (
        graph.node(
            "Gather",
            [tta_views, graph.integers(f"{OUTPUT}/look_{k}", [k])],
            f"{OUTPUT}/of_look_{k}",
        )
        for k in range(2)
    )
    backwards = graph.integers(f"{OUTPUT}/backwards", range(shape[1])[::-1])
    second = graph.node("Gather", [second, backwards], f"{OUTPUT}/turned_back", axis=3)
    both = graph.node("Concat", [first, second], f"{OUTPUT}/both_looks", axis=0)
    return graph.node("ReduceMean", [both], f"{OUTPUT}/mean", axes=[0], keepdims=0)
