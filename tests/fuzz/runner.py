"""Runs many steps in child processes, so that even the crash of a native library is a find."""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 2.0  # that one step may take (processor time: the machine may be busy)
MAX_RSS = 512 * 1024  # KiB above the start that a child may grow by
BLOCK = 20_000  # steps of one child
HEAD = struct.Struct(">QQ")  # of the file that holds the present input: its step and its length


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        module: to be run by ``python -m``.
        make: the input of a step, the same for the same number.
        check: uses an input and says how it ended; anything it raises is a find.
    """

    module: str
    make: Callable[[int], bytes]
    check: Callable[[bytes], str]


def peak_kib() -> int:
    """Return this process's peak memory so far; 0 where there is no /proc to read it from.

    ``getrusage`` does not serve: the peak of the parent is handed down to its children.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def run_block(target: Target, first: int, steps: int, current: Path) -> None:
    """Do some steps in this process; ``current`` always holds the input that is being used."""
    warnings.simplefilter("error")  # a warning must not get past the app's own filters
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    target.check(target.make(first))  # imports and seeds are no part of what a step may take
    before = peak_kib()
    descriptor = os.open(current, os.O_RDWR)
    ends: Counter[str] = Counter()
    slowest, grown = 0.0, 0
    for step in range(first, first + steps):
        data = target.make(step)
        os.pwrite(descriptor, HEAD.pack(step, len(data)) + data, 0)
        start = time.process_time()
        ends[target.check(data)] += 1
        slowest = max(slowest, time.process_time() - start)
        grown = peak_kib() - before
        if slowest > SECONDS or grown > MAX_RSS:
            raise RuntimeError(f"{slowest:.1f} s, {grown / 1024:.0f} MiB")
    counts = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
    print(f"at most {slowest:.2f} s and {grown / 1024:.0f} MiB: {counts}")


def fuzz(target: Target, first: int, steps: int, finds: Path) -> int:
    """Run blocks in children until all steps are done; return the number of finds.

    A find is a child that failed, or that anything but its own closing line was printed by.
    """
    finds.mkdir(parents=True, exist_ok=True)
    current, found, step = finds / f"current-{first}", 0, first
    while step < first + steps:
        current.write_bytes(HEAD.pack(step, 0))
        todo = min(BLOCK, first + steps - step)
        child = subprocess.run(
            [sys.executable, "-m", target.module, "--block", str(step), str(todo),
             "--finds", str(current)],
            cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=3600,
        )  # fmt: skip
        step += todo
        if child.returncode or child.stderr or child.stdout.count("\n") > 1:
            found += 1
            content = current.read_bytes()
            last, length = HEAD.unpack_from(content)
            (finds / f"{last}.bin").write_bytes(content[HEAD.size : HEAD.size + length])
            (finds / f"{last}.txt").write_text(
                f"exit code {child.returncode}\n{child.stdout}{child.stderr}"
            )
            if child.returncode:  # else all were done, and only something was said
                step = last + 1
        print(f"{step - first:,} steps, {found} finds; {child.stdout.strip()}", flush=True)
    current.unlink(missing_ok=True)
    return found


def main(target: Target, follow_coverage: Callable[[int, Path], None] | None = None) -> int:
    """Parse the command line and fuzz; return 1 when there are finds."""
    parser = argparse.ArgumentParser(prog=f"python -m {target.module}")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first step")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"))
    parser.add_argument("--block", type=int, nargs=2, help=argparse.SUPPRESS)
    if follow_coverage:
        parser.add_argument("--coverage", action="store_true", help="led by atheris")
    arguments = parser.parse_args()
    if arguments.block:
        run_block(target, *arguments.block, arguments.finds)
        return 0
    if follow_coverage and arguments.coverage:
        follow_coverage(arguments.steps, arguments.finds)
    return 1 if fuzz(target, arguments.first, arguments.steps, arguments.finds) else 0
