"""Memory that does not suffice is answered by smaller batches, whichever backend reports it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from app.core.console import say
from app.core.errors import AppError

T = TypeVar("T")

# Names, since importing a backend for its exceptions is not neutral: TensorFlow's, PyTorch's (of
# every version), Python's and NumPy's.
_TYPES = {"ResourceExhaustedError", "OutOfMemoryError", "MemoryError"}
# Whose exceptions need not be RuntimeErrors: ONNX Runtime's and TensorFlow's are not.
_LIBRARIES = {"onnxruntime", "tensorflow", "jax", "jaxlib", "torch"}
# What others say inside a general exception: XLA under JAX, CUDA, cuDNN and cuBLAS, PyTorch's
# processor allocator, ONNX Runtime, C++.
_WORDS = (
    "resource_exhausted",
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception, or one that it came from, means that memory did not suffice.

    Keras's JAX trainer, for one, fails a second time while it tidies up, and only the context of
    that tells what happened.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AppError):  # ours, whatever words it quotes
            return False
        text = str(seen).lower()
        if any(kind.__name__ in _TYPES for kind in type(seen).__mro__):
            return True
        library = type(seen).__module__.split(".")[0]
        theirs = isinstance(seen, RuntimeError) or library in _LIBRARIES
        if theirs and any(word in text for word in _WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def halving(attempt: Callable[[int], T], batch: int, what: str) -> T:
    """Return ``attempt(batch)``; where memory does not suffice, try again with half the batch.

    Args:
        attempt: does the whole work with batches of so many photos; called anew for each size.
        batch: the size to begin with.
        what: is named in the line that is said for each halving.

    Raises:
        AppError: when not even one photo at a time has room.
    """
    while True:
        try:
            return attempt(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
        # Here, where the exception is gone: its traceback held the tensors of the failed attempt.
        gc.collect()
        if batch == 1:
            raise AppError(
                f"expected memory for {what}; received too little even for one photo at a time; "
                "choose a smaller --image-size, or end what else uses the memory"
            )
        say(f"{what}: memory does not suffice for batches of {batch}; again with {batch // 2}")
        batch //= 2
