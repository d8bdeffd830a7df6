"""A bundle's network, part by part, as its ONNX file has it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

_CONVOLUTION = re.compile(r"(block\d+)_conv\d+/(kernel|bias)")


@dataclass(frozen=True)
class Block:
    """A block of the backbone.

    Attributes:
        name: ``block1``, ``block2``, ...
        convolutions: how many there are in it.
        weights: trained or frozen numbers in them.
        output: (channels, height, width) that the block gives for one photo, after its pooling.
    """

    name: str
    convolutions: int
    weights: int
    output: tuple[int, ...]


def read_blocks(model: Path) -> list[Block]:
    """Return the blocks of an ONNX file that this project has written, from the photo upwards.

    Empty when there is no such file, or it cannot be read.
    """
    import onnx  # here, because only this needs it

    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
    # A damaged file may raise nearly anything: protobuf's errors have no public root.
    except Exception:
        return []
    found: dict[str, list[tuple[str, int]]] = {}
    for tensor in graph.initializer:
        if match := _CONVOLUTION.fullmatch(tensor.name):
            found.setdefault(match[1], []).append((match[2], math.prod(tensor.dims)))
    shapes = {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    pooled = {node.name: shapes.get(node.output[0], ()) for node in graph.node}
    return [
        Block(
            name,
            sum(kind == "kernel" for kind, _ in arrays),
            sum(count for _, count in arrays),
            pooled.get(f"{name}_pool", ())[1:],
        )
        for name, arrays in found.items()
    ]
