"""Seconds and memory by phase."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from app.core.profiling import Clock, peak_memory

MEGABYTES = 200
MOST = 1e9


def test_phases_are_timed_and_the_rest_is_in_the_total() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.phase("audit"):
            pass
    total = clock.total()
    assert list(total) == ["audit", "total"]
    assert 0 <= total["audit"] <= total["total"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_memory_is_counted_in_bytes_and_never_falls() -> None:
    clock = Clock()
    with clock.phase("small"):
        pass
    known = clock.memory["small"]
    assert 10e6 < known < 1e12, "bytes, whatever unit the system counts in"
    if known < MOST:  # what other tests have left would have to be exceeded
        with clock.phase("large"):
            np.ones(known + MEGABYTES * 1_000_000, np.uint8)
        assert clock.memory["large"] >= known + 0.9 * MEGABYTES * 1e6
    with clock.phase("after"):
        pass
    assert clock.memory["after"] == max(clock.memory.values())


def test_windows_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory() is None
    clock = Clock()
    with clock.phase("audit"):
        pass
    assert clock.memory == {}
