"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    After an error the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on old bytes
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def open_whole(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing that appears under ``path`` when the block succeeds."""
    with (
        whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield file
        file.flush()


def write_json(value: Any, path: Path) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused."""
    with open_whole(path) as file:
        file.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
