"""The labels of answers that are no classes."""

from __future__ import annotations

import unicodedata

NEITHER = "neither"  # it shows none of the classes
UNSURE = "unsure"  # no class is likely enough


def is_neither(name: str) -> bool:
    """Return whether a folder or a label of this name means none of the classes, in any case."""
    return plain_name(name).casefold() == NEITHER


def is_unsure(name: str) -> bool:
    """Return whether a name is that of the answer ``unsure``, in any case; no class has it."""
    return plain_name(name).casefold() == UNSURE


def is_reserved(name: str) -> bool:
    """Return whether no class may be called so, whatever its case: people would mix them up."""
    return is_neither(name) or is_unsure(name)


def plain_name(name: str) -> str:
    """Return the name of a class as it is compared: composed (NFC), without outer blanks.

    macOS writes the same letters decomposed, and nobody sees a blank at the end of a name.
    """
    return unicodedata.normalize("NFC", name).strip()
