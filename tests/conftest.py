"""What all tests share: one core for each process, and the longest files first."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile

import platformdirs
import pytest

# The networks of the tests are so small that a second thread only waits, and takes the core that
# the other process of ``make test`` needs. NumPy and TensorFlow read these when they are imported.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")

# What a shell begins in the background ignores Ctrl-C, and so would every program that tests begin.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What commands measure of engines stays out of the user's cache folder. Matplotlib's list of fonts
# is read from there: to make it takes seconds.
CACHE = tempfile.TemporaryDirectory()
os.environ.setdefault("MPLCONFIGDIR", str(platformdirs.user_cache_path("matplotlib")))
os.environ["XDG_CACHE_HOME"] = CACHE.name

# They read /proc and `resource`, which only Linux has.
collect_ignore = [] if sys.platform == "linux" else ["benchmarks"]

# Begun first, so that no process ends long before the other: a file is not divided.
LONGEST = (
    "test_road.py",
    "test_resume.py",
    "test_finetune.py",
    "test_linear_probe.py",
    "test_schedule.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of every later garbage collection: it stays."""
    gc.collect()
    gc.freeze()
