"""A bundle that others have written: used as it describes itself, or refused in one line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.core.errors import BundleError
from app.inference.bundle_format import FORMAT_VERSION, Bundle
from app.inference.predictor import Classifier
from tests.fuzz.bundles import SIZE, description, small_model


def make_bundle(folder: Path, **model: Any) -> dict[str, Any]:
    """Write a bundle; return what its description says."""
    onnx_bytes = small_model(**model)
    (folder / "model.onnx").write_bytes(onnx_bytes)
    (folder / "bundle.json").write_bytes(description(onnx_bytes))
    described: dict[str, Any] = json.loads(description(onnx_bytes))
    return described


def describe(folder: Path, values: object) -> None:
    (folder / "bundle.json").write_text(json.dumps(values))


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return make_bundle(tmp_path)


def test_a_sound_bundle_answers(tmp_path: Path, values: dict[str, Any]) -> None:
    assert Bundle.read(tmp_path).classes == ("cat", "dog")
    answers, novelty = Classifier(tmp_path).outputs(np.zeros((3, SIZE, SIZE, 3), np.uint8))
    assert (answers.shape, novelty.shape) == ((3, 2), (3,))


WRONG: list[tuple[str, Any]] = [
    *(("classes", wrong) for wrong in ("ab", [], ["cat"], ["cat", ""], ["cat", "cat"], ["cat", 1],
                                       [["cat"], ["dog"]], {"cat": 0, "dog": 1}, None)),
    *(("image_size", wrong) for wrong in (0, -1, 1e9, 8.0, True, "8", None, [8], 10**400)),
    *(("temperature", wrong) for wrong in (0, -1.0, True, "1", None, [], float("nan"),
                                           float("inf"), 10**400)),
    *(("classes", ["cat", taken]) for taken in ("neither", "Unsure")),
    *(("thresholds", wrong) for wrong in ([], None, {"a": "b"}, {"a": True}, {"a": float("nan")})),
    *(("sha256", wrong) for wrong in (
        {}, [], None, "model.onnx", {"model.onnx": None}, {"model.onnx": "0" * 63},
        {"model.onnx": "G" * 64}, {"model.onnx": ["0" * 64]})),
    *(("sha256", {"model.onnx": "0" * 64, name: "0" * 64}) for name in (
        "../evil", "/etc/passwd", "..", "", "C:evil", "a\\b", "a/b", "a\0b")),
    *(("versions", wrong) for wrong in ([], None, {"keras": 3})),
    *(("why_no_int8", wrong) for wrong in (None, 1, ["a"])),
    ("something new", 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_a_field_that_cannot_be_right_is_named(
    tmp_path: Path, values: dict[str, Any], field: str, wrong: object
) -> None:
    describe(tmp_path, {**values, field: wrong})
    with pytest.raises(BundleError, match=rf"bundle.json .*{field}.*") as caught:
        Classifier(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", Bundle.__dataclass_fields__)
def test_no_field_may_be_missing(tmp_path: Path, values: dict[str, Any], field: str) -> None:
    del values[field]
    describe(tmp_path, values)
    with pytest.raises(BundleError, match=f"{field} to be there; .*damaged"):
        Classifier(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, '{"a":' * 100_000, "\ud800"])
def test_json_that_breaks_parsers_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match="damaged"):
        Bundle.read(tmp_path)


def test_a_newer_format_names_the_version_that_is_needed(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    newer = FORMAT_VERSION + 1
    describe(tmp_path, {**values, "format_version": newer, "a field of the future": 1})
    with pytest.raises(BundleError, match=f"get a version of this project that reads {newer}"):
        Bundle.read(tmp_path)


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, "1", None, [], -1])
def test_another_format_is_to_be_made_again(
    tmp_path: Path, values: dict[str, Any], version: object
) -> None:
    describe(tmp_path, {**values, "format_version": version})
    with pytest.raises(BundleError, match="train again"):
        Bundle.read(tmp_path)


def test_the_digest_is_compared_before_the_model_is_loaded(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\0")

    def loaded(*_: object, **__: object) -> None:
        pytest.fail("the changed model was loaded")

    monkeypatch.setattr(onnxruntime, "InferenceSession", loaded)
    with pytest.raises(BundleError, match="SHA-256"):
        Classifier(tmp_path)


@pytest.mark.parametrize("model", [{"output": "other"}, {"classes": 3}])
def test_a_model_of_another_kind_is_one_clear_error(tmp_path: Path, model: dict[str, Any]) -> None:
    make_bundle(tmp_path, **model)
    with pytest.raises(BundleError, match="2 classes; received"):
        Classifier(tmp_path).outputs(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_a_size_that_is_not_the_models_is_one_clear_error(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    describe(tmp_path, {**values, "image_size": SIZE + 1})
    with pytest.raises(BundleError, match="to take photos"):
        Classifier(tmp_path).outputs(np.zeros((1, SIZE + 1, SIZE + 1, 3), np.uint8))


def test_a_model_that_fails_while_it_runs_is_one_line_and_nothing_on_stderr(
    tmp_path: Path, values: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its kernel wants five channels, and no shape is declared that would tell so before."""
    model = onnx.load(tmp_path / "model.onnx")
    for dimension, name in zip(
        model.graph.input[0].type.tensor_type.shape.dim, "nhwc", strict=True
    ):
        dimension.dim_param = name
    kernel = onnx.numpy_helper.from_array(np.zeros((4, 5, 3, 3), np.float32), "kernel")
    model.graph.initializer[0].CopyFrom(kernel)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    describe(tmp_path, json.loads(description(model.SerializeToString())))
    with pytest.raises(BundleError, match=r"to take photos.*kernel channels"):
        Classifier(tmp_path).outputs(np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


# ---- what lies in its folder instead of files ----


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["bundle.json", "model.onnx"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "/dev/tty", "loop"])
def test_pipes_and_devices_are_refused_without_reading(
    tmp_path: Path, values: dict[str, Any], name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # its path may have 100 bytes only
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
    else:
        path.symlink_to(name if kind == "loop" else kind)
    program = (
        "import sys; from app.core.cli import run; import predict; sys.exit(run(predict.main))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--bundle", str(tmp_path), __file__],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: expected .*{name}.*\n", done.stderr)
    assert "not a regular file" in done.stderr or kind == "loop"


@pytest.mark.parametrize("place", ["initializer", "constant"])
@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "../{}/weights.bin"])
def test_weights_that_no_digest_covers_are_refused(
    tmp_path: Path, place: str, location: str
) -> None:
    model = onnx.load_from_string(small_model())
    kernel = next(one for one in model.graph.initializer if one.name == "kernel")
    (tmp_path / "weights.bin").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = onnx.TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=location.format(tmp_path.name))
    if place == "constant":
        constant = onnx.helper.make_node("Constant", [], ["kernel"], value=kernel)
        model.graph.initializer.remove(kernel)
        model.graph.node.insert(0, constant)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "bundle.json").write_bytes(description(model.SerializeToString()))
    with pytest.raises(BundleError, match=r"to hold its weights itself; received .*external data"):
        Classifier(tmp_path)
