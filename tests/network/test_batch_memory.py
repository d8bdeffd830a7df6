"""Memory that does not suffice: recognised under every backend, answered by smaller batches."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

from app.core.errors import AppError
from app.features.batches import ViewBatches
from app.features.extractor import FeatureExtractor
from app.network.batch_memory import halving, out_of_memory
from app.training.finetune import logits_of, train_stage
from tests.training.test_finetune import PHOTOS, STAGE, fetch


@pytest.fixture
def quick(monkeypatch):
    """Leave out the collection of garbage, which takes 0.3 s beside TensorFlow."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def named(name: str, text: str, base: type[Exception] = RuntimeError) -> Exception:
    """Return an exception as a backend has it, by the name of its class."""
    return type(name, (base,), {})(text)


SHORTAGES = [
    MemoryError("Unable to allocate 9.00 GiB for an array"),
    named("_ArrayMemoryError", "", MemoryError),
    named("ResourceExhaustedError", "OOM when allocating tensor with shape[32,64]", Exception),
    named("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    named("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
    named("JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeException("BFCArena: Failed to allocate memory for requested buffer of size 9"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_shortage_is_recognised(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes differ; out of memory is another matter"),
        RuntimeError("INVALID_ARGUMENT: shapes differ"),
        named("UnknownError", "a generator failed", Exception),
        AppError("out of memory.jpg is no photo"),
        KeyError("RESOURCE_EXHAUSTED"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_not(error):
    assert not out_of_memory(error)
    with pytest.raises(type(error)):
        halving(lambda batch: (_ for _ in ()).throw(error), 4, "a test")


def test_a_second_error_while_tidying_up_hides_nothing():
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise TypeError("as Keras under JAX, on variables without values")  # noqa: B904
    except TypeError as error:
        assert out_of_memory(error)
    try:
        raise AppError("told already") from MemoryError()
    except AppError as error:
        assert not out_of_memory(error)


def test_the_batch_is_halved_until_it_fits_and_each_time_it_is_said(capsys, quick):
    def attempt(batch: int) -> int:
        if batch > 5:
            raise MemoryError
        return batch

    assert halving(attempt, 32, "a test") == 4
    assert capsys.readouterr().err.splitlines() == [
        f"a test: memory does not suffice for batches of {n}; again with {n // 2}"
        for n in (32, 16, 8)
    ]


def test_not_one_photo_fits(quick):
    tried: list[int] = []

    def attempt(batch: int) -> None:
        tried.append(batch)
        raise MemoryError

    with pytest.raises(AppError, match=r"even for one photo at a time; choose a smaller"):
        halving(attempt, 12, "a test")
    assert tried == [12, 6, 3, 1]


# ---- in the frozen prefix ----


def test_the_prefix_goes_on_with_smaller_batches(quick):
    asked: list[int] = []

    def run(images):
        asked.append(len(images))
        if len(images) > 5:
            raise MemoryError
        return [images.mean(axis=(1, 2)), images[:, 0, 0, 0]]

    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3), np.uint8)
    frozen = FeatureExtractor(run)
    for _ in range(2):
        means, corners = frozen(images)
        np.testing.assert_array_equal(means, images.mean(axis=(1, 2)))
        np.testing.assert_array_equal(corners, images[:, 0, 0, 0])
    # 16, 8, then 4 for good.
    assert asked == [16, 8, *2 * [4, 4, 4, 4, 4, 3]]


# ---- in a stage ----


def with_dropout() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dropout(0.3), keras.layers.Dense(2, name="dense")]
    return keras.Sequential([keras.Input((2,)), *layers])


def limited(photos: int):
    """Fetch with room for so many photos, short of it from the second epoch on."""

    def short(views):
        if len(views) > photos and views[0].number:
            raise MemoryError
        return fetch(views)

    return short


def test_a_stage_begins_again_as_if_nothing_had_been(capsys):
    """Bit for bit what it would have been with the smaller batch from the beginning."""
    weights, results = [], []
    for size, get in ((16, limited(8)), (8, fetch)):
        model = with_dropout()
        options = {"views": None, "batch_size": size, "seed": 3}
        train = ViewBatches(PHOTOS, get, shuffle=True, **options)
        validation = ViewBatches(PHOTOS, get, shuffle=False, **options)
        results.append(train_stage(model, replace(STAGE, epochs=2), train, validation))
        weights.append(model.get_weights())
        assert train.batch_size == validation.batch_size == 8
    for halved, direct in zip(*weights, strict=True):
        np.testing.assert_array_equal(halved, direct)
    assert results[0].validation == results[1].validation
    assert [row.epoch for row in results[0].history] == [1, 2]
    line = "stage head: memory does not suffice for batches of 16; again with 8"
    assert capsys.readouterr().err.count(line) == 1


def test_a_step_that_has_no_room_is_tried_with_fewer_photos(monkeypatch, quick):
    model = with_dropout()
    fit = model.fit

    def short(train, **options):
        if train.batch_size > 10:
            raise SHORTAGES[4]
        return fit(train, **options)

    monkeypatch.setattr(model, "fit", short)
    options = {"views": 1, "batch_size": 40, "seed": 0}
    train = ViewBatches(PHOTOS, fetch, shuffle=True, **options)
    validation = ViewBatches(PHOTOS, fetch, shuffle=False, **options)
    result = train_stage(model, replace(STAGE, epochs=1), train, validation)
    assert (train.batch_size, result.epochs) == (10, 1)


def test_answers_are_given_in_smaller_batches_too(quick):
    model = with_dropout()
    model.get_layer("dense").set_weights([np.eye(2), np.zeros(2)])
    predict = model.predict_on_batch

    def short(images):
        if len(images) > 4:
            raise MemoryError
        return predict(images)

    model.predict_on_batch = short
    batches = ViewBatches(PHOTOS, fetch, views=1, batch_size=16, seed=0, shuffle=False)
    expected = np.concatenate([batches[n][0] for n in range(len(batches))])
    np.testing.assert_allclose(logits_of(model, batches), expected, rtol=1e-6)


# ---- what a fetch tells the user ----


def test_a_message_for_the_user_comes_through_the_training():
    """TensorFlow and JAX put errors of their own in its place."""

    def gone(views):
        if views[0].number:
            raise AppError("expected the photo; received none")
        return fetch(views)

    train = ViewBatches(PHOTOS, gone, views=None, batch_size=8, seed=0, shuffle=True)
    validation = ViewBatches(PHOTOS, fetch, views=1, batch_size=8, seed=0, shuffle=False)
    with pytest.raises(AppError, match="expected the photo; received none"):
        train_stage(with_dropout(), replace(STAGE, epochs=2), train, validation)
