"""A classifier's Keras layers → an ONNX graph, written node by node.

Keras's own export needs TensorFlow and tf2onnx; some forty nodes are written here from the weights,
the same under every backend (docs/decisions/0001-onnx-by-hand.md). Only layers that
``app.network.classifier`` uses are known; another one is an error, never a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.core.errors import ExportError

OPSET = 17  # understood by every ONNX Runtime since 1.12 (2022)
IR_VERSION = 8  # that belongs to it
LEAST_LENGTH = 1e-12  # what Keras divides by at least (keras.ops.normalize): zeros stay zeros
SUM_ROWS = 512  # sums of many numbers are added up in so many parts


class Graph:
    """Nodes and initializers on the way."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def name_of(self, operation: keras.Operation) -> str:
        """Return a name for an operation that is no layer: Keras counts them over the process."""
        plain = re.sub(r"_\d+$", "", operation.name)
        taken = {node.name for node in self.nodes}
        return next(n for n in chain([plain], (f"{plain}_{i}" for i in count(1))) if n not in taken)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a float32 constant and return its name."""
        array = np.ascontiguousarray(values, np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add an int64 constant, such as a shape, and return its name."""
        self.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


# (graph, layer, names of its inputs) → name of its output
_Writer = Callable[[Graph, keras.Layer, list[str]], str]
# (graph with the model's nodes, model) → a further output
Addition = Callable[[Graph, keras.Model], onnx.ValueInfoProto]


def to_onnx(
    model: keras.Model,
    names: Sequence[str],
    metadata: Mapping[str, str] | None = None,
    *,
    also: Sequence[Addition] = (),
) -> onnx.ModelProto:
    """Write a classifier from ``app.network.classifier``, or its prefix, as an ONNX model.

    Input ``image``: uint8 ``(batch, height, width, 3)``, RGB. Outputs: float32, channels last. An
    output named ``logits`` is followed by ``probabilities``, its softmax.

    Args:
        model: float32, of layers that this file knows.
        names: of the model's outputs, in their order.
        metadata: stored in the file, such as the class names.
        also: writers of further outputs, of nodes beside the model's own.

    Raises:
        ExportError: for a layer that this writer does not know.
    """
    graph = Graph()
    graph.node("Cast", ["image"], "image_float", to=TensorProto.FLOAT)
    # Keras computes channels last, ONNX channels first.
    places = {id(model.input): graph.node("Transpose", ["image_float"], "x", perm=[0, 3, 1, 2])}
    for layer in model.operations:  # layers, and operations such as a square root
        if not isinstance(layer, keras.layers.InputLayer):
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            write = _writer_of(layer)
            # Of several outputs the first one is used.
            first = keras.tree.flatten(layer.output)[0]
            places[id(first)] = write(graph, layer, [places[id(x)] for x in inputs])
    outputs = []
    for name, tensor in zip(names, model.outputs, strict=True):
        outputs.append(_output(graph, name, places[id(tensor)], tensor.shape))
        if name == "logits":
            graph.node("Softmax", ["logits"], "probabilities", axis=1)
            outputs.append(value_info("probabilities", tensor.shape))
    outputs += [add(graph, model) for add in also]
    image = value_info("image", model.input.shape, TensorProto.UINT8)
    proto = helper.make_model(
        helper.make_graph(graph.nodes, model.name, [image], outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cats-vs-dogs",
    )
    helper.set_model_props(proto, dict(metadata or {}))
    onnx.checker.check_model(proto)
    return proto


def output_of(cut: str) -> str:
    """Return the name that the output of a cut has: not the layer's own, which is a node's."""
    return f"at_{cut}"


def float16_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    """Leave a model the outputs ``names`` alone, in that order, and make them float16.

    What float16 cannot hold becomes the largest that it can, not infinity. ONNX Runtime rounds a
    view's 205,000 activations at block4 in 0.04 ms, NumPy in 0.35 (two Zen 5 cores).
    """
    graph = proto.graph
    shapes = {output.name: output.type.tensor_type.shape for output in graph.output}
    limit = float(np.finfo(np.float16).max)
    bounds = {"float16/lowest": -limit, "float16/highest": limit}
    for name, value in bounds.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    del graph.output[:]
    for name in names:
        clipped, rounded = f"{name}/clipped", f"{name}/float16"
        graph.node.append(helper.make_node("Clip", [name, *bounds], [clipped], name=clipped))
        cast = helper.make_node("Cast", [clipped], [rounded], name=rounded, to=TensorProto.FLOAT16)
        graph.node.append(cast)
        graph.output.append(helper.make_tensor_value_info(rounded, TensorProto.FLOAT16, None))
        graph.output[-1].type.tensor_type.shape.CopyFrom(shapes[name])


def _writer_of(layer: keras.Operation) -> _Writer:
    write = _WRITERS.get(type(layer).__name__)
    if write is None:
        raise ExportError(
            f"expected layers out of {', '.join(sorted(_WRITERS))}; "
            f"received {type(layer).__name__} ({layer.name}); add a writer "
            "to app/network/onnx_graph.py"
        )
    return write


def value_info(
    name: str, shape: Sequence[int | None], kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    """Describe an input or output; the first axis is the batch, whatever ``shape`` says."""
    return helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])


def _output(
    graph: Graph, name: str, place: str, shape: Sequence[int | None]
) -> onnx.ValueInfoProto:
    if len(shape) == 4:
        graph.node("Transpose", [place], name, perm=[0, 2, 3, 1])
    else:
        graph.node("Identity", [place], name)
    return value_info(name, shape)


def _convolution(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    sizes = {*layer.strides, *layer.dilation_rate, layer.groups}
    if layer.padding != "same" or sizes != {1} or any(k % 2 == 0 for k in layer.kernel_size):
        raise ExportError(
            f"expected {layer.name} with an odd kernel, padding same, and stride, dilation and "
            "groups 1; received others; add them to app/network/onnx_graph.py"
        )
    kernel, bias = layer.get_weights()
    # H, W, in, out → out, in, H, W
    weights = graph.constant(f"{layer.name}/kernel", kernel.transpose(3, 2, 0, 1))
    biases = graph.constant(f"{layer.name}/bias", bias)
    margin = [(size - 1) // 2 for size in layer.kernel_size]
    output = graph.node("Conv", [*inputs, weights, biases], layer.name, pads=margin * 2)
    return _activation(graph, layer, output)


def _activation(graph: Graph, layer: keras.Layer, name: str) -> str:
    if layer.activation is keras.activations.linear:
        return name
    if layer.activation is keras.activations.relu:
        return graph.node("Relu", [name], f"{name}/relu")
    raise ExportError(
        f"expected the activation linear or relu; received {layer.activation.__name__} in "
        f"{layer.name}; add it to app/network/onnx_graph.py"
    )


def _pooling(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if layer.padding != "valid":
        raise ExportError(f"expected {layer.name} with padding valid; received {layer.padding}")
    return graph.node(
        "MaxPool",
        inputs,
        layer.name,
        kernel_shape=list(layer.pool_size),
        strides=list(layer.strides),
    )


def _places(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if len(layer.target_shape) != 2:
        raise ExportError(f"expected {layer.name} to make places; received {layer.target_shape}")
    last = graph.node("Transpose", inputs, f"{layer.name}/last", perm=[0, 2, 3, 1])
    shape = graph.integers(f"{layer.name}/shape", [0, *layer.target_shape])
    return graph.node("Reshape", [last, shape], layer.name)


def _dot(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if layer.axes != 1 or layer.normalize:
        raise ExportError(f"expected {layer.name} along axis 1; received {layer.axes}")
    first, second = inputs
    turned = graph.node("Transpose", [first], f"{layer.name}/turned", perm=[0, 2, 1])
    return graph.node("MatMul", [turned, second], layer.name)


def _flatten(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if len(layer.input.shape) != 3:  # of a map, ONNX would flatten the channels first
        raise ExportError(f"expected {layer.name} after a matrix; received {layer.input.shape}")
    return graph.node("Flatten", inputs, layer.name, axis=1)


def _unit_length(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if layer.axis != -1:
        raise ExportError(f"expected {layer.name} along the last axis; received {layer.axis}")
    # In two steps: ONNX Runtime adds up one by one, and 262,144 squares in float32 came out
    # 3e-4 too small, which moved a probability by 4e-4.
    rows = math.gcd(layer.input.shape[-1], SUM_ROWS)
    shape = graph.integers(f"{layer.name}/rows", [0, rows, -1])
    parts = graph.node("Reshape", [*inputs, shape], f"{layer.name}/parts")
    squares = graph.node("ReduceSumSquare", [parts], f"{layer.name}/squares", axes=[2], keepdims=0)
    axis = graph.integers(f"{layer.name}/axis", [1])
    total = graph.node("ReduceSum", [squares, axis], f"{layer.name}/total", keepdims=1)
    length = graph.node("Sqrt", [total], f"{layer.name}/length")
    least = graph.constant(f"{layer.name}/least", np.asarray(LEAST_LENGTH))
    length = graph.node("Max", [length, least], f"{layer.name}/divisor")
    return graph.node("Div", [*inputs, length], layer.name)


def _strongest(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if layer.keepdims:
        raise ExportError(f"expected {layer.name} without keepdims; received {layer.keepdims}")
    return graph.node("ReduceMax", inputs, layer.name, axes=[2, 3], keepdims=0)


def _top_k(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    name = graph.name_of(layer)
    count = graph.integers(f"{name}/count", [layer.k])
    outputs = [f"{name}/values", f"{name}/indices"]
    node = helper.make_node("TopK", [*inputs, count], outputs, name=name, axis=-1)
    graph.nodes.append(node)
    return outputs[0]


def _sigmoid(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    if layer.activation is not keras.activations.sigmoid:
        raise ExportError(
            f"expected the activation sigmoid; received {layer.activation.__name__} in "
            f"{layer.name}; add it to app/network/onnx_graph.py"
        )
    return graph.node("Sigmoid", inputs, f"{layer.name}/sigmoid")


def _concatenate(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    name = graph.name_of(layer)
    if layer.axis != 0:
        raise ExportError(f"expected {name} to join batches; received axis {layer.axis}")
    return graph.node("Concat", inputs, name, axis=0)


def _mirror(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    name = graph.name_of(layer)
    if layer.axis != 2:
        raise ExportError(f"expected {name} along the width, axis 2; received {layer.axis}")
    # Backwards from the last column to before the first one; the width is ONNX's axis 3.
    ends = {"starts": -1, "ends": np.iinfo(np.int64).min, "axes": 3, "steps": -1}
    names = [graph.integers(f"{name}/{end}", [value]) for end, value in ends.items()]
    return graph.node("Slice", [*inputs, *names], name)


def _reshape(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    """Write the layer, which makes a map a list of places, or the operation."""
    if isinstance(layer, keras.layers.Reshape):
        return _places(graph, layer, inputs)
    name = graph.name_of(layer)
    shape = graph.integers(f"{name}/shape", layer.newshape)
    return graph.node("Reshape", [*inputs, shape], name)


def _maximum(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    return graph.node("Max", inputs, layer.name)


def _mean(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    name = graph.name_of(layer)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return graph.node("ReduceMean", inputs, name, axes=axes, keepdims=int(layer.keepdims))


def _dense(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    kernel, *bias = layer.get_weights()
    weights = [graph.constant(f"{layer.name}/kernel", kernel)]
    weights += [graph.constant(f"{layer.name}/bias", values) for values in bias]
    return _activation(graph, layer, graph.node("Gemm", [*inputs, *weights], layer.name))


def _rescaling(graph: Graph, layer: keras.Layer, inputs: list[str]) -> str:
    scale = graph.constant(f"{layer.name}/scale", np.asarray(layer.scale))
    offset = graph.constant(f"{layer.name}/offset", np.asarray(layer.offset))
    scaled = graph.node("Mul", [*inputs, scale], f"{layer.name}/scaled")
    return graph.node("Add", [scaled, offset], layer.name)


def _square_root(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    name = graph.name_of(layer)
    return graph.node("Sqrt", inputs, name)


# By class name: Keras does not export the classes of its operations.
_WRITERS: dict[str, _Writer] = {
    "Conv2D": _convolution,
    "MaxPooling2D": _pooling,
    "Dot": _dot,
    "Flatten": _flatten,
    "UnitNormalization": _unit_length,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Rescaling": _rescaling,
    "Sqrt": _square_root,
    "Flip": _mirror,
    "Reshape": _reshape,
    "Mean": _mean,
    "GlobalMaxPooling2D": _strongest,
    "TopK": _top_k,
    "Maximum": _maximum,
    "Activation": _sigmoid,
}
