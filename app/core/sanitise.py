r"""Names that others have chosen, made harmless: one function for each place where they are shown.

Names of files and classes may hold anything but a NUL and a slash: bytes that are no UTF-8 (in
Python's strings lone surrogates, ``\udcff``), control characters, marks that turn the reading
direction, formulas, markup.
"""

from __future__ import annotations

import json
import re
from typing import Any

MARK = "'"  # makes text of what follows, in every spreadsheet

# Control characters but tab and newline, marks that turn the reading direction, ends of lines and
# of paragraphs. Joiners stay: Persian and emoji need them.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
_NO_UTF_8 = re.compile("[\ud800-\udfff]")
# Where a spreadsheet may see the beginning of a cell: quotes protect from the comma only. In many
# countries ``;`` separates cells, and a program may be set to split at tabs; then the end of a
# line inside quotes ends a row.
_BEGINNING = r"(?:\A|(?<=[;\t\r\n]))"
# What makes a formula of a cell; a quotation mark may hide one, and ``'`` must come back.
_FORMULA = r"(?=[=+\-@\t\r\n\"'])"
_TO_GUARD = re.compile(_BEGINNING + _FORMULA)
_GUARDED = re.compile(_BEGINNING + MARK + _FORMULA)


def for_terminal(text: str) -> str:
    r"""Return text on one line, with an escape such as ``\x1b`` for all that a terminal would obey.

    These are control characters (a newline too), the marks that turn the reading direction, so
    that ``photo\u202egpj.exe`` would show as ``photoexe.jpg``, and bytes that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def for_csv(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula: with ``'`` before ``=``.

    Spreadsheets run what begins with ``= + - @``, a tab or the end of a line, wherever they see the
    beginning of a cell: ``x;=1+1`` has one behind the semicolon. ``'`` itself gets one more there,
    so that ``from_csv`` gives back what was written. Text cells are to be quoted besides
    (``csv.QUOTE_NONNUMERIC``).
    """
    return _TO_GUARD.sub(MARK, text)


def from_csv(cell: str) -> str:
    """Return the text that ``for_csv`` made a cell of."""
    return _GUARDED.sub("", cell)


def for_json(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON in ASCII: every name comes back from it as it was, and none acts.

    Bytes that are no UTF-8 are written as ``\udcff``, which Python reads as it has written it.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    return json.dumps(value, indent=indent, allow_nan=False)


def shown(text: object) -> str:
    r"""Return text for figures, captions and notebooks: bytes that are no UTF-8 become �.

    What would turn the reading direction, or is a control character, becomes an escape such as
    ``\u202e``; tabs and newlines stay.
    """
    return _COMMANDS.sub(lambda found: _escape(found[0]), _NO_UTF_8.sub("�", str(text)))


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
