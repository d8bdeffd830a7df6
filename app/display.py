"""What a notebook cell shows: a table, a picture with its alternative text, a block of words.

Each knows the forms that Jupyter asks for, so a cell may simply end with one. User's text (names
of files and classes) is escaped here and nowhere else.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

DPI = 160  # sharp on a screen that packs two pixels into one, some 40 kB a figure


@dataclass(frozen=True)
class Table:
    """A table; numbers stand right, words left, by the type of the first row's cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def _repr_html_(self) -> str:
        first = self.rows[0] if self.rows else self.header
        right = [isinstance(cell, Number) for cell in first]
        head = _row(self.header, right, "th")
        body = "\n".join(_row(row, right, "td") for row in self.rows)
        return (
            f'<div class="table"><table>\n<thead>{head}</thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
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
        # Without the name of the software the same figure gives the same bytes.
        self.figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        width = round(self.figure.get_size_inches()[0] * 100)
        return (
            {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": self.alt},
            {"image/png": {"alt": self.alt, "width": width}},
        )

    def __repr__(self) -> str:
        return self.alt


@dataclass(frozen=True)
class Verdict:
    """The one number that matters, large, with a sentence for everyone under it."""

    number: str
    detail: str
    sentence: str

    def _repr_html_(self) -> str:
        return (
            f'<div class="verdict"><p><strong class="number">{html.escape(self.number)}</strong> '
            f"{html.escape(self.detail)}</p>\n<p>{html.escape(self.sentence)}</p></div>"
        )

    def __repr__(self) -> str:
        return f"{self.number} {self.detail}. {self.sentence}"


@dataclass(frozen=True)
class Words:
    """A paragraph made of data."""

    text: str

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(shown(self.text))}</p>"

    def __repr__(self) -> str:
        return shown(self.text)


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str

    def _repr_html_(self) -> str:
        return f'<pre class="command">{html.escape(shown(self.text))}</pre>'

    def __repr__(self) -> str:
        return shown(self.text)


def shown(text: object) -> str:
    """Return text that can be written anywhere: bytes of a name that are no UTF-8 become �."""
    return os.fsencode(str(text)).decode("utf-8", "replace")


def percent(share: float, digits: int = 1) -> Number:
    """Write a share as a percentage: ``98.4 %``."""
    return Number(f"{100 * share:.{digits}f} %")


def number(value: float, digits: int = 0) -> Number:
    """Write a number with separators: ``7,081,474`` or ``0.0523``."""
    return Number(f"{value:,.{digits}f}")


def duration(seconds: float) -> str:
    """Write a time for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``1 h 7 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _row(cells: Iterable[object], right: Sequence[bool], tag: str) -> str:
    starts = [f'<{tag} class="right">' if at_right else f"<{tag}>" for at_right in right]
    return "".join(
        ["<tr>"]
        + [f"{a}{html.escape(shown(b))}</{tag}>" for a, b in zip(starts, cells, strict=True)]
        + ["</tr>"]
    )
