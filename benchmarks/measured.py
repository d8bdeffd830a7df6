"""A command as a process of its own, measured from outside: seconds and peak memory.

Everything counts, imports and the closing report included, since that is what a user waits for.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.errors import AppError

if TYPE_CHECKING:
    import resource  # not on Windows

ROOT = Path(__file__).resolve().parent.parent
POLL = 0.02  # seconds between looks whether the process has ended: the error of ``seconds``
SAMPLE = 0.5  # between looks at memory; one look at some 100 processes took 4 ms
# Linux counts in KiB, macOS in bytes (their getrusage(2)).
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Measured:
    """What a finished process cost.

    Attributes:
        seconds: wall time, from before the process is started to its end.
        cpu_seconds: of all cores, of the process and all that it waited for: what other work on the
            machine, or a pause, changes little.
        peak_rss: bytes, the largest resident set that any one process of the tree ever had
            (``ru_maxrss``, exact; on Linux at least what this process, its starter, ever had).
            Pages of mapped files count while they happen to lie in memory, though the system may
            drop them at any time.
        peak_anonymous: bytes, the largest sum of ``RssAnon`` over the tree: memory that cannot be
            dropped. Sampled every half second, so a shorter peak may be missed. None without /proc.
        stdout: what the process printed.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    peak_anonymous: int | None
    stdout: str


def measure(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Measured:
    """Run a command in the project's folder and measure it; its stderr goes where ours goes.

    Args:
        command: program and arguments.
        env: set in addition to this process's environment.

    Raises:
        AppError: when the command fails, or on a system without ``wait4`` (Windows).
    """
    if not hasattr(os, "wait4"):
        raise AppError("expected Linux or macOS, which tell a process's peak memory")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, env={**os.environ, **(env or {})}
        )
        try:
            status, usage, peak_anonymous = _watch(process.pid)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:  # Ctrl-C: nothing is left running
                process.kill()
                process.wait()
        output.seek(0)
        printed = output.read()
    if process.returncode != 0:
        raise AppError(
            f"expected a measured command to succeed; received exit code {process.returncode} from "
            f"{textwrap.shorten(shlex.join(command), 300, placeholder=' ...')}; "
            "its own message is above"
        )
    return Measured(
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * MAXRSS_UNIT,
        peak_anonymous,
        printed,
    )


def train_command(data: Path, runs: Path, run: str, flags: Sequence[str]) -> list[str]:
    """Return the command line of ``train.py`` as a user would write it, paths made absolute."""
    places = ["--data", str(data.resolve()), "--runs", str(runs.resolve()), "--run", run]
    return [sys.executable, "train.py", *places, *flags]


def anonymous_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return the sum of ``RssAnon`` of a process and all that it started; None without /proc."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for path in proc.glob("[0-9]*/status"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        fields = dict(re.findall(r"^(PPid|RssAnon):\s+(\d+)", text, re.MULTILINE))
        number = int(path.parent.name)
        parents[number] = int(fields.get("PPid", 0))
        sizes[number] = 1024 * int(fields.get("RssAnon", 0))
    if pid not in sizes:
        return None
    tree: set[int] = set()
    found = {pid}
    while found:
        tree |= found
        found = {child for child, parent in parents.items() if parent in found} - tree
    return sum(sizes[member] for member in tree)


def load_average() -> float:
    """Return how many processes wanted a core in the last minute, on average."""
    return os.getloadavg()[0]


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _watch(pid: int) -> tuple[int, resource.struct_rusage, int | None]:
    """Wait for a process; return its status, what it used, and its peak anonymous bytes."""
    peak: int | None = None
    next_sample = 0.0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage, peak
        if time.perf_counter() >= next_sample:
            size = anonymous_bytes(pid)
            peak = peak if size is None else max(size, peak or 0)
            next_sample = time.perf_counter() + SAMPLE
        time.sleep(POLL)
