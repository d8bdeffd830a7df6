"""Everything that can go wrong for a user, as one small tree.

    AppError                 exit 1
    ├── UsageError           exit 2   an argument, a folder or a setting is wrong
    ├── DataError            exit 2   the photos do not make a training set
    ├── BundleError          exit 2   there is no usable classifier to predict with
    ├── ImageError           exit 1   one file cannot be used as a photo
    ├── FetchError           exit 1   files could not be downloaded, unpacked or written
    ├── WeightsError         exit 1   the ImageNet weights are missing or wrong
    ├── CacheEvictedError    exit 1   cached activations vanished while they were needed
    └── ExportError          exit 1   the exported model disagrees with the trained one

A message is one line: what was expected, what was received, how to mend it. The command line
prints it without a traceback; a program catches ``AppError``.
"""

from __future__ import annotations

from typing import ClassVar


class AppError(Exception):
    """The root: an expected failure whose message is meant for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(AppError):
    """Raised when an argument, a path or a setting cannot be what was meant."""

    exit_code = 2


class DataError(AppError):
    """Raised when a folder does not hold photos of at least two classes, enough of each."""

    exit_code = 2


class BundleError(AppError):
    """Raised when a bundle is missing, incomplete, damaged or of an unknown format version."""

    exit_code = 2


class ImageError(AppError):
    """Raised when one file cannot be decoded into a photo; the others are not concerned.

    Attributes:
        code: the kind of reason, one of ``app.data.manifest.REASONS``.
    """

    def __init__(self, message: str, code: str = "damaged") -> None:
        super().__init__(message)
        self.code = code


class FetchError(AppError):
    """Raised when a download, an archive or a folder to write fails; nothing half-done stays."""


class WeightsError(AppError):
    """Raised when no road leads to the official weights, or a file differs from them."""


class CacheEvictedError(AppError):
    """Raised when cached rows that were there are not: removed by others, or broken since."""


class ExportError(AppError):
    """Raised by the parity gate: a bundle that disagrees with its model is not written."""
