"""The labels of answers that are no classes."""

from __future__ import annotations

NEITHER = "neither"  # it shows none of the classes
UNSURE = "unsure"  # no class is likely enough
RESERVED = {NEITHER, UNSURE}  # by which no class may be called


def is_reserved(name: str) -> bool:
    """Say whether no class may be called so, whatever its case: people would mix them up."""
    return name.casefold() in RESERVED
