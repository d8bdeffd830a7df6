"""Waiting for what another process or a page does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 180  # seconds: to train takes many where other programs run as well


def eventually(
    holds: Callable[[], Any], words: Callable[[], str] = lambda: "", seconds: float = PATIENCE
) -> Any:
    """Wait until something holds, and return it; fail with ``words`` after ``seconds``.

    A part of a page that is replaced while it is read does not hold yet.
    """
    latest = time.monotonic() + seconds
    while not (found := _now(holds)):
        assert time.monotonic() < latest, words()
        time.sleep(0.05)
    return found


def _now(holds: Callable[[], Any]) -> Any:
    try:
        return holds()
    except Exception as error:  # by its name: Selenium may be missing
        if type(error).__name__ != "StaleElementReferenceException":
            raise
        return None
