"""The network of a bundle, as its ONNX file has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.report.results import Block, read_blocks


def small_network(path: Path) -> Path:
    """Write two convolutions and a pooling, named as a bundle's are, with a layer beside them."""
    kernels = {"block1_conv1": (4, 3, 3, 3), "block1_conv2": (6, 4, 3, 3)}
    arrays = {f"{name}/kernel": np.ones(shape, np.float32) for name, shape in kernels.items()}
    arrays |= {f"{name}/bias": np.ones(shape[0], np.float32) for name, shape in kernels.items()}
    pads = {"pads": [1, 1, 1, 1]}
    nodes, given = [], "x"
    for name in kernels:
        inputs = [given, f"{name}/kernel", f"{name}/bias"]
        nodes.append(helper.make_node("Conv", inputs, [given := f"{name}/y"], name=name, **pads))
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes.append(helper.make_node("MaxPool", [given], ["pooled"], name="block1_pool", **pooling))
    nodes.append(helper.make_node("Identity", ["pooled"], ["answer"]))
    arrays["dense/kernel"] = np.ones((6, 2), np.float32)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_blocks_are_told_with_their_weights_and_what_they_give(tmp_path: Path) -> None:
    weights = 4 * 3 * 9 + 4 + 6 * 4 * 9 + 6
    assert read_blocks(small_network(tmp_path / "model.onnx")) == [
        Block("block1", convolutions=2, weights=weights, output=(6, 4, 4))
    ]


def test_nothing_is_told_of_a_file_that_is_gone_or_damaged(tmp_path: Path) -> None:
    assert read_blocks(tmp_path / "model.onnx") == []
    (tmp_path / "model.onnx").write_bytes(b"no network")
    assert read_blocks(tmp_path / "model.onnx") == []
