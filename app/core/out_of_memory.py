"""Whether an exception means that memory did not suffice, whichever library reports it."""

from __future__ import annotations

from app.core.errors import AppError

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
    "can't start new thread",  # Python: a thread's stack is memory
    "failed to map segment",  # the system, of a library that is loaded
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
        theirs = isinstance(seen, RuntimeError | ImportError) or library in _LIBRARIES
        if theirs and any(word in text for word in _WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
