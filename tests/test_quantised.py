"""The frozen layers in int8: near the float32 ones, made once, kept beside the cache."""

import dataclasses
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import onnx
import pytest
from photos import as_photo, make_photo

import app.device
import app.quantised
import app.vgg
from app.config import TrainConfig
from app.device import has_vnni, resolve_frozen_precision, resolve_precision
from app.errors import UsageError
from app.frozen import frozen_prefix
from app.model import CUTS, build_classifier
from app.photos import Photo
from app.quantised import quantised_prefix
from app.sources import CachedSource, open_source
from app.stores import FEATURES_FOLDER, clear, list_stores
from app.views import View, load_views

SIZE = 64


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A thin VGG16 whose activations keep their size (He et al. 2015)."""
    keras.utils.set_random_seed(0)
    with patch.object(app.vgg, "FILTERS", (8, 8, 16, 16, 16)):
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
def int8(model, photos, tmp_path_factory) -> Path:
    return quantised_prefix(tmp_path_factory.mktemp("int8"), model, "weights", photos)[0]


@pytest.mark.parametrize("cut", CUTS)
def test_int8_is_near_float32_and_not_the_same(model, photos, int8, cut):
    images = load_views([View(photo, 0, 0) for photo in photos[:7]], SIZE)
    (exact,) = frozen_prefix(model, [cut], "float32")(images)
    (rounded,) = frozen_prefix(model, [cut], "float32", quantised=int8)(images)
    assert rounded.shape == exact.shape
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.1  # 8 bits through thirteen layers; seen: 0.03 at most
    assert {node.op_type for node in onnx.load(int8).graph.node} >= {"QuantizeLinear"}


def test_cuts_come_from_one_pass_in_the_order_asked_for(model, photos, int8):
    images = load_views([View(photo, 0, 0) for photo in photos[:3]], SIZE)
    together = frozen_prefix(model, CUTS[1::-1], "float32", quantised=int8)(images)
    for cut, rows in zip(CUTS[1::-1], together, strict=True):
        (alone,) = frozen_prefix(model, [cut], "float32", quantised=int8)(images)
        np.testing.assert_array_equal(rows, alone)


def test_it_is_made_once_and_later_photos_do_not_change_it(model, photos, tmp_path, monkeypatch):
    first = quantised_prefix(tmp_path, model, "weights", photos[:20])
    monkeypatch.setattr(app.quantised, "quantise", None)
    assert quantised_prefix(tmp_path, model, "weights", photos) == first


def test_other_weights_or_pixels_make_another(model, photos, tmp_path):
    files = {quantised_prefix(tmp_path, model, digest, photos[:3])[0] for digest in ("a", "b")}
    with patch.object(app.vgg, "FILTERS", (4, 4, 4, 4, 4)):
        larger = build_classifier(2, image_size=96)
    files.add(quantised_prefix(tmp_path, larger, "a", photos[:3])[0])
    assert len(files) == 3


def test_the_cache_names_the_scales_that_it_was_computed_with(model, photos, tmp_path):
    config = TrainConfig(
        runs=tmp_path, image_size=SIZE, precision="int8", cache="disk", stages=("head",)
    )
    split = {"train": photos[:6], "validation": photos[6:8], "test": photos[8:10]}

    def opened(**change):
        source = open_source(dataclasses.replace(config, **change), model, "w", split)
        assert isinstance(source, CachedSource)
        return source

    source = opened()
    (store,) = list_stores(tmp_path / FEATURES_FOLDER)
    assert store.precision is not None and store.precision.startswith("int8-")
    assert source.quantised is not None
    views = [View(photo, 0, 0) for photo in split["train"]]
    (expected,) = frozen_prefix(model, CUTS[:1], "float32", quantised=source.quantised)(
        load_views(views, SIZE)
    )
    (rows,) = source.labelled("train").maps(range(6))
    np.testing.assert_allclose(rows, expected, rtol=2**-10, atol=1e-3)
    opened(precision="float32")
    assert len(list_stores(tmp_path / FEATURES_FOLDER)) == 2
    clear(tmp_path / FEATURES_FOLDER)
    assert not list((tmp_path / FEATURES_FOLDER).glob("*.onnx"))


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
    monkeypatch.setattr(app.device, "_cpu_info", lambda field: flags if field == "flags" else "")
    monkeypatch.setattr(app.device, "on_gpu", lambda: False)
    assert resolve_frozen_precision(asked) == frozen
    assert resolve_precision(asked) == trained
    assert has_vnni() == ("vnni" in flags)


def test_a_gpu_computes_no_int8(monkeypatch):
    monkeypatch.setattr(app.device, "on_gpu", lambda: True)
    monkeypatch.setattr(app.device, "_compute_capability", lambda: 9.0)
    assert resolve_frozen_precision("auto") == "bfloat16"
    with pytest.raises(UsageError, match="on a GPU; received int8"):
        resolve_frozen_precision("int8")
