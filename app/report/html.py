"""Templates and figures → HTML that a page or a notebook cell shows.

The templates lie in ``app/report/templates``; those that end with ``.html.j2`` are escaped by
Jinja2 as they are filled in, so names of files and classes can hold anything.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image
from rich.filesize import decimal

from app.core import console
from app.core.safe_output import PAGE_MARK
from app.core.sanitise import shown
from app.data.decode import Pixels
from app.inference.wording import in_words, percentage

if TYPE_CHECKING:  # a page of figures that are drawn already needs no matplotlib
    from matplotlib.figure import Figure

DPI = 160  # sharp on a screen that packs two pixels into one, some 40 kB a figure
# Bytes of a thumbnail: a report's hundred pictures take less than 4.5 MB, whatever they show.
MAX_THUMBNAIL = 30_000
QUALITIES = (80, 60, 40, 20, 5)  # of JPEG, until a thumbnail is small enough
STYLE = Path(__file__).with_name("report.css")


class Number(str):
    """The text of a number, with its unit or separators, that a table puts to the right."""


class Html(Markup):
    """A part of a page: HTML for a notebook, its words for a terminal."""

    def _repr_html_(self) -> str:
        return str(self)

    @property
    def text(self) -> str:
        """The words alone, without tags and entities."""
        apart = str(self).replace("><", "> <")  # the cells of a table
        return " ".join(Markup(apart).striptags().replace("\xa0", " ").split())

    def __repr__(self) -> str:
        return self.text


class Parts:
    """The macros of a template, each of them a method that returns ``Html``.

    Args:
        template: name of a file in ``app/report/templates``.
        values: what all of its macros may use.
    """

    def __init__(self, template: str, **values: Any) -> None:
        self._module = environment().get_template(template).make_module(values)

    def __getattr__(self, name: str) -> Callable[..., Html]:
        macro = getattr(self._module, name)
        return lambda *arguments, **values: Html(macro(*arguments, **values))


@cache
def environment() -> Environment:
    """Return what fills in the templates; a value that was not given is an error."""
    made = Environment(
        loader=PackageLoader("app.report"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.filters |= {
        "percent": lambda share, digits=1: _unbroken(percent(share, digits)),
        "probability": lambda value: _unbroken(percentage(value)),
        "number": number,
        "duration": duration,
        "filesize": decimal,
        "right": Number,
        "breakable": _breakable,
        "jpeg": lambda pixels: base64.b64encode(jpeg(pixels)).decode(),
    }
    made.tests["numeric"] = lambda cell: isinstance(cell, Number)
    made.globals |= {
        "in_words": in_words,
        "page_mark": Markup(PAGE_MARK),
        "style": Markup(STYLE.read_text(encoding="utf-8")),
    }
    return made


@dataclass(frozen=True)
class Picture:
    """A figure as PNG; ``alt`` says in words what it shows, for those who do not see it."""

    figure: Figure
    alt: str

    @property
    def png(self) -> str:
        """Its pixels, as base64."""
        file = io.BytesIO()
        with warnings.catch_warnings():
            # Of a name in an alphabet that no font here has; the page's tables have it.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            # Without the name of the software the same figure gives the same bytes.
            self.figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        return base64.b64encode(file.getvalue()).decode()

    @property
    def width(self) -> int:
        """How wide a page shows it, in CSS pixels."""
        return round(100 * float(self.figure.get_size_inches()[0]))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        alt = repr(self)
        about = {"image/png": {"alt": alt, "width": self.width}}
        return {"image/png": self.png, "text/plain": alt}, about

    def __repr__(self) -> str:
        return shown(self.alt)


def jpeg(pixels: Pixels) -> bytes:
    """Return a small picture as JPEG, in the best quality that ``MAX_THUMBNAIL`` has room for."""
    image = Image.fromarray(pixels)
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_THUMBNAIL:
            break
    return file.getvalue()


def percent(share: float, digits: int = 1) -> Number:
    """Write a share as a percentage: ``98.4 %``."""
    return Number(console.percent(share, digits))


def number(value: float, digits: int = 0) -> Number:
    """Write a number with separators: ``7,081,474`` or ``0.0523``."""
    return Number(f"{value:,.{digits}f}")


def interval(ends: Sequence[float]) -> str:
    """Write an interval of shares: ``0.9812–0.9904``."""
    low, high = ends
    return f"{low:.4f}–{high:.4f}"


def duration(seconds: float) -> Number:
    """Write a time for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``1 h 7 min``."""
    if seconds < 9.95:
        return Number(f"{seconds:.1f} s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return Number(f"{minutes // 60} h {minutes % 60} min")
    return Number(f"{minutes} min {rest} s" if minutes else f"{rest} s")


def _unbroken(text: str) -> Number:
    """Keep a percent sign on the line of its number."""
    return Number(text.replace(" %", "\xa0%"))


def _breakable(text: str) -> Markup:
    """Escape text, unless a macro has done it, and let a line end after a slash."""
    return escape(shown(text) if type(text) is str else text).replace("/", Markup("/<wbr>"))
