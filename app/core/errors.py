"""Everything that can go wrong for a user: one class for each kind of failure, with its exit code.

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


class ChangedPhotoError(AppError):
    """Raised when a photo vanished or changed while a run is trained; put back, it goes on.

    Args:
        path: of the photo.
        reason: what was found in its place; kept as an attribute.
        others: how many more photos are like this.
    """

    def __init__(self, path: object, reason: str, others: int = 0) -> None:
        self.reason = reason
        self._given = (path, reason, others)
        more = f", and {others} more photos are gone or changed" if others else ""
        super().__init__(
            f"expected {path} as it was when training began; received: {reason}{more}; put it back"
        )

    def __reduce__(self) -> tuple[type[ChangedPhotoError], tuple[object, str, int]]:
        """Let it be sent from a process to another."""
        return type(self), self._given


class FetchError(AppError):
    """Raised when a download, an archive or a folder to write fails; nothing half-done stays."""


class WeightsError(AppError):
    """Raised when the official weights cannot be downloaded, or a file differs from them."""


class CacheEvictedError(AppError):
    """Raised when rows of the feature cache were removed or damaged after they were written."""


class ExportError(AppError):
    """Raised when an exported model disagrees with the trained one; it is not written."""


# Names, since importing a backend for its exceptions is not neutral: TensorFlow's, PyTorch's (of
# every version), Python's and NumPy's.
_MEMORY_TYPES = {"ResourceExhaustedError", "OutOfMemoryError", "MemoryError"}
# Whose exceptions need not be RuntimeErrors: ONNX Runtime's and TensorFlow's are not.
_LIBRARIES = {"onnxruntime", "tensorflow", "jax", "jaxlib", "torch"}
# What others write into a general exception: XLA under JAX, CUDA, cuDNN and cuBLAS, PyTorch's
# processor allocator, ONNX Runtime, C++.
_MEMORY_WORDS = (
    "resource_exhausted",
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "can't start new thread",  # Python: a thread's stack is memory
    "failed to map segment",  # the system, of a library that is loaded
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one that it came from, means too little memory.

    Keras's JAX trainer, for one, fails a second time while it cleans up, and only the context of
    that exception shows the reason.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AppError):  # ours, whatever words it quotes
            return False
        if any(kind.__name__ in _MEMORY_TYPES for kind in type(seen).__mro__):
            return True
        library = type(seen).__module__.split(".")[0]
        theirs = isinstance(seen, RuntimeError | ImportError) or library in _LIBRARIES
        if theirs and any(word in str(seen).lower() for word in _MEMORY_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
