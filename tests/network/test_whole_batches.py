"""Batches of one size, where the backend compiles anew for each size, as JAX does."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import app.features.batches
import app.network.whole_batches
from app.features.batches import ViewBatches
from app.features.extractor import FeatureExtractor
from app.network.whole_batches import filled
from tests.training.test_finetune import PHOTOS, fetch


@pytest.fixture(autouse=True)
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the backend pass for one that compiles for each size."""
    for room in (app.network.whole_batches, app.features.batches):
        monkeypatch.setattr(room, "compiles_for_each_size", lambda: True)


def test_a_batch_is_filled_up_with_its_last_row() -> None:
    rows = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(filled(rows, 5), rows[[0, 1, 2, 2, 2]])
    assert filled(rows, 3) is filled(rows, 2) is rows
    assert len(filled(rows[:0], 5)) == 0


@pytest.mark.parametrize(("by_keras", "given"), [(True, [4, 4]), (False, [4, 1])])
def test_only_what_is_compiled_gets_full_batches(by_keras: bool, given: list[int]) -> None:
    """To an engine a lone photo would be as much work as a batch."""
    images, seen = np.arange(5.0).reshape(5, 1), []

    def forward(some: np.ndarray) -> list[np.ndarray]:
        seen.append(len(some))
        return [some * 2]

    extractor = FeatureExtractor(forward, 4, by_keras=by_keras)
    np.testing.assert_array_equal(extractor(images)[0], images * 2)
    streamed = [rows for (rows,) in extractor.stream([images[:4], images[4:]])]
    np.testing.assert_array_equal(np.concatenate(streamed), images * 2)
    assert seen == given * 2


@pytest.mark.parametrize(
    ("photos", "batch_size", "devices", "sizes"),
    [
        (20, 8, 1, [8, 8, 8]),
        (5, 8, 1, [5]),
        (16, 8, 2, [8, 8]),
        (5, 8, 2, [6]),  # one more than the photos: one comes twice
        (20, 8, 3, [9, 9, 9]),
        (3, 8, 7, [7]),
    ],
)
def test_each_device_gets_as_many_photos(
    monkeypatch: pytest.MonkeyPatch, photos: int, batch_size: int, devices: int, sizes: list[int]
) -> None:
    first = threading.get_ident()  # Keras tells no other thread of its devices
    monkeypatch.setattr(
        app.features.batches, "sharing", lambda: devices if threading.get_ident() == first else 1
    )
    batches = ViewBatches(
        PHOTOS[:photos], fetch, views=1, batch_size=batch_size, seed=0, shuffle=True
    )
    found = [batches[number] for number in range(len(batches))]
    assert [len(inputs) for inputs, _ in found] == [len(targets) for _, targets in found] == sizes
    assert len(np.unique(np.concatenate([inputs for inputs, _ in found]), axis=0)) == photos


def test_answers_are_asked_for_each_photo_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.features.batches, "sharing", lambda: 3)
    batches = ViewBatches(PHOTOS[:20], fetch, views=1, batch_size=8, seed=0, shuffle=False)
    assert [len(batches[number][0]) for number in range(len(batches))] == [8, 8, 4]
