"""The labels of answers that are no classes."""

from __future__ import annotations

NEITHER = "neither"  # it shows none of the classes
UNSURE = "unsure"  # no class is likely enough
RESERVED = {NEITHER, UNSURE}  # by which no class may be called
