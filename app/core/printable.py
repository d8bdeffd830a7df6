"""Names that others have chosen, made harmless for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return text on one line, with an escape such as ``\x1b`` for all that a terminal would obey.

    These are control characters (a newline too), the marks that turn the reading direction, so
    that ``photo\u202egpj.exe`` would show as ``photoexe.jpg``, and bytes that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )
