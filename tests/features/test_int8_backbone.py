"""The frozen layers in int8: near the float32 ones, made once, kept beside the cache."""

import dataclasses
from importlib.util import find_spec
from unittest.mock import patch

import keras
import numpy as np
import onnx
import pytest
from photos import as_photo, make_photo

import app.core.environment
import app.features.int8_backbone
import app.network.device
import app.network.vgg
from app.core.config import TrainConfig
from app.core.environment import has_vnni, installed_version
from app.core.errors import UsageError
from app.data.augmentation import View, load_views
from app.data.manifest import Photo
from app.experiment_setup import dataset_of
from app.features.cache_folder import FEATURES_FOLDER, clear, list_stores
from app.features.dataset import CachedDataset
from app.features.extractor import make_extractor
from app.features.int8_backbone import Int8Backbone, make_int8_backbone
from app.network.classifier import CUTS, build_classifier
from app.network.device import resolve_frozen_precision, resolve_precision

SIZE = 64


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A thin VGG16 whose activations keep their size (He et al. 2015)."""
    keras.utils.set_random_seed(0)
    with patch.object(app.network.vgg, "FILTERS", (8, 8, 16, 16, 16)):
        model = build_classifier(2, image_size=SIZE)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if "_conv" in layer.name:
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:3]))
            layer.set_weights([generator.normal(0, scale, kernel.shape), bias])
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    return [as_photo(make_photo(folder / f"{n}.png", n), n % 2) for n in range(40)]


@pytest.fixture(scope="module")
def int8(model, photos, tmp_path_factory) -> Int8Backbone:
    return make_int8_backbone(tmp_path_factory.mktemp("int8"), model, "weights", photos)


@pytest.mark.parametrize("cut", CUTS)
def test_int8_is_near_float32_and_not_the_same(model, photos, int8, cut):
    images = load_views([View(photo, 0, 0) for photo in photos[:7]], SIZE)
    (exact,) = make_extractor(model, [cut], "float32")(images)
    (rounded,) = make_extractor(model, [cut], "float32", int8=int8)(images)
    assert rounded.shape == exact.shape
    assert rounded.dtype == exact.dtype == np.float16
    rounded, exact = rounded.astype(np.float64), exact.astype(np.float64)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.1  # 8 bits through thirteen layers
    assert {node.op_type for node in onnx.load_from_string(int8.model).graph.node} >= {
        "QuantizeLinear"
    }


def test_cuts_come_from_one_pass_in_the_order_asked_for(model, photos, int8):
    images = load_views([View(photo, 0, 0) for photo in photos[:3]], SIZE)
    together = make_extractor(model, CUTS[1::-1], "float32", int8=int8)(images)
    for cut, rows in zip(CUTS[1::-1], together, strict=True):
        (alone,) = make_extractor(model, [cut], "float32", int8=int8)(images)
        np.testing.assert_array_equal(rows, alone)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("in_int8", [True, False])
def test_the_other_engine_computes_the_same_and_has_a_cache_of_its_own(
    model, photos, int8, in_int8, tmp_path
):
    layers = int8 if in_int8 else None
    images = load_views([View(photo, 0, 0) for photo in photos[:7]], SIZE)
    usual, other = (
        make_extractor(model, CUTS, "float32", int8=layers, engine_of_onnx=engine)(images)
        for engine in ("onnxruntime", "openvino")
    )
    for one, two in zip(usual, other, strict=True):
        assert one.dtype == two.dtype == np.float16
        one, two = one.astype(np.float64), two.astype(np.float64)
        # A number that lies between two steps of int8 may go to either.
        assert np.linalg.norm(one - two) / np.linalg.norm(one) < (0.02 if in_int8 else 1e-3)

    precision = "int8" if in_int8 else "float32"
    config = dataclasses.replace(CONFIG, runs=tmp_path, precision=precision, engine="openvino")
    sources = [
        opened(model, photos[:12], dataclasses.replace(config, engine=engine))
        for engine in ("openvino", "onnxruntime")
    ]
    version = installed_version("openvino")
    assert [source.made_by for source in sources] == [f"openvino {version}", "onnxruntime"]
    keys = [source.stores["block5_pool"].spec.key for source in sources]
    assert keys[0] != keys[1]


def never(*_: object, **__: object) -> None:
    raise AssertionError("this was not to be done")


def test_the_same_photos_find_it_again_in_any_order_and_under_any_name(
    model, photos, tmp_path, monkeypatch
):
    first = make_int8_backbone(tmp_path, model, "weights", photos[:20])
    monkeypatch.setattr(app.features.int8_backbone, "quantize_static", never)
    renamed = [dataclasses.replace(photo, name=f"new-{photo.name}") for photo in photos[19::-1]]
    assert make_int8_backbone(tmp_path, model, "weights", renamed) == first
    with pytest.raises(AssertionError, match="not to be done"):
        make_int8_backbone(tmp_path, model, "weights", photos[:19])


def test_no_other_run_decides_the_scales(model, photos, tmp_path):
    """Contract 10: they are the same in an empty folder and beside those of most of the photos."""
    make_int8_backbone(tmp_path / "used", model, "weights", photos[:20])
    both = [
        make_int8_backbone(tmp_path / name, model, "weights", photos[1:20])
        for name in ("used", "empty")
    ]
    assert both[0].digest == both[1].digest
    images = load_views([View(photo, 0, 0) for photo in photos[:3]], SIZE)
    one, other = (make_extractor(model, CUTS, "float32", int8=int8)(images) for int8 in both)
    for rows, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(rows, same)


def test_one_photo_more_seldom_changes_the_scales(model, photos, tmp_path, monkeypatch):
    """The 32 of the lowest SHA-256 give them; a photo above these has no part in it."""
    *some, last = sorted(photos, key=lambda photo: photo.content)
    first = make_int8_backbone(tmp_path, model, "weights", some)
    monkeypatch.setattr(app.features.int8_backbone, "quantize_static", never)
    assert make_int8_backbone(tmp_path, model, "weights", [*some, last]) == first


def test_a_damaged_file_is_made_again(model, photos, tmp_path):
    first = make_int8_backbone(tmp_path, model, "weights", photos[:5])
    (path,) = tmp_path.glob("*/*.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    other = path.with_name("mine.onnx")
    other.write_bytes(b"of somebody else")
    second = make_int8_backbone(tmp_path, model, "weights", photos[:5])
    assert other.read_bytes() == b"of somebody else"
    other.unlink()
    (path,) = tmp_path.glob("*/*.onnx")
    assert path.read_bytes() == second.model
    images = load_views([View(photo, 0, 0) for photo in photos[:2]], SIZE)
    given = [make_extractor(model, CUTS, "float32", int8=q)(images) for q in (first, second)]
    for one, other in zip(*given, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_weights_or_pixels_make_another(model, photos, tmp_path):
    for digest in ("a", "b", "a"):
        make_int8_backbone(tmp_path, model, digest, photos[:3])
    with patch.object(app.network.vgg, "FILTERS", (4, 4, 4, 4, 4)):
        larger = build_classifier(2, image_size=96)
    make_int8_backbone(tmp_path, larger, "a", photos[:3])
    assert len(list(tmp_path.glob("*/*.onnx"))) == 3


CONFIG = TrainConfig(image_size=SIZE, precision="int8", cache="disk", stages=("head",))


def opened(model, photos: list[Photo], config: TrainConfig) -> CachedDataset:
    split = {"train": photos[:-4], "validation": photos[-4:-2], "test": photos[-2:]}
    source = dataset_of(config, model, "w", split)
    assert isinstance(source, CachedDataset)
    return source


def labelled_maps(source: CachedDataset) -> np.ndarray:
    return np.concatenate(
        list(source.labelled("train").maps(range(len(source.spec.photos["train"]))))
    )


def test_a_store_belongs_to_the_scales_that_it_was_computed_with(model, photos, tmp_path):
    config = dataclasses.replace(CONFIG, runs=tmp_path)
    folder = tmp_path / FEATURES_FOLDER
    source = opened(model, photos[:12], config)
    assert source.int8 is not None
    (store,) = [store for store in list_stores(folder) if store.cut]
    assert store.precision == f"int8-{source.int8.digest[:8]}"
    images = load_views([View(photo, 0, 0) for photo in photos[:8]], SIZE)
    (expected,) = make_extractor(model, CUTS[:1], "float32", int8=source.int8)(images)
    np.testing.assert_allclose(labelled_maps(source), expected, rtol=2**-10, atol=1e-3)
    opened(model, photos[20:32], config)
    assert len({store.precision for store in list_stores(folder) if store.cut}) == 2
    opened(model, photos[:12], dataclasses.replace(config, precision="float32"))
    assert len([store for store in list_stores(folder) if store.cut]) == 3


def test_rows_cleared_under_a_run_are_computed_with_the_same_scales(model, photos, tmp_path):
    """Clearing takes the int8 file along, and another run may have made another one."""
    config = dataclasses.replace(CONFIG, runs=tmp_path)
    source = opened(model, photos[:12], config)
    before = labelled_maps(source)
    clear(tmp_path / FEATURES_FOLDER)
    assert not list((tmp_path / FEATURES_FOLDER).glob("*/*.onnx"))
    opened(model, photos[20:32], config)
    np.testing.assert_array_equal(labelled_maps(source), before)


@pytest.mark.parametrize(
    ("flags", "asked", "frozen", "trained"),
    [
        ("avx2", "auto", "float32", "float32"),
        ("avx2 avx512_bf16", "auto", "bfloat16", "bfloat16"),
        ("avx2 avx512_vnni", "auto", "int8", "float32"),
        ("avx_vnni avx512_bf16", "auto", "int8", "bfloat16"),
        ("avx_vnni avx512_bf16", "bfloat16", "bfloat16", "bfloat16"),
        ("avx_vnni avx512_bf16", "float32", "float32", "float32"),
        ("avx2", "int8", "int8", "float32"),
    ],
)
def test_the_processor_decides(monkeypatch, flags, asked, frozen, trained):
    monkeypatch.setattr(
        app.core.environment, "cpu_info", lambda field: flags if field == "flags" else ""
    )
    monkeypatch.setattr(app.network.device, "on_gpu", lambda: False)
    assert resolve_frozen_precision(asked) == frozen
    assert resolve_precision(asked) == trained
    assert has_vnni() == ("vnni" in flags)


def test_a_gpu_computes_no_int8(monkeypatch):
    monkeypatch.setattr(app.network.device, "on_gpu", lambda: True)
    monkeypatch.setattr(app.network.device, "_compute_capability", lambda: 9.0)
    assert resolve_frozen_precision("auto") == "bfloat16"
    with pytest.raises(UsageError, match="on a GPU; received int8"):
        resolve_frozen_precision("int8")
