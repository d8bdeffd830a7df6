"""What a GPU gets, as far as a processor can tell: memory, batches, views drawn by processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from photos import as_photo, make_photo

import app.features.dataset
import app.features.extractor
import app.network.device
from app.core.config import STAGES, TrainConfig
from app.core.errors import AppError, ChangedPhotoError
from app.data.augmentation import BATCH, View, _processes, load_views
from app.experiment_setup import dataset_of
from app.features.batches import AHEAD, ViewBatches
from app.features.dataset import FreshDataset
from app.features.extractor import GPU_BATCH, FeatureExtractor, make_extractor
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
    for room in (app.features.extractor, app.features.dataset, app.network.device):
        monkeypatch.setattr(room, "on_gpu", lambda: True)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=4, name="block4_pool")(image)
    x = keras.layers.GlobalAveragePooling2D(name="block5_pool")(x)
    return keras.Model(image, keras.layers.Dense(2, name="dense")(x))


# ---- the frozen prefix ----


def test_a_gpu_gets_larger_batches_and_gives_the_same_activations(model, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, 3), np.uint8)
    cuts = ["block5_pool", "block4_pool"]
    by_processor = make_extractor(model, cuts, "bfloat16")
    monkeypatch.setattr(app.features.extractor, "on_gpu", lambda: True)
    by_gpu = make_extractor(model, cuts, "bfloat16")
    assert (by_processor.batch, by_gpu.batch) == (BATCH, GPU_BATCH)
    given = [images[start : start + GPU_BATCH] for start in range(0, len(images), GPU_BATCH)]
    streamed = [np.concatenate(rows) for rows in zip(*by_gpu.stream(given), strict=True)]
    for one, other, third in zip(by_gpu(images), by_processor(images), streamed, strict=True):
        assert len(one) == 70
        assert one.dtype == np.float16
        np.testing.assert_array_equal(one, third)
        np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=2e-3, atol=2e-3)


def test_two_batches_are_begun_before_one_is_fetched():
    begun = []

    def forward(images):
        begun.append(len(images))
        return [images]

    given = [np.full((2, 1), number) for number in range(5)]
    seen = []
    for (rows,) in FeatureExtractor(forward).stream(given):
        seen.append((int(rows[0, 0]), len(begun)))
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)]


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_that_has_no_room_is_computed_in_smaller_ones(late, capsys):
    class Lazy:
        """A result that fails when it is fetched, as a GPU's does."""

        def __array__(self, *_, **__):
            raise MemoryError

    def forward(images):
        if len(images) > 2 and not late:
            raise MemoryError
        return [Lazy()] if len(images) > 2 else [images * 2]

    given = [np.arange(4.0).reshape(4, 1), np.arange(2.0).reshape(2, 1)]
    extractor = FeatureExtractor(forward, batch=4)
    found = [rows for (rows,) in extractor.stream(given)]
    for rows, expected in zip(found, given, strict=True):
        np.testing.assert_array_equal(rows, expected * 2)
    assert extractor.batch == 2
    assert "again with 2" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(ZeroDivisionError):
        list(FeatureExtractor(lambda images: 1 / 0).stream([np.zeros((1, 1))]))


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


def test_processes_draw_the_same_views_as_threads(config, model, photos, gpu):
    source = dataset_of(config, model, "w", photos)
    found = epochs(source, 3)
    assert isinstance(source, FreshDataset)
    assert found.dtype == np.uint8
    assert len(np.unique(found, axis=0)) == 18  # every epoch has other views
    wanted = [View(photo, number, 7) for photo in photos["train"] for number in (0, 1)]
    np.testing.assert_array_equal(
        load_views(wanted, SIZE, processes=True), load_views(wanted, SIZE)
    )


def test_a_photo_that_changed_is_named_by_a_process_too(photos):
    photo = photos["train"][0]
    photo.path.write_bytes(b"other")
    with pytest.raises(ChangedPhotoError, match="other bytes") as caught:
        load_views([View(photo, 0, 0)], SIZE, processes=True)
    assert str(photo.path) in str(caught.value)


DRAW = """
import os, sys
from app.core.cli import leave
from app.data.augmentation import _processes

if __name__ == "__main__":
    print(_processes().submit(os.getpid).result(), flush=True)
    sys.stdin.read()
    leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("end", ["killed", "0", "130"])  # 130: after Ctrl-C
def test_no_process_and_no_message_stays_when_the_first_one_is_gone(tmp_path, end):
    (tmp_path / "draw.py").write_text(DRAW)
    root = Path(__file__).parents[2]
    first = subprocess.Popen(
        [sys.executable, tmp_path / "draw.py", "0" if end == "killed" else end],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert int(first.stdout.readline()) != first.pid
    if end == "killed":
        first.kill()
    # It ends when nobody can write into the pipes any more: all processes have ended.
    _, messages = first.communicate(timeout=20)
    assert end == "killed" or (messages, first.returncode) == ("", int(end))


def test_a_process_that_is_killed_is_told_in_one_line_and_replaced(photos):
    wanted = [View(photo, 0, 0) for photo in photos["train"]]
    os.kill(_processes().submit(os.getpid).result(), getattr(signal, "SIGKILL", signal.SIGTERM))
    with pytest.raises(AppError, match="expected the processes that decode photos to go on"):
        for _ in range(100):  # it is noticed after a moment
            load_views(wanted, SIZE, processes=True)
    np.testing.assert_array_equal(
        load_views(wanted, SIZE, processes=True), load_views(wanted, SIZE)
    )


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
