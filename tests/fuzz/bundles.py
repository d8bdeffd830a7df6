"""Bundle → classifier: ``python -m tests.fuzz.bundles --steps 100000``.

Every step breaks ``bundle.json`` or ``model.onnx``, or both. In most of them the digests are made
to fit again, as one who means harm would do. It must end with a classifier that answers, or with
a ``BundleError``.
"""

from __future__ import annotations

import functools
import json
import random
import re
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from .mutations import mutated
from .runner import Target, main

SIZE = 8
VALUES = [
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "NaN",
    '""',
    "[]",
    "{}",
    '"x"',
    "99999999999999",
    "[[]]",
]


@functools.cache
def small_model(output: str = "probabilities", classes: int = 2) -> bytes:
    """Return a network of one layer of each kind that ours have."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    generator = np.random.default_rng(0)
    constants = {
        "kernel": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bias": np.zeros(4, np.float32),
        "weights": generator.normal(size=(4, classes)).astype(np.float32),
        "zeros": np.zeros(classes, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["number"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel", "bias"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["above"]),
        helper.make_node("MaxPool", ["above"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["pooled"], ["average"]),
        helper.make_node("Flatten", ["average"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "zeros"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output]),
        helper.make_node("ReduceMax", ["flat"], ["largest"], axes=[1], keepdims=1),
        helper.make_node("Sigmoid", ["largest"], ["novelty"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", classes]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n", 1]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def description(onnx_bytes: bytes) -> bytes:
    """Return a right ``bundle.json`` for a model."""
    from app.inference.bundle_format import FORMAT_VERSION, Bundle

    thresholds = {"confidence": 0.0, "novelty": 0.5}
    values = Bundle(
        FORMAT_VERSION, ("cat", "dog"), SIZE, 1.0, thresholds, {}, {"keras": "3"}, ""
    ).__dict__
    digests = {"model.onnx": sha256(onnx_bytes).hexdigest()}
    return json.dumps({**values, "sha256": digests}).encode()


def make(step: int) -> bytes:
    """Return the input of a step: both files, with the length of the first before them."""
    source = random.Random(step)
    onnx_bytes = small_model()
    if source.random() < 0.7:
        onnx_bytes = mutated(onnx_bytes, [onnx_bytes], source)
    about = description(onnx_bytes if source.random() < 0.9 else small_model())
    if source.random() < 0.3:
        about = mutated(about, [about, b'{"a":[1,2]}'], source)
    elif source.random() < 0.3:  # another value of a field, in JSON that is whole
        places = [match.span(1) for match in re.finditer(rb": ([^,{}\[\]]+)", about)]
        start, end = source.choice(places)
        about = about[:start] + source.choice(VALUES).encode() + about[end:]
    return len(about).to_bytes(4, "big") + about + onnx_bytes


def check(data: bytes) -> str:
    """Ask the classifier of one bundle; return ``answers`` or ``refused``."""
    import numpy as np

    from app.core.errors import BundleError
    from app.inference.predictor import Classifier

    end = 4 + int.from_bytes(data[:4], "big")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bundle.json").write_bytes(data[4:end])
        (folder / "model.onnx").write_bytes(data[end:])
        try:
            classifier = Classifier(folder)
            size = min(classifier.bundle.image_size, 64)
            classifier.outputs(np.zeros((2, size, size, 3), np.uint8))
        except BundleError as error:
            if not str(error).strip():
                raise ValueError("no reason") from error
            return "refused"
    return "answers"


if __name__ == "__main__":
    sys.exit(main(Target("tests.fuzz.bundles", make, check)))
