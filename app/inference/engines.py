"""One small interface to what runs an ONNX model: ONNX Runtime, or OpenVINO.

``compile_model`` prepares a model once; the result runs batches. Both compute in the numbers that
the model names (int8 where it is quantised, else float32), and both see all cores. Which of the two
is faster depends on the processor: ``app.inference.engine_choice`` measures it.

An engine's package is imported with its first model: ONNX Runtime takes 0.1 s, OpenVINO as long.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.config import EngineName

_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_TELEMETRY = "openvino_telemetry"
EXTERNAL_DATA = "external data"  # in the message of an engine that refuses it

Arrays = list[NDArray[Any]]


class CompiledModel(ABC):
    """A model, ready to run; to be used by one thread at a time.

    Attributes:
        engine: that runs it.
    """

    engine: EngineName

    @abstractmethod
    def run(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        """Return the outputs ``names`` for a batch; others are not computed.

        Args:
            images: for the model's only input, ``(n, ...)``, of its dtype.
            names: of outputs.

        Raises:
            Exception: of the engine, when the model does not run on them. None of the engines has
                exceptions of its own.
        """


def compile_model(
    engine: EngineName, model: Path | bytes, threads: int | None = None
) -> CompiledModel:
    """Prepare a model to run.

    Args:
        engine: whose package is installed (``app.core.environment.require_engine``).
        model: the file, or what it holds: ONNX with one input. It holds its weights itself.
        threads: that compute; default: one for each core.

    Raises:
        Exception: of the engine, when it cannot run such a model; with ``external data`` in its
            message when the weights lie elsewhere: no digest covers them.
    """
    prepare = _OpenvinoModel if engine == "openvino" else _OnnxRuntimeModel
    return prepare(model, threads)


class _OnnxRuntimeModel(CompiledModel):
    engine = "onnxruntime"

    def __init__(self, model: Path | bytes, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 4  # errors come as exceptions; on stderr they would be twice
        # Its threads sleep while they wait: to spin they would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights beside the model are covered by no digest; in this place there are none.
        options.add_session_config_entry(_EXTERNAL_DATA_FOLDER, os.devnull)
        self._asked_for_only = onnxruntime.RunOptions()
        self._asked_for_only.only_execute_path_to_fetches = True  # maps cost time and memory
        self._session = onnxruntime.InferenceSession(
            _source(model),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # to the same provider, after words on stdout
        )
        (self._input,) = (each.name for each in self._session.get_inputs())

    def run(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        return list(self._session.run(list(names), {self._input: images}, self._asked_for_only))


def _source(model: Path | bytes) -> str | bytes:
    """Return what ONNX Runtime reads: the path, or of one that is no UTF-8 the file's content."""
    if isinstance(model, bytes):
        return model
    try:
        str(model).encode()
    except UnicodeEncodeError:
        return model.read_bytes()
    return str(model)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry.

    By itself the import writes two files into the user's home, and tells Google Analytics of it
    unless the user opted out. Without that package, which is optional to it, it does neither, and
    takes half the time.
    """
    before = sys.modules.get(_TELEMETRY)
    if before is None:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it is an ImportError
    try:
        import openvino
    finally:
        if before is None:
            del sys.modules[_TELEMETRY]
    module: ModuleType = openvino
    return module


# By itself OpenVINO takes bfloat16 where the processor has it, and binds its threads to cores, on
# which photos are decoded meanwhile.
_OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}


class _OpenvinoModel(CompiledModel):
    """OpenVINO computes all outputs of a model, so each set of outputs is a model of its own."""

    engine = "openvino"

    def __init__(self, model: Path | bytes, threads: int | None) -> None:
        self._settings = _OPENVINO_SETTINGS | (
            {"INFERENCE_NUM_THREADS": threads} if threads else {}
        )
        self._openvino = import_openvino()
        data = model if isinstance(model, bytes) else model.read_bytes()
        _refuse_external_data(data)
        self._core = self._openvino.Core()
        self._model = self._core.read_model(data)
        self._requests: dict[tuple[str, ...], Any] = {}

    def run(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        wanted = tuple(names)
        if wanted not in self._requests:
            self._requests[wanted] = self._compiled(wanted)
        results = self._requests[wanted].infer([images], share_inputs=True)
        return [results[number] for number in range(len(wanted))]

    def _compiled(self, names: tuple[str, ...]) -> Any:
        """Return what computes these outputs, in this order, and no others."""
        by_name = {
            name: result for result in self._model.get_results() for name in result.output(0).names
        }
        some = self._openvino.Model(
            [by_name[name] for name in names], self._model.get_parameters(), "some"
        )
        return self._core.compile_model(some, "CPU", self._settings).create_infer_request()


def _refuse_external_data(model: bytes) -> None:
    """Raise ``ValueError`` for weights outside the file, which OpenVINO would read."""
    import onnx

    graph = onnx.load_model_from_string(model).graph
    constants = (
        attribute.t
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    )
    if any(tensor.external_data for tensor in (*graph.initializer, *constants)):
        raise ValueError(f"a model with {EXTERNAL_DATA}")
