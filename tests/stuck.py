"""Decoders that misbehave by what the file says; imported where the service decodes.

As a program it is ``app.serving.serve`` with these decoders.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from app.data.decode import Pixels, load_image


def load(data: bytes, size: int) -> Pixels:
    """Do what the first word says, with the second one's file for the process's number."""
    word, _, rest = data.partition(b" ")
    if word in ACTIONS:
        path, _, data = rest.partition(b"\n")
        if path:
            Path(os.fsdecode(path)).write_text(str(os.getpid()), encoding="ascii")
        ACTIONS[word]()
    return load_image(data, size)


def hold() -> None:
    """Hold the interpreter's lock for ever, as a decoder in C may."""
    re.match(r"(a*)*b", "a" * 60)


def eat() -> None:
    """Take memory without end."""
    taken = []
    while True:
        taken.append(bytearray(50_000_000))


def die() -> None:
    """End as by the system when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(_: object) -> None:
    """Be interrupted by Ctrl-C before it is ignored."""
    raise KeyboardInterrupt


ACTIONS = {b"hold": hold, b"eat": eat, b"die": die, b"wait": lambda: time.sleep(1.5)}


if __name__ == "__main__":
    import stuck

    import app.serving.batching
    from app.core.cli import leave, run
    from app.serving.serve import main

    app.serving.batching.load_image = stuck.load  # type: ignore[attr-defined]
    leave(run(main, sys.argv[1:]))
