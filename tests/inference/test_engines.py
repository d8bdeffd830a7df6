"""Each engine runs the same models, and gives the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.core.config import EngineName
from app.inference.engine_choice import ENGINES, pictures
from app.inference.engines import EXTERNAL_DATA, compile_model
from tests.fuzz.bundles import SIZE, small_model

ROOT = Path(__file__).parents[2]
ANSWERS = ("probabilities", "novelty")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    name: EngineName = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def gentle_model() -> bytes:
    """Return the small model with a weaker kernel: its answers depend on the picture."""
    model = onnx.load_from_string(small_model())
    kernel = next(one for one in model.graph.initializer if one.name == "kernel")
    weaker = onnx.numpy_helper.to_array(kernel) * np.float32(1e-3)
    kernel.CopyFrom(onnx.numpy_helper.from_array(weaker, "kernel"))
    return bytes(model.SerializeToString())


def test_all_engines_answer_alike_whatever_the_batch(engine: EngineName, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(gentle_model())
    images = pictures(5, SIZE)
    expected = compile_model("onnxruntime", gentle_model()).run(images, ANSWERS)
    assert all(np.ptp(each, axis=0).min() > 1e-3 for each in expected)
    for model in (gentle_model(), tmp_path / "model.onnx"):
        compiled = compile_model(engine, model)
        for count in (5, 1, 3):
            found = compiled.run(images[:count], ANSWERS)
            assert [each.dtype for each in found] == [np.float32] * 2
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other[:count], atol=1e-6)
    assert compiled.engine == engine


def test_outputs_come_in_the_order_that_is_asked_for(engine: EngineName) -> None:
    compiled, images = compile_model(engine, gentle_model()), pictures(2, SIZE)
    probabilities, novelty = compiled.run(images, ANSWERS)
    for names, expected in (
        (ANSWERS[::-1], [novelty, probabilities]),
        (ANSWERS[:1], [probabilities]),
    ):
        for one, other in zip(compiled.run(images, names), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_next_batch_leaves_an_answer_as_it_is(engine: EngineName) -> None:
    compiled, (first, second) = compile_model(engine, gentle_model()), pictures(2, SIZE)[:, None]
    (answer,) = compiled.run(first, ANSWERS[:1])
    kept = answer.copy()
    (other,) = compiled.run(second, ANSWERS[:1])
    assert not np.array_equal(other, kept)
    np.testing.assert_array_equal(answer, kept)


def test_what_does_not_run_is_an_exception_and_nothing_on_stderr(
    engine: EngineName, capfd: pytest.CaptureFixture[str]
) -> None:
    compiled = compile_model(engine, small_model())
    with pytest.raises(Exception, match=r".+"):  # the engines have no common exception
        compiled.run(pictures(1, SIZE + 1), ANSWERS)
    with pytest.raises(Exception, match="no such output"):
        compiled.run(pictures(1, SIZE), ["no such output"])
    with pytest.raises(Exception, match=r".+"):
        compile_model(engine, b"no model").run(pictures(1, SIZE), ANSWERS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_weights_elsewhere_are_refused(
    engine: EngineName, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(small_model())
    kernel = next(one for one in model.graph.initializer if one.name == "kernel")
    (tmp_path / "weights.bin").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = onnx.TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights.bin")
    if place == "constant":
        constant = onnx.helper.make_node("Constant", [], ["kernel"], value=kernel)
        model.graph.initializer.remove(kernel)
        model.graph.node.insert(0, constant)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path / "model.onnx", model.SerializeToString()):
        with pytest.raises(Exception, match=r"(?i)" + EXTERNAL_DATA):
            compile_model(engine, given)


def test_openvino_sends_nothing_and_writes_nothing(tmp_path: Path) -> None:
    """Its import tells Google Analytics, and keeps a number in the home folder, if it may."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    code = (
        "import sys; from app.inference.engines import compile_model; "
        "from tests.fuzz.bundles import small_model; compile_model('openvino', small_model()); "
        "print([name for name in sys.modules if 'telemetry' in name and 'openvino_' in name])"
    )
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert not list(tmp_path.iterdir())
