"""What is said of one file: a class with its probabilities, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.errors import ImageError
from app.reading import read_bytes


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes:
        path: as it was given.
        label: the likeliest class; None when the file could not be read.
        probabilities: by class, in the bundle's order, adding up to 1; None likewise.
        error: why there is no answer; None when there is one.
    """

    path: str
    label: str | None
    probabilities: dict[str, float] | None
    error: str | None


def unanswered(path: str) -> Answer:
    """Return the answer for a file that cannot be opened, without loading a network for it."""
    try:
        read_bytes(Path(path))
    except ImageError as error:
        return Answer(path, None, None, str(error))
    return Answer(path, None, None, "it appeared only now; ask again")
