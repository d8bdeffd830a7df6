"""Bytes → array, a million times: ``python -m tests.fuzz.images --steps 1000000``.

Every step breaks a valid file and decodes it. What comes out must be pixels or an ``ImageError``,
within the time, with nothing on stderr. The steps run in a child process, so that even a crash of
a native library is found; its input is kept in ``--finds``. With ``atheris`` installed,
``--coverage`` lets the branches of Pillow's Python code lead the way.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 2.0  # that one file may take (processor time: the machine may be busy)
MAX_RSS = 512 * 1024  # kB above the start that a child may grow by
BLOCK = 20_000  # steps of one child
HEAD = struct.Struct(">QQ")  # of the file that holds the present input: its step and its length


def check(data: bytes) -> str:
    """Decode once; return what kind of end it came to.

    Raises:
        AssertionError: when what came out is neither pixels nor a reason, or it took too long.
    """
    import numpy as np

    from app.errors import ImageError
    from app.images import decode

    start = time.process_time()
    try:
        pixels, found = decode(data)
    except ImageError as error:
        assert str(error).strip() and "\n" not in str(error)
        end = "refused"
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert pixels.size and pixels.flags.c_contiguous
        end = found
    assert time.process_time() - start < SECONDS, "too slow"
    return end


def run_block(first: int, steps: int, current: Path) -> None:
    """Do some steps in this process; ``current`` always holds the file that is being decoded."""
    from .mutations import mutated
    from .seeds import seeds

    valid = list(seeds().values())
    for data in valid:
        check(data)
    warnings.simplefilter("error")  # a warning must not get past app.images' own filter
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    descriptor = os.open(current, os.O_RDWR | os.O_CREAT)
    ends: dict[str, int] = {}
    for step in range(first, first + steps):
        source = random.Random(step)
        data = mutated(source.choice(valid), valid, source)
        os.pwrite(descriptor, HEAD.pack(step, len(data)) + data, 0)
        end = check(data)
        ends[end] = ends.get(end, 0) + 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MAX_RSS, f"{grown} kB"
    print(steps, grown, *(f"{name}:{count}" for name, count in sorted(ends.items())))


def fuzz(first: int, steps: int, finds: Path) -> int:
    """Run blocks in children until all steps are done; return how many files were finds."""
    finds.mkdir(parents=True, exist_ok=True)
    current, found, step = finds / f"current-{first}", 0, first
    while step < first + steps:
        current.write_bytes(HEAD.pack(step, 0))
        todo = min(BLOCK, first + steps - step)
        child = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.images", "--block", str(step), str(todo),
             "--finds", str(current)],
            cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=3600,
        )  # fmt: skip
        step += todo
        if child.returncode or child.stderr:
            found += 1
            content = current.read_bytes()
            last, length = HEAD.unpack_from(content)
            (finds / f"{last}.bin").write_bytes(content[HEAD.size : HEAD.size + length])
            (finds / f"{last}.txt").write_text(f"exit code {child.returncode}\n{child.stderr}")
            if child.returncode:  # else all were done, and only something was said
                step = last + 1
        print(f"{step - first:,} steps, {found} finds; {child.stdout.strip()}", flush=True)
    current.unlink(missing_ok=True)
    return found


def follow_coverage(steps: int, finds: Path) -> None:
    """Let atheris choose the bytes by the branches that they reach; does not return."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "app"]):
        import app.images  # noqa: F401
    from .seeds import seeds

    corpus = finds / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (corpus / name.replace(" ", "-")).write_bytes(data)
    atheris.Setup(
        [sys.argv[0], f"-runs={steps}", "-max_len=4096", f"-artifact_prefix={finds}/",
         "-timeout=10", "-rss_limit_mb=2048", str(corpus)],
        lambda data: check(data) and None,
    )  # fmt: skip
    atheris.Fuzz()


def main() -> int:
    """Parse the command line; return 1 when there are finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first step")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"))
    parser.add_argument("--coverage", action="store_true", help="led by atheris")
    parser.add_argument("--block", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.block:
        run_block(*arguments.block, arguments.finds)
        return 0
    if arguments.coverage:
        follow_coverage(arguments.steps, arguments.finds)
    return 1 if fuzz(arguments.first, arguments.steps, arguments.finds) else 0


if __name__ == "__main__":
    sys.exit(main())
