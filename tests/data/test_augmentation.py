"""Views: the photo itself, and random crops that are the same whenever they are asked for."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from photos import make_photo

from app.core.errors import ChangedPhotoError
from app.data.augmentation import (
    MIN_AREA,
    MIRROR,
    View,
    _random_box,
    load_batches,
    load_views,
    make_view,
    refuse_changed,
    tta_views,
)
from app.data.decode import load_image
from app.data.manifest import Photo

CONTENT = hashlib.sha256(b"a photo").hexdigest()


def view(path: Path, number: int = 0, seed: int = 0) -> View:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return View(Photo(path, path.name, content, 0), number, seed)


@pytest.mark.parametrize("change", ["removed", "other bytes"])
def test_a_photo_that_changed_since_the_audit_is_named(tmp_path: Path, change: str) -> None:
    path = make_photo(tmp_path / "photo.jpg")
    seen = view(path)
    path.unlink()
    if change == "other bytes":
        make_photo(path, seed=5)
    with pytest.raises(ChangedPhotoError, match=r"photo\.jpg as it was"):
        seen.pixels(64)


def test_photos_that_are_gone_or_changed_are_missed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_photo(tmp_path / f"{n}.jpg", n) for n in range(4)]
    photos = [view(path).photo for path in paths]
    refuse_changed(photos, since=0)
    later = time.time() + 10
    with monkeypatch.context() as patch:  # what was not written since then is not read
        patch.setattr("app.data.augmentation.read_bytes", None)
        refuse_changed(photos, since=later)
    paths[1].unlink()
    paths[3].write_bytes(b"other")
    with pytest.raises(ChangedPhotoError, match=r"1\.jpg as .*No such file.*; put it back"):
        refuse_changed(photos, since=later)
    with pytest.raises(ChangedPhotoError, match=r"1\.jpg as .*, and 1 more photos are gone"):
        refuse_changed(photos, since=0)


def random_photo(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(300, 200), (1, 1), (3000, 7), (64, 64)])
@pytest.mark.parametrize("seed", [0, 7])
def test_contract_4_view_0_is_what_prediction_sees(
    tmp_path: Path, size: tuple[int, int], seed: int
) -> None:
    path = make_photo(tmp_path / "photo.jpg", size=size)
    expected = load_image(path, 64)
    assert (view(path, seed=seed).pixels(64) == expected).all()
    assert (load_views([view(path, seed=seed)], 64) == expected).all()
    assert (next(load_batches([view(path, seed=seed)], 64)) == expected).all()


def test_the_same_arguments_give_the_same_pixels() -> None:
    photo = random_photo()
    first, second = (make_view(photo, 32, content=CONTENT, view=1, seed=5) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize(
    "change", [{"view": 2}, {"seed": 6}, {"content": hashlib.sha256(b"another").hexdigest()}]
)
def test_another_view_seed_or_photo_gives_other_pixels(change: dict[str, int]) -> None:
    photo, arguments = random_photo(), {"content": CONTENT, "view": 1, "seed": 5}
    first = make_view(photo, 32, **arguments)
    assert (make_view(photo, 32, **{**arguments, **change}) != first).any()


def test_the_key_names_what_the_pixels_depend_on(tmp_path: Path) -> None:
    a, b = make_photo(tmp_path / "a.jpg", 1), make_photo(tmp_path / "b.jpg", 2)
    assert view(a, 0, seed=1).key == view(a, 0, seed=2).key
    assert view(a, MIRROR, seed=1).key == view(a, MIRROR, seed=2).key
    distinct = [
        view(a, MIRROR),
        view(a, 0),
        view(a, 1),
        view(a, 2),
        view(a, 1, seed=1),
        view(b, 0),
        view(b, 1),
    ]
    assert len({v.key for v in distinct}) == len(distinct)


def test_the_photo_is_not_changed() -> None:
    photo = random_photo()
    before = photo.copy()
    make_view(photo, 32, content=CONTENT, view=1, seed=0)
    assert (photo == before).all()


def test_about_half_of_the_views_are_mirrored() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[:, 30:] = 255
    views = [make_view(photo, 16, content=CONTENT, view=n, seed=0) for n in range(1, 401)]
    mirrored = sum(v[:, :4].mean() > v[:, -4:].mean() for v in views)
    assert 160 < mirrored < 240  # four standard deviations


def test_view_0_is_never_mirrored() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[:, 30:] = 255
    views = [make_view(photo, 16, content=CONTENT, view=0, seed=seed) for seed in range(20)]
    assert all((v[:, 0] == 0).all() and (v[:, -1] == 255).all() for v in views)


def test_light_changes_only_a_little() -> None:
    photo = np.full((40, 60, 3), (120, 90, 60), np.uint8)
    views = [make_view(photo, 16, content=CONTENT, view=n, seed=0) for n in range(1, 101)]
    light = np.array([v.mean() for v in views])
    assert 60 < light.min() < 85
    assert 95 < light.max() < 120


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (1, 1), (7, 3000)])
def test_a_crop_stays_within_the_photo_and_keeps_most_of_it(shape: tuple[int, int]) -> None:
    height, width = shape
    generator = np.random.default_rng(0)
    boxes = np.array([_random_box(shape, generator) for _ in range(1000)])
    left, top, right, bottom = boxes.T
    assert (boxes >= 0).all()
    assert right.max() <= width
    assert bottom.max() <= height
    areas = (right - left) * (bottom - top) / (width * height)
    assert areas.min() >= MIN_AREA * 0.99
    assert areas.min() < MIN_AREA * 1.1
    assert areas.max() > 0.9
    assert left.max() > 0.2 * width  # places differ: the crop is not always in the corner


@pytest.mark.parametrize("shape", [(1, 1), (7, 3000), (3000, 7), (2, 1)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    photo = random_photo(*shape)
    for number in range(1, 30):
        pixels = make_view(photo, 16, content=CONTENT, view=number, seed=0)
        assert pixels.shape == (16, 16, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("count", [0, 1, 4, 5, 13])
def test_batches_keep_the_order(tmp_path: Path, count: int) -> None:
    paths = [make_photo(tmp_path / f"{n}.png", seed=n) for n in range(5)]
    wanted = [view(paths[n % 5], n // 5) for n in range(count)]
    batches = list(load_batches(wanted, 16, batch=4))
    assert [len(batch) for batch in batches] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    for pixels, expected in zip((p for batch in batches for p in batch), wanted, strict=True):
        assert (pixels == expected.pixels(16)).all()


def test_the_mirror_image_is_that_of_the_resized_photo() -> None:
    """As the served model turns its input: after the resize, so that both see the same pixels."""
    photo = random_photo()
    straight = make_view(photo, 16, content=CONTENT, view=0, seed=0)
    mirrored = make_view(photo, 16, content=CONTENT, view=MIRROR, seed=3)
    np.testing.assert_array_equal(mirrored, straight[:, ::-1])
    assert tta_views(mirrored=True) == (0, MIRROR)
    assert tta_views(mirrored=False) == (0,)
