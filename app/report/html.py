"""What a notebook cell shows: a table, a picture with its alternative text, a block of words.

Each knows the forms that Jupyter asks for, so a cell may simply end with one. User's text (names
of files and classes) is escaped here, by ``app.core.sanitise``.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from app.core.sanitise import for_html
from app.core.sanitise import shown as shown  # for notebooks/report.py
from app.data.decode import Pixels

DPI = 160  # sharp on a screen that packs two pixels into one, some 40 kB a figure
# Bytes of a thumbnail: a report's hundred pictures take less than 4.5 MB, whatever they show.
MAX_THUMBNAIL = 30_000
_FLAG = re.compile(r"(?<!\S)--[a-z]+(-[a-z]+)*")
QUALITIES = (80, 60, 40, 20, 5)  # of JPEG, until a thumbnail is small enough


@dataclass(frozen=True)
class Table:
    """A table; numbers stand right, words left, by the type of the first row's cells.

    Where the first title is empty, the first column names the rows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def _repr_html_(self) -> str:
        first = self.rows[0] if self.rows else self.header
        right = [isinstance(cell, Number) for cell in first]
        scopes = ["col" if title else "" for title in self.header]
        head = _row(self.header, right, scopes)
        scopes = ["" if title else "row" for title in self.header]
        body = "\n".join(_row(row, right, scopes) for row in self.rows)
        # A wide table scrolls on its own, and a keyboard must reach it for that.
        label = for_html(", ".join(filter(None, self.header)))
        return (
            f'<div class="table" role="region" tabindex="0" aria-label="Table: {label}"><table>\n'
            f"<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>"
        )

    def __repr__(self) -> str:
        return f"a table of {len(self.rows)} rows"


class Number(str):
    """The text of a number, with its unit or separators, that a table puts to the right."""


@dataclass(frozen=True)
class Picture:
    """A figure as PNG; ``alt`` says in words what it shows, for those who do not see it."""

    figure: Figure
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        file = io.BytesIO()
        with warnings.catch_warnings():
            # Of a name in an alphabet that no font here has; the page's tables have it.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            # Without the name of the software the same figure gives the same bytes.
            self.figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        width = round(self.figure.get_size_inches()[0] * 100)
        return (
            {
                "image/png": base64.b64encode(file.getvalue()).decode(),
                "text/plain": shown(self.alt),
            },
            {"image/png": {"alt": shown(self.alt), "width": width}},
        )

    def __repr__(self) -> str:
        return shown(self.alt)


@dataclass(frozen=True)
class Card:
    """Small pictures side by side with one caption; each is uint8 ``(h, w, 3)`` with its words."""

    pictures: Sequence[tuple[Pixels, str]]
    caption: str

    def html(self) -> str:
        """Return the card as an item of a list."""
        images = "".join(
            f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg(pixels)).decode()}" '
            f'width="{pixels.shape[1]}" height="{pixels.shape[0]}" alt="{for_html(words)}">'
            for pixels, words in self.pictures
        )
        return (
            f'<li><figure><div class="shots">{images}</div>'
            f"<figcaption>{_breakable(self.caption)}</figcaption></figure></li>"
        )


@dataclass(frozen=True)
class Gallery:
    """Cards in rows, as many in a row as have room; ``kind`` is a class of the style sheet."""

    cards: Sequence[Card]
    kind: str = "single"

    def _repr_html_(self) -> str:
        # The role: some screen readers do not call a list one that has no bullets.
        items = "\n".join(card.html() for card in self.cards)
        return f'<ul class="gallery {self.kind}" role="list">\n{items}\n</ul>'

    def __repr__(self) -> str:
        return "\n".join(shown(card.caption) for card in self.cards)


def jpeg(pixels: Pixels) -> bytes:
    """Return a small picture as JPEG, in the best quality that ``MAX_THUMBNAIL`` has room for."""
    image = Image.fromarray(pixels)
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_THUMBNAIL:
            break
    return file.getvalue()


@dataclass(frozen=True)
class Verdict:
    """The one number that matters, large, with a sentence for everyone under it."""

    number: str
    detail: str
    sentence: str

    def _repr_html_(self) -> str:
        return (
            f'<div class="verdict"><p><strong class="number">{for_html(self.number)}</strong> '
            f"{for_html(self.detail)}</p>\n<p>{for_html(self.sentence)}</p></div>"
        )

    def __repr__(self) -> str:
        return shown(f"{self.number} {self.detail}. {self.sentence}")


@dataclass(frozen=True)
class Words:
    """A paragraph made of data; ``--flags`` in it stand in one piece."""

    text: str

    def _repr_html_(self) -> str:
        text = for_html(" ".join(self.text.split())).replace(" %", "&nbsp;%")
        return "<p>" + _FLAG.sub(r"<code>\g<0></code>", text) + "</p>"

    def __repr__(self) -> str:
        return shown(self.text)


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str

    def _repr_html_(self) -> str:
        return f'<pre class="command">{for_html(self.text)}</pre>'

    def __repr__(self) -> str:
        return shown(self.text)


def percent(share: float, digits: int = 1) -> Number:
    """Write a share as a percentage: ``98.4 %``."""
    return Number(f"{100 * share:.{digits}f} %")


def number(value: float, digits: int = 0) -> Number:
    """Write a number with separators: ``7,081,474`` or ``0.0523``."""
    return Number(f"{value:,.{digits}f}")


def interval(ends: Sequence[float]) -> str:
    """Write an interval of shares: ``0.9812–0.9904``."""
    low, high = ends
    return f"{low:.4f}–{high:.4f}"


def duration(seconds: float) -> str:
    """Write a time for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``1 h 7 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _row(cells: Iterable[object], right: Sequence[bool], scopes: Sequence[str]) -> str:
    """Write a row; a cell with a scope names its column or row."""
    written = []
    for cell, at_right, scope in zip(cells, right, scopes, strict=True):
        tag = "th" if scope else "td"
        attributes = f' scope="{scope}"' if scope else ""
        attributes += ' class="right"' if at_right else ""
        written.append(f"<{tag}{attributes}>{for_html(cell)}</{tag}>")
    return f"<tr>{''.join(written)}</tr>"


def _breakable(text: str) -> str:
    """Escape text that may be broken after a slash, and not before a percent sign."""
    return for_html(text).replace("/", "/<wbr>").replace(" %", "&nbsp;%")
