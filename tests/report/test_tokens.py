"""The colours of all pages: told apart by everybody, on light and on dark pages.

Colour blindness is simulated with the matrices of Machado et al. 2009, "A Physiologically-based
Model for Simulation of Color Vision Deficiency", at severity 1, which act on linear RGB. Distances
are Euclidean in Oklab (Ottosson 2020), in which white and black are 1 apart.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageColor

from app.report.tokens import CLASS_COLOURS, COLOURS, class_colour, read_tokens, with_tokens

Floats = NDArray[np.float64]
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
ANSWERS = ("right", "wrong", "neither", "unsure")
EASILY = (*ANSWERS, "class-1", "class-2")


def linear(colour: str) -> Floats:
    shares = np.array(ImageColor.getrgb(colour)) / 255
    found: Floats = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return found


def distance(one: str, other: str) -> float:
    """Return how far two colours are apart for those who tell them apart the least."""
    lights = np.stack([linear(one), linear(other)], axis=1)
    seen = [np.clip(sight @ lights, 0, 1) for sight in SIGHTS.values()]
    places = [TO_OKLAB @ np.cbrt(TO_LMS @ each) for each in seen]
    return min(float(np.linalg.norm(place[:, 0] - place[:, 1])) for place in places)


def contrast(one: str, other: str) -> float:
    """Return WCAG's contrast, 1 to 21."""
    low, high = sorted(float(linear(each) @ (0.2126, 0.7152, 0.0722)) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_distance_by_hand() -> None:
    assert distance("#ffffff", "#000000") == pytest.approx(1, abs=0.01)
    assert distance("#d00000", "#707000") < 0.12, "red and olive, of one brightness"
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


@pytest.mark.parametrize("dark", [False, True])
def test_everybody_tells_the_colours_apart(dark: bool) -> None:
    colours = read_tokens(dark)
    marked = {name: colour for name, colour in colours.items() if name.startswith("class-")}
    marked |= {name: colours[name] for name in ANSWERS}
    assert len(marked) == 10
    for one, other in combinations(marked, 2):
        least = 0.12 if {one, other} <= set(EASILY) else 0.055
        assert distance(marked[one], marked[other]) > least, (one, other)
    assert distance(COLOURS["for"], COLOURS["against"]) > 0.2


@pytest.mark.parametrize("dark", [False, True])
def test_colours_are_seen_on_the_page_and_words_are_read(dark: bool) -> None:
    colours = COLOURS | read_tokens(dark)
    for name in (*EASILY, *(f"class-{n}" for n in range(3, 7))):
        # Amber is pale on white, so it stands with a sign and a word.
        assert contrast(colours[name], colours["page"]) >= (2.2 if name == "unsure" else 3), name
    for name in ("text", "soft", "link"):
        for ground in ("page", "box"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def test_figures_name_the_colours_that_a_page_has() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS), "a colour has one name"
    drawn = f'<path style="fill: {COLOURS["text"]}; stroke: {class_colour(0)}"/> #123456'
    assert with_tokens(drawn) == (
        '<path style="fill: var(--text); stroke: var(--class-1)"/> #123456'
    )
    assert set(read_tokens(dark=True)) <= set(COLOURS)
    assert class_colour(len(CLASS_COLOURS)) == class_colour(0)
