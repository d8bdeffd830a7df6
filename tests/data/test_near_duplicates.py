"""Near-duplicates: found where one picture was saved twice, and nowhere else."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from photos import picture
from PIL import Image, ImageDraw, ImageEnhance

import app.data.near_duplicates
from app.data.decode import read_image
from app.data.near_duplicates import (
    MAX_DISTANCE,
    MIN_CORRELATION,
    Fingerprint,
    fingerprint,
    near_duplicates,
)
from app.data.sets.synthetic_pets import KINDS, draw_animal

PHOTO = picture(1, (240, 180))


def saved(image: Image.Image, **options: object) -> np.ndarray:
    """Return the pixels of an image that went through a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return read_image(file.getvalue())


def groups_of(*images: Image.Image) -> list[list[int]]:
    return near_duplicates([fingerprint(np.asarray(image)) for image in images])


CHANGED = {
    "quality 30": saved(PHOTO, quality=30),
    "half as large": saved(PHOTO.resize((120, 90))),
    "a quarter as large": saved(PHOTO.resize((60, 45))),
    "twice as large": saved(PHOTO.resize((480, 360))),
    "squeezed": saved(PHOTO.resize((180, 180))),
    "a pixel cut off": saved(PHOTO.crop((1, 1, 240, 180))),
    "darker": saved(ImageEnhance.Brightness(PHOTO).enhance(0.8)),
    "more contrast": saved(ImageEnhance.Contrast(PHOTO).enhance(1.1)),
}


@pytest.mark.parametrize("change", CHANGED)
def test_the_same_picture_is_found_again(change: str) -> None:
    others = [fingerprint(np.asarray(picture(seed, (240, 180)))) for seed in range(2, 30)]
    prints = [*others[:10], fingerprint(CHANGED[change]), *others[10:], fingerprint(saved(PHOTO))]
    assert near_duplicates(prints) == [[10, 29]]


def test_all_versions_of_a_picture_are_one_group() -> None:
    prints = [fingerprint(pixels) for pixels in CHANGED.values()]
    assert near_duplicates(prints) == [list(range(len(CHANGED)))]


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_a_turned_picture_is_another_one(turn: Image.Transpose) -> None:
    assert groups_of(PHOTO, PHOTO.transpose(turn)) == []


def test_the_same_shape_in_another_colour_is_another_picture() -> None:
    discs = []
    for colour in ("red", "green", "blue", "orange"):
        disc = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(disc).ellipse((10, 20, 40, 50), colour)
        discs.append(disc)
    bits = [fingerprint(np.asarray(disc)).phash for disc in discs]
    assert all((a ^ b).bit_count() <= MAX_DISTANCE for a, b in combinations(bits, 2))
    assert groups_of(*discs) == []


def test_pictures_of_one_colour_are_like_nothing() -> None:
    assert groups_of(*[Image.new("RGB", (40, 30), "teal")] * 2) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 7), (2, 2), (33, 31)])
def test_every_size_has_a_fingerprint(size: tuple[int, int]) -> None:
    found = fingerprint(np.asarray(PHOTO.resize(size)))
    assert 0 <= found.phash < 2**64
    assert (found.thumbnail.shape, found.thumbnail.dtype) == ((16, 16, 3), np.uint8)


def test_drawings_that_are_no_copies_are_not_taken_for_any() -> None:
    generator = np.random.default_rng(5)
    assert groups_of(*(draw_animal(KINDS[n % 2], generator).image for n in range(60))) == []


@pytest.mark.slow
def test_of_a_thousand_drawings_no_two_are_alike() -> None:
    generator = np.random.default_rng(6)
    assert groups_of(*(draw_animal(KINDS[n % 2], generator).image for n in range(1000))) == []


# ---- the search itself, on made-up fingerprints ----

THUMBNAIL = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def made_up(phash: int, *, noise: float = 0.0, seed: int = 0) -> Fingerprint:
    other = np.random.default_rng(seed + 1).integers(0, 256, THUMBNAIL.shape)
    mixed = (1 - noise) * THUMBNAIL + noise * other
    return Fingerprint(phash, mixed.astype(np.uint8))


def bits(count: int) -> int:
    return 2**count - 1


def test_the_distance_has_a_limit() -> None:
    assert near_duplicates([made_up(0), made_up(bits(MAX_DISTANCE))]) == [[0, 1]]
    assert near_duplicates([made_up(0), made_up(bits(MAX_DISTANCE + 1))]) == []
    assert near_duplicates([made_up(0), made_up(bits(MAX_DISTANCE) << 58)]) == [[0, 1]]


def test_likeness_goes_on_from_photo_to_photo() -> None:
    chain = [made_up(bits(MAX_DISTANCE * step)) for step in range(5)]
    strangers = [made_up(0, noise=1.0, seed=seed) for seed in range(3)]
    assert near_duplicates([*chain[::2], *strangers, *chain[1::2]]) == [[0, 1, 2, 6, 7]]
    assert near_duplicates([chain[0], *strangers, *chain[3:]]) == [[4, 5]]


def test_the_small_pictures_decide() -> None:
    assert near_duplicates([made_up(0), made_up(0, noise=0.05)]) == [[0, 1]]
    assert near_duplicates([made_up(0), made_up(0, noise=0.3)]) == []


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_chunks_find_what_all_pairs_at_once_do(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    prints = [
        made_up(bits(int(b)), noise=float(n), seed=int(s))
        for b, n, s in zip(
            generator.choice([0, 5, 10, 20, 25, 40, 55], 60),
            generator.choice([0, 0.6], 60),
            generator.integers(0, 3, 60),
            strict=True,
        )
    ]
    rows = np.corrcoef([print_.thumbnail.ravel() for print_ in prints])
    group = list(range(len(prints)))
    for a, b in combinations(range(len(prints)), 2):
        distance = (prints[a].phash ^ prints[b].phash).bit_count()
        if distance <= MAX_DISTANCE and rows[a, b] >= MIN_CORRELATION:
            group = [group[a] if g == group[b] else g for g in group]
    named = [[n for n, g in enumerate(group) if g == name] for name in dict.fromkeys(group)]
    monkeypatch.setattr(app.data.near_duplicates, "CHUNK", chunk)
    expected = sorted(numbers for numbers in named if len(numbers) > 1)
    assert len(expected) > 3
    assert near_duplicates(prints) == expected


def test_no_photos_have_no_groups() -> None:
    assert near_duplicates([]) == []
