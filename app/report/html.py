"""Templates and figures → HTML that a page or a notebook cell shows.

The templates lie in ``app/report/templates``; those that end with ``.html.j2`` are escaped by
Jinja2 as they are filled in, so names of files and classes can hold anything.
"""

from __future__ import annotations

import base64
import io
import re
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
from app.report.evidence import laid_over
from app.report.tokens import CLASS_COLOURS, COLOURS, TOKENS, with_tokens

if TYPE_CHECKING:  # a page of figures that are drawn already needs no matplotlib
    from matplotlib.figure import Figure

DPI = 160  # sharp on a screen that packs two pixels into one, some 40 kB a figure
# Bytes of a thumbnail: a report's hundred pictures take less than 4.5 MB, whatever they show.
MAX_THUMBNAIL = 30_000
QUALITIES = (80, 60, 40, 20, 5)  # of JPEG, until a thumbnail is small enough
STYLE = Path(__file__).with_name("report.css")
# Of matplotlib's SVG what a page does not need, or already has: its own declarations, a style that
# would hold for the whole page, names of parts, and fonts, since words are in the page's.
_NOT_INLINE = re.compile(
    r"""^.*?(?=<svg)|\ xmlns(:\w+)?="[^"]*"|\ (width|height)="[\d.]+pt"|\ version="1.1"
    |<metadata>.*?</metadata>|<style.*?</style>|(?<=<g)\ id="[^"]*"|(?<=")font-family:[^;"]*;
    |\ font-family:[^;"]*;|\ transform="rotate\(-0\ [^"]*"|\n\s*(?=<)""",
    re.DOTALL | re.VERBOSE,
)
_TAG, _DIGITS = re.compile("<[^>]*>"), re.compile(r"(\.\d\d)\d+")  # hundredths are enough


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
        "unbroken": _unbroken_words,
        "jpeg": lambda pixels: base64.b64encode(jpeg(pixels)).decode(),
        "png": lambda pixels: base64.b64encode(png(pixels)).decode(),
    }
    made.tests["numeric"] = lambda cell: isinstance(cell, Number)
    made.globals |= {
        "colours": COLOURS,
        "class_colours": len(CLASS_COLOURS),
        "laid_over": laid_over,
        "in_words": in_words,
        "page_mark": Markup(PAGE_MARK),
        "style": Markup("".join(file.read_text(encoding="utf-8") for file in (TOKENS, STYLE))),
    }
    return made


@dataclass(frozen=True)
class Picture:
    """A figure; ``alt`` says in words what it shows, for those who do not see it.

    Attributes:
        figure: to be drawn.
        alt: its words.
        inline: whether it is drawn as SVG for a page, which gives it fonts and colours
            (``tokens.css``); else as PNG, which every program that opens a notebook shows.
    """

    figure: Figure
    alt: str
    inline: bool = False

    @property
    def png(self) -> str:
        """Its pixels, as base64."""
        # Without the name of the software the same figure gives the same bytes.
        return base64.b64encode(self._saved("png", {"Software": None})).decode()

    @property
    def svg(self) -> Markup:
        """An element for a page: words stay words, colours are the tokens of the page."""
        import matplotlib as mpl

        unnamed = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        # Parts are named by what they are and the salt, so no two figures share a name.
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.alt}):
            text = self._saved("svg", unnamed).decode()
        drawn = _TAG.sub(
            lambda tag: with_tokens(_DIGITS.sub(r"\1", tag[0])), _NOT_INLINE.sub("", text).strip()
        )
        width = f'style="width: {self.width}px"'
        label = f'role="img" aria-label="{escape(repr(self))}"'
        return Markup(drawn.replace("<svg", f'<svg class="figure" {width} {label}', 1))

    @property
    def width(self) -> int:
        """How wide a page shows it, in CSS pixels."""
        return round(100 * float(self.figure.get_size_inches()[0]))

    def _saved(self, kind: str, metadata: dict[str, Any]) -> bytes:
        file = io.BytesIO()
        with warnings.catch_warnings():
            # Of a name in an alphabet that no font here has; the page's tables have it.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            self.figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)
        return file.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        alt = repr(self)
        if self.inline:
            return {"image/svg+xml": str(self.svg), "text/plain": alt}, {}
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


def png(pixels: Pixels) -> bytes:
    """Return a picture as PNG, which may be transparent: ``(height, width, 3 or 4)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
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
    """Keep a percent sign, and a ``>`` or ``<``, on the line of its number."""
    return Number(re.sub("(?<=[<>]) | (?=%)", "\xa0", text))


def _unbroken_words(text: str) -> Markup:
    """Escape text and keep each word of it on one line, also where it has a hyphen."""
    return Markup(" ").join(map(Markup("<span>{}</span>").format, shown(text).split(" ")))


def _breakable(text: str) -> Markup:
    """Escape text, unless a macro has done it, and let a line end after a slash."""
    return escape(shown(text) if type(text) is str else text).replace("/", Markup("/<wbr>"))
