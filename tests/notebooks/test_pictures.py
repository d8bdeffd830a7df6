"""The pictures of the lesson about transfer learning: what is drawn is what was given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from pictures import curve, evidence, show
from PIL import Image

GREY = np.full((8, 8, 3), 128, np.uint8)
WORDS = {"heading": "A photo is a $photo$", "alt": "two grey squares"}


def test_pictures_stand_in_rows_with_the_colour_of_their_class() -> None:
    picture = show([GREY] * 3, ["a", "b", "c"], labels=[0, 1, 0], columns=2, **WORDS)
    first, second, third, empty = picture.figure.axes
    assert [axes.get_title() for axes in (first, second, third)] == ["a", "b", "c"]
    colours = [to_hex(axes.spines["left"].get_edgecolor()) for axes in (first, second, third)]
    assert colours == ["#e07a3f", "#2a6fbb", "#e07a3f"]
    assert not empty.axison
    assert picture.alt == "two grey squares"
    assert picture.figure.get_suptitle() == "A photo is a $photo$"


def test_photos_are_kept_as_jpeg_with_their_words() -> None:
    data, about = show([GREY], columns=1, **WORDS)._repr_mimebundle_()
    assert data["text/plain"] == about["image/jpeg"]["alt"] == "two grey squares"
    with Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))) as image:
        assert image.format == "JPEG"
        assert about["image/jpeg"]["width"] == 900
        assert image.width == 1440  # sharp where two pixels are one


def test_maps_are_shown_from_their_smallest_to_their_largest_number() -> None:
    (axes,) = show([np.array([[1.0, 5.0]])], **WORDS, columns=1).figure.axes
    assert axes.images[0].get_clim() == (1, 5)
    assert not axes.spines["left"].get_visible()


def test_a_curve_says_each_mean() -> None:
    found = np.array([[0.5, 0.9], [0.7, 1.0]])
    (axes,) = curve([1, 10], found, others={"guessing": 0.5}, **WORDS).figure.axes
    assert [text.get_text() for text in axes.texts] == ["60 %", "95 %", "guessing"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10"]


@pytest.mark.parametrize(("side", "numbers"), [(5, 25), (10, 0)])
def test_evidence_is_written_on_its_places_where_there_is_room(side: int, numbers: int) -> None:
    tiles = np.linspace(-1, 2, side * side).reshape(side, side)
    photo, evidences = evidence(GREY, tiles, **WORDS).figure.axes
    assert len(evidences.texts) == numbers
    if numbers:
        assert evidences.texts[0].get_text() == "-1.0"
        assert evidences.texts[-1].get_text() == "+2.0"
    low, high = evidences.images[-1].get_clim()
    assert (low, high) == (-2, 2)  # white is 0
    assert len(photo.images) == 1


def test_evidence_for_a_class_has_its_colour() -> None:
    tiles = np.array([[-1.0, 1.0]])
    for label, colours in ((0, ["#2a6fbb", "#e07a3f"]), (1, ["#e07a3f", "#2a6fbb"])):
        _, axes = evidence(GREY, tiles, label=label, **WORDS).figure.axes
        image = axes.images[-1]
        assert [to_hex(image.cmap(image.norm(tile))) for tile in tiles[0]] == colours
    assert evidence(GREY, np.array([[-0.04]]), **WORDS).figure.axes[1].texts[0].get_text() == "+0.0"


def test_a_heading_that_is_too_long_is_broken() -> None:
    picture = show([GREY], heading="word " * 40, alt="grey", columns=1)
    assert picture.figure.get_suptitle().count("\n") == 2
