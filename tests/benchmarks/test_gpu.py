"""What a GPU gets, as far as a processor can tell: memory, batch sizes, photos decoded once."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from photos import as_photo, make_photo

import app.features.dataset
import app.features.extractor
from app.core.config import STAGES, TrainConfig
from app.core.errors import AppError
from app.experiment_setup import dataset_of
from app.features.batches import AHEAD, ViewBatches
from app.features.extractor import MAX_BATCH, fastest_batch, make_extractor
from app.network.classifier import build_classifier
from app.network.device import MEMORY_GROWTH, let_memory_grow, on_gpu
from benchmarks.gpu import (
    Size,
    convolution_flops,
    main,
    matrix_rate,
    step_flops,
    table,
    train_seconds,
)
from tests.training.test_finetune import PHOTOS, fetch

SIZE = 32


@pytest.fixture
def gpu(monkeypatch):
    """Let the processor pass for a GPU."""
    for room in (app.features.extractor, app.features.dataset):
        monkeypatch.setattr(room, "on_gpu", lambda: True)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=4, name="block4_pool")(image)
    x = keras.layers.GlobalAveragePooling2D(name="block5_pool")(x)
    return keras.Model(image, keras.layers.Dense(2, name="dense")(x))


# ---- the batch of the frozen prefix ----


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({16: 100, 32: 150, 64: 155, 128: 900}, 32),  # 3 % more do not pay
        ({16: 100, 32: 150, 64: 200, 128: 300}, MAX_BATCH),
        ({16: 100, 32: 90}, 16),
        ({16: 100, 32: 150}, 32),  # no memory for 64
        ({}, 16),  # not even for 16: that is answered when the work is done
    ],
)
def test_the_batch_is_doubled_while_it_pays(rates, best, capsys):
    def seconds(batch: int) -> float:
        if batch not in rates:
            raise MemoryError
        return batch / rates[batch]

    assert fastest_batch(seconds) == best
    said = capsys.readouterr().err
    assert (f"batches of {best}, {rates[best]} photos a second" in said) if rates else not said


def test_trying_ends_where_it_takes_longer_than_the_photos():
    assert fastest_batch(lambda batch: 1e-9, photos=1) == 16


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(ZeroDivisionError):
        fastest_batch(lambda batch: 1 / 0)


def test_the_batch_changes_no_activations(gpu, model, capsys, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, 3), np.uint8)
    monkeypatch.setattr(
        app.features.extractor, "seconds_of", lambda run, shape, batch: max(batch, 64)
    )
    tried = make_extractor(model, ["block5_pool", "block4_pool"], "float32", photos=10**6)
    assert tried.batch == 64
    plain = make_extractor(model, ["block5_pool", "block4_pool"], "float32", photos=MAX_BATCH)
    assert plain.batch == 16
    for one, other in zip(tried(images), plain(images), strict=True):
        assert len(one) == 70
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    assert capsys.readouterr().err.count("the frozen layers: batches of 64") == 1


def test_a_batch_is_timed_on_photos_of_the_right_shape():
    seen = []
    assert (
        0
        < app.features.extractor.seconds_of(lambda images: seen.append(images.shape), (4, 5, 3), 7)
        < 1
    )
    assert set(seen) == {(7, 4, 5, 3)}
    assert len(seen) == 1 + app.features.extractor.REPEAT


# ---- fresh views ----


@pytest.fixture
def photos(tmp_path: Path):
    every = [as_photo(make_photo(tmp_path / "photos" / f"{n}.jpg", n), n % 2) for n in range(10)]
    return {"train": every[:6], "validation": every[6:8], "test": every[8:]}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(runs=tmp_path / "runs", image_size=SIZE, precision="float32", cache="off")


def epochs(source, number: int):
    """Return all batches of the first epochs of stage block5."""
    batches = source.batches(STAGES["block5"], "train", shuffle=True)
    found = []
    for epoch in range(number):
        batches.begin_epoch(epoch)
        found += [batches[n][0] for n in range(len(batches))]
    return np.concatenate(found)


def test_photos_are_decoded_once_for_a_gpu(gpu, config, model, photos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(app.features.dataset, "on_gpu", lambda: False)
        expected = epochs(dataset_of(config, model, "w", photos), 3)
    source = dataset_of(config, model, "w", photos)
    np.testing.assert_array_equal(epochs(source, 1), expected[:6])
    shutil.rmtree(tmp_path / "photos")
    np.testing.assert_array_equal(epochs(source, 3), expected)
    assert expected.dtype == np.uint8
    assert len(np.unique(expected, axis=0)) == 18  # every epoch has other views


@pytest.mark.parametrize("change", [{"cache_limit": 1e-9}, {"stages": ("head",)}])
def test_without_room_or_epochs_no_photo_is_kept(gpu, config, model, photos, change):
    source = dataset_of(dataclasses.replace(config, **change), model, "w", photos)
    assert list(source.labelled("train").maps(range(6)))
    assert not config.runs.exists()


def test_the_processor_decodes_every_time(config, model, photos):
    assert not on_gpu()
    epochs(dataset_of(config, model, "w", photos), 1)
    assert not config.runs.exists()


# ---- the queue ----


def test_the_next_batches_are_made_meanwhile():
    """With the first one in hand, two more come without being asked for, and no further one."""
    made, enough = [], threading.Semaphore(0)

    def noting(views):
        made.append(views[0].photo.name)
        enough.release()
        return fetch(views)

    batches = ViewBatches(PHOTOS, noting, views=1, batch_size=8, seed=0, shuffle=False)
    first = batches[0]
    for _ in range(1 + AHEAD):
        assert enough.acquire(timeout=5)
    assert made == ["0", "8", "16"]
    np.testing.assert_array_equal(first[0], fetch(batch_views(batches, 0)))
    for number in range(1, len(batches)):
        np.testing.assert_array_equal(batches[number][0], fetch(batch_views(batches, number)))
    assert made == ["0", "8", "16", "24", "32"]


def test_what_was_made_for_another_epoch_or_size_is_not_used():
    batches = ViewBatches(PHOTOS, fetch, views=None, batch_size=8, seed=0, shuffle=True)
    batches[0]
    batches._pool.submit(int).result()  # what is made ahead is there now
    batches.begin_epoch(1)
    np.testing.assert_array_equal(batches[1][0], fetch(batch_views(batches, 1)))
    batches._pool.submit(int).result()
    batches.begin_again(4)
    np.testing.assert_array_equal(batches[2][0], fetch(batch_views(batches, 2)))


def batch_views(batches: ViewBatches, index: int):
    """Return the views of a batch, asked for by another object that makes nothing ahead."""
    asked = []
    lone = ViewBatches(
        batches.photos,
        lambda views: asked.append(views) or np.zeros(len(views)),
        views=batches.views,
        batch_size=batches.batch_size,
        seed=batches.seed,
        shuffle=batches.shuffle,
        first_epoch=batches.epoch,
    )
    lone._batch(index)
    return asked[0]


# ---- memory ----


def test_memory_grows_unless_the_user_said_otherwise(monkeypatch):
    assert set(MEMORY_GROWTH) <= set(os.environ)  # by importing app.network.device
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    let_memory_grow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


# ---- benchmarks/gpu.py ----


def test_the_flops_of_vgg16_are_those_of_the_paper():
    """30.7e9 at 224 pixels; of block5, three convolutions of 512 to 512 on 14x14."""
    flops = convolution_flops(build_classifier(2, image_size=224))
    assert len(flops) == 13
    assert sum(flops.values()) == pytest.approx(30.7e9, rel=1e-3)
    one = 2 * 14 * 14 * 9 * 512 * 512
    assert flops["block5_conv3"] == one
    assert step_flops(flops, ["block5_conv1", "block5_conv2", "block5_conv3"]) == 8 * one


def test_a_chain_of_products_is_timed():
    assert 0 < matrix_rate(Size(32, 1, 1, 16, 1)) < 100


@pytest.mark.slow
def test_the_benchmark_measures_every_kind_of_work(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("app.network.vgg.FILTERS", (2, 2, 2, 2, 2))
    monkeypatch.setattr("benchmarks.gpu.SMALL", Size(32, 2, 40, 16, 1))
    monkeypatch.setattr("benchmarks.gpu.train_seconds", lambda *_: pytest.fail("not asked for"))
    assert main(["--small", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = ["frozen prefix", "head, solved", "block5 step", "full fine-tuning step"]
    assert [row["name"] for row in told["rows"]] == names
    for row in told["rows"]:
        assert row["photos_per_second"] > 0
        counted = row["photos_per_second"] * row["flops"] / 1e12
        assert row["share"] == pytest.approx(counted / told["matrix_teraflops"])
        assert row["name"] in table(told)


@pytest.mark.slow
def test_the_benchmark_says_when_train_py_fails(tmp_path):
    with pytest.raises(AppError, match="exit code 2"):
        train_seconds(tmp_path / "nothing", None)


@pytest.mark.gpu
def test_a_gpu_is_told_from_a_processor():
    assert on_gpu()
    rate = matrix_rate(Size(32, 1, 1, 4096, 5))
    assert rate > 10  # TFLOP/s; no processor reaches it
