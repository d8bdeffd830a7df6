"""Where a page or notebook may be written: never over photos, nor over what a run needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.core.errors import UsageError


def output_file(path: Path, suffix: str, photos: Iterable[Path] = ()) -> Path:
    """Return ``path`` if something may be written there; links are followed.

    Args:
        path: of the file that shall be written.
        suffix: what its name must end with, such as ``.html``: photos, archives and the files of a
            run's results end otherwise.
        photos: folders or archives that are only read.

    Raises:
        UsageError: when it has another suffix, or is one of ``photos`` or lies in one.
    """
    place = path.resolve()
    for folder in (each.resolve() for each in photos):
        if folder in (place, *place.parents):
            raise UsageError(
                f"expected a place outside the photos, which are only read; received {path}, "
                f"which is in {folder}; name another place"
            )
    if {path.suffix.lower(), place.suffix.lower()} != {suffix}:
        raise UsageError(
            f"expected a file whose name ends with {suffix}; received {path}; add the ending, so "
            "that nothing else is written over"
        )
    return path
