"""Memory that does not suffice is answered by smaller batches, whichever backend reports it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from app.core.console import say
from app.core.errors import AppError, out_of_memory

T = TypeVar("T")


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
