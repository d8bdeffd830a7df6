"""Questions about a path that never raise: ``Path.exists`` does for a name of 300 characters."""

from __future__ import annotations

import os
from pathlib import Path


def exists(path: Path | str) -> bool:
    """Say whether there is anything."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: Path | str) -> bool:
    """Say whether there is a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path | str) -> bool:
    """Say whether there is a regular file."""
    return os.path.isfile(path)  # noqa: PTH113
