"""The prediction for one file: a class, that it shows none of them, or why there is none.

Those for a split, as arrays: ``app.evaluation.prediction_set``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path

from app.core.errors import ImageError
from app.data.photo_file import read_bytes
from app.inference.wording import in_words

TOP = 5  # classes that an answer names, however many there are


@dataclass(frozen=True)
class Likely:
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        path: as it was given.
        label: the likeliest class; ``neither`` for a photo unlike the training photos, ``unsure``
            where that class is not likely enough; None when the file could not be read.
        probabilities: by class, in the bundle's order, adding up to 1, as if it showed one of
            them; None likewise.
        novelty: 0 to 1, the higher, the less like the training photos; above the bundle's
            threshold the label is ``neither``; None likewise.
        error: why there is no answer; None when there is one.
        words: the answer in words (``app.inference.wording``); None as for the label.
        top: the five likeliest classes, the likeliest first, or all of fewer; None as for the
            label.
    """

    path: str
    label: str | None
    probabilities: dict[str, float] | None
    novelty: float | None
    error: str | None
    words: str | None = field(init=False)
    top: tuple[Likely, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        """Say the answer in words, and find the likeliest classes."""
        words = None
        if self.label is not None and self.probabilities is not None:
            words = in_words(
                self.label, list(self.probabilities), list(self.probabilities.values())
            )
        object.__setattr__(self, "words", words)
        top = None
        if self.probabilities is not None:
            likeliest = nlargest(TOP, self.probabilities.items(), key=lambda item: item[1])
            top = tuple(Likely(*item) for item in likeliest)
        object.__setattr__(self, "top", top)

    @property
    def likeliest(self) -> tuple[str, float] | None:
        """The likeliest class and its probability, whatever the label says."""
        if self.probabilities is None:
            return None
        return max(self.probabilities.items(), key=lambda item: item[1])


def unopened_prediction(path: str) -> Prediction:
    """Return the answer for a file that cannot be opened, without loading a network for it."""
    try:
        read_bytes(Path(path))
    except ImageError as error:
        return failed_prediction(path, str(error))
    return failed_prediction(path, "it appeared only now; ask again")


def failed_prediction(path: str, error: str) -> Prediction:
    """Return the answer for a file that cannot be read, and why."""
    return Prediction(path, None, None, None, error)
