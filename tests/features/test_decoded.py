"""Decoded photos: the same pixels, decoded once, within their room."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from photos import as_photo, make_photo

from app.core.errors import AppError
from app.data.augmentation import View, load_views, read_photo
from app.data.manifest import Photo
from app.features.decoded import DecodedPhotos

SIZES = [(48, 32), (33, 77), (200, 3), (1, 1), (64, 64), (120, 90)]


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return [
        as_photo(make_photo(tmp_path / f"{n}.jpg", n, size=size)) for n, size in enumerate(SIZES)
    ]


def remove(photos: list[Photo]) -> None:
    for photo in photos:
        photo.path.unlink()


def test_views_are_those_of_the_photos_and_decoded_once(photos, tmp_path):
    decoded = DecodedPhotos(tmp_path / "scratch", 10**6)
    wanted = [View(photo, number, 5) for number in range(3) for photo in photos]
    expected = load_views(wanted, 24)
    load_views(wanted[: len(photos)], 24, decoded)
    remove(photos)  # what is decoded again would fail now
    for _ in range(2):
        np.testing.assert_array_equal(load_views(wanted, 24, decoded), expected)


def test_the_room_is_kept_and_the_first_ones_stay(photos, tmp_path):
    room = 2 * mmap.ALLOCATIONGRANULARITY + 100
    decoded = DecodedPhotos(tmp_path, room)
    for photo in 2 * photos:
        np.testing.assert_array_equal(decoded(photo), read_photo(photo))
    assert decoded._file is not None
    assert decoded._file.seek(0, 2) <= room
    kept = [photo for photo in photos if photo.content in decoded._places]
    assert kept[0] == photos[0]
    assert 1 < len(kept) < len(photos)
    remove(photos)
    for photo in photos:
        if photo in kept:
            assert decoded(photo).dtype == np.uint8
            continue
        with pytest.raises(AppError, match="as it was when training began"):
            decoded(photo)


@pytest.mark.parametrize("room", [-5, 0, 2])
def test_without_room_photos_are_decoded_each_time(photos, tmp_path, room):
    folder = tmp_path / "scratch"
    decoded = DecodedPhotos(folder, room)
    for photo in photos:
        np.testing.assert_array_equal(decoded(photo), read_photo(photo))
    assert not folder.exists()


def test_a_full_disk_only_ends_the_keeping(photos, tmp_path, monkeypatch):
    decoded = DecodedPhotos(tmp_path, 10**6)
    decoded(photos[0])

    class Full:
        """The file, on a disk without room."""

        def __init__(self, file):
            self.fileno, self.seek = file.fileno, file.seek

        def write(self, data):
            raise OSError(28, "No space left on device")

    decoded._file = Full(decoded._file)  # type: ignore[assignment]
    np.testing.assert_array_equal(decoded(photos[1]), read_photo(photos[1]))
    np.testing.assert_array_equal(decoded(photos[0]), read_photo(photos[0]))
    assert list(decoded._places) == [photos[0].content]


def test_threads_may_ask_at_once(photos, tmp_path):
    decoded = DecodedPhotos(tmp_path, 10**6)
    expected = {photo: read_photo(photo) for photo in photos}
    with ThreadPoolExecutor(8) as pool:
        asked = [photo for _ in range(40) for photo in photos]
        for photo, pixels in zip(asked, pool.map(decoded, asked), strict=True):
            np.testing.assert_array_equal(pixels, expected[photo])
    assert decoded._end == sum(
        -(-3 * w * h // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY for w, h in SIZES
    )


def test_nothing_is_left_behind(photos, tmp_path):
    folder = tmp_path / "scratch"
    decoded = DecodedPhotos(folder, 10**6)
    decoded(photos[0])
    del decoded
    assert list(folder.iterdir()) == []
