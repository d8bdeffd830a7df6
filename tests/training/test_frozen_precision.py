"""Arithmetic that would change answers is noticed before the long work, and a slower one taken."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock, patch

import keras
import numpy as np
import pytest
from photos import as_photo, make_photo

import app.experiment_setup as setup
import app.network.vgg
import app.training.frozen_precision as tested
from app.core.config import TrainConfig
from app.data.manifest import Photo
from app.features.cache_folder import Quota
from app.network.classifier import build_classifier
from app.training.frozen_precision import (
    choose_precision,
    is_answered,
    moved_by_rounding,
    some_of_each_class,
)

TARGETS = np.arange(60) // 30


def test_what_rounding_moves_is_measured_in_answers() -> None:
    generator = np.random.default_rng(0)
    exact = generator.normal(size=(60, 36)).astype(np.float32)
    exact[:, 0] += 4 * TARGETS
    noise = generator.normal(size=exact.shape).astype(np.float32)
    answered = exact[is_answered(60)]
    assert len(answered) == 20
    moved = [moved_by_rounding(answered, exact + s * noise, TARGETS) for s in (0, 0.05, 0.5)]
    assert moved[0] == 0
    assert 0 < 3 * moved[1] < moved[2] < 1
    assert moved_by_rounding(exact[:0], exact[:2], TARGETS[:2]) == 1.0  # nothing can be told
    assert moved_by_rounding(answered[:3], exact[:9], TARGETS[:9]) == 1.0  # all of one class


@pytest.fixture(scope="module")
def model() -> keras.Model:
    with patch.object(app.network.vgg, "FILTERS", (4, 4, 8, 8, 8)):
        return build_classifier(2, image_size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    return [as_photo(make_photo(folder / f"{n}.png", n), n % 2) for n in range(12)]


def chosen_precision(
    model: keras.Model, photos: list[Photo], folder: Path, *, int8: bool, keep: bool = True
) -> str:
    return choose_precision(model, "vgg16", "w", photos, Quota(folder, 10**9), int8=int8, keep=keep)


@pytest.mark.parametrize(
    ("moved", "chosen"),
    [
        ({"int8": 0.004}, "auto"),
        ({"int8": 0.006, "bfloat16": 0.004}, "bfloat16"),
        ({"int8": 0.006, "bfloat16": float("nan")}, "float32"),
    ],
)
def test_the_fastest_that_leaves_answers_alone_is_taken(
    moved, chosen, model, photos, tmp_path: Path, monkeypatch, capsys
) -> None:
    shares = iter(moved.values())
    monkeypatch.setattr(tested, "moved_by_rounding", lambda *_: next(shares))
    monkeypatch.setattr(tested, "resolve_precision", lambda _: "bfloat16")
    assert chosen_precision(model, photos, tmp_path, int8=True) == chosen
    assert not list(shares)  # no more was measured than needed
    told = capsys.readouterr().err
    if chosen == "auto":
        assert "frozen layers in" not in told
    else:
        assert f"frozen layers in {chosen}: int8 moves 0.60 % of the probability" in told
        assert "times as long as in int8" in told


def test_float32_computes_only_what_is_compared(model, photos, tmp_path: Path, monkeypatch) -> None:
    """It takes four times as long as int8."""
    counts, features = [], tested._features

    def counted(model, photos, *how):
        counts.append(len(photos))
        return features(model, photos, *how)

    monkeypatch.setattr(tested, "_features", counted)
    monkeypatch.setattr(tested, "resolve_precision", lambda _: "float32")
    assert chosen_precision(model, photos, tmp_path, int8=True) in ("auto", "float32")
    assert counts == [len(photos) // 3, len(photos)]


def test_the_same_photos_are_computed_once(model, photos, tmp_path: Path, monkeypatch) -> None:
    """The cache keeps what is measured, and gives the same answer; without it nothing is kept."""
    measured, moved_by = [], tested.moved_by_rounding

    def recorded(*arguments):
        measured.append(moved_by(*arguments))
        return measured[-1]

    monkeypatch.setattr(tested, "moved_by_rounding", recorded)
    monkeypatch.setattr(tested, "resolve_precision", lambda _: "float32")
    chosen = chosen_precision(model, photos, tmp_path / "off", int8=True, keep=False)
    assert not list(tmp_path.glob("off/*/*.shard"))
    assert chosen_precision(model, photos, tmp_path / "kept", int8=True) == chosen
    assert len(list(tmp_path.glob("kept/*/*.shard"))) == 2  # float32 and int8

    def computed_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tested, "make_extractor", computed_again)
    assert chosen_precision(model, photos[::-1], tmp_path / "kept", int8=True) == chosen
    assert measured == [measured[0]] * 3


def test_without_room_it_is_measured_all_the_same(
    model, photos, tmp_path: Path, monkeypatch, capsys
):
    """A run of ``--cache auto`` whose features pass the limit goes on with the cache off."""
    monkeypatch.setattr(tested, "resolve_precision", lambda _: "float32")
    roomy = chosen_precision(model, photos, tmp_path / "roomy", int8=True)
    full = Quota(tmp_path / "full", 1)
    assert choose_precision(model, "vgg16", "w", photos, full, int8=True) == roomy
    assert "12 photos in int8 are not kept: expected room" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not list(tmp_path.glob("full/*/*.shard"))


def test_float32_needs_no_measuring(model, photos, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tested, "resolve_precision", lambda _: "float32")
    monkeypatch.setattr(tested, "make_extractor", None)
    assert chosen_precision(model, photos, tmp_path, int8=False) == "auto"


@pytest.mark.parametrize(
    ("of_each", "looked_at"),
    [([500, 500], 96), ([500, 7], 96), ([2, 1], 3), ([10] * 40, 120), ([10] * 63 + [2], 192)],
)
def test_each_class_is_looked_at(of_each, looked_at) -> None:
    photos = photos_of(of_each)
    found = some_of_each_class(photos)
    assert found == some_of_each_class(photos[::-1])  # whatever the order
    targets = [photo.target for photo in found]
    assert targets == sorted(targets)
    assert len({photo.name for photo in found}) == len(found) == looked_at
    seen = Counter(targets)
    assert all(seen[target] >= min(3, count) for target, count in enumerate(of_each))


def test_of_very_many_classes_some_are_looked_at_well() -> None:
    counts = Counter(photo.target for photo in some_of_each_class(photos_of([10] * 1000)))
    assert len(counts) == 64
    assert set(counts.values()) == {3}


def photos_of(of_each: list[int]) -> list[Photo]:
    numbers = [(target, n) for target, count in enumerate(of_each) for n in range(count)]
    return [
        Photo(Path(), f"{target}/{n}", sha256(f"{target}/{n}".encode()).hexdigest(), target)
        for target, n in numbers
    ]


def test_the_arithmetic_is_told_when_it_is_chosen(photos, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(setup, "resolve_frozen_precision", lambda _: "int8")
    monkeypatch.setattr(setup, "choose_precision", lambda *_, **__: "float32")
    monkeypatch.setattr(setup, "dataset_of", lambda *_: Mock())
    monkeypatch.setattr(app.network.vgg, "FILTERS", (4, 4, 8, 8, 8))
    config = TrainConfig(runs=tmp_path, image_size=32, weights="none")
    made = setup.set_up(config, 2, {"train": photos, "validation": photos})
    told = capsys.readouterr().err
    assert told.count("Training from random weights") == 1  # nothing is loaded twice
    first, _ = setup.classifier_of(config, 2, "float32")
    for layer in first.layers:
        again = made.model.get_layer(layer.name)
        assert again.compute_dtype == "float32"
        for one, two in zip(layer.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
    assert "frozen layers in float32, trained ones in float32" in told
    assert "int8" not in told
