"""The colours of ``tokens.css``, for figures: the style of the pages is their one source."""

from __future__ import annotations

import re
from pathlib import Path

TOKENS = Path(__file__).with_name("tokens.css")
_TOKEN = re.compile(r"--([\w-]+): (#[0-9a-f]{6});")
_ANY_COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def read_tokens(dark: bool = False) -> dict[str, str]:
    """Return the colours by name, such as ``class-1``: ``#rrggbb``, in small letters."""
    light, dark_ones = TOKENS.read_text(encoding="utf-8").split("@media")[:2]
    return dict(_TOKEN.findall(dark_ones if dark else light))


COLOURS = read_tokens()
CLASS_COLOURS = tuple(colour for name, colour in COLOURS.items() if name.startswith("class-"))
_NAMES = {colour: name for name, colour in COLOURS.items()}


def class_colour(number: int) -> str:
    """Return the colour of a class by its number, from 0; with many classes colours come again."""
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


def with_tokens(svg: str) -> str:
    """Write the colours of a drawing as tokens, so that it follows the page's dark mode."""
    return _ANY_COLOUR.sub(
        lambda found: f"var(--{_NAMES[found[0]]})" if found[0] in _NAMES else found[0], svg
    )
