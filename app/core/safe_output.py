"""Where runs, pages and notebooks may be written: never among photos, nor over files of others."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from os.path import exists
from pathlib import Path

from app.core.console import say
from app.core.errors import UsageError
from app.core.run_folder import FEATURES_FOLDER, Run

GENERATOR = "cats-vs-dogs"  # stands in all that is written, so that it is known as ours
PAGE_MARK = f'<meta name="generator" content="{GENERATOR}">'


def refuse_among_photos(runs: Path, data: Path, folders: Sequence[Path]) -> None:
    """Refuse to write runs among the photos, or to take photos from what is written.

    Refused rather than put elsewhere: ``predict.py`` looks for runs where the user has named them,
    and nobody should have to search for megabytes. Photos beside the runs bring a warning.

    Args:
        runs: the folder of all runs.
        data: the photos, as the user gave them.
        folders: whose photos are read, the first one of all of them.

    Raises:
        UsageError: with the command that writes elsewhere.
    """
    photos, place = folders[0].resolve(), runs.resolve()
    for folder in folders:
        if place.is_relative_to(folder.resolve()):
            beside = shlex.quote(os.path.relpath(photos.parent / f"{photos.name}-runs"))
            raise UsageError(
                f"expected a folder for runs outside of the photos, which are only read; received "
                f"{runs}, which is in {folder}; put it beside them: "
                f"python train.py --data {shlex.quote(str(data))} --runs {beside}; "
                f"then predict with python predict.py --runs {beside} PHOTO"
            )
    if place in photos.parents:
        first = place / photos.relative_to(place).parts[0]
        if first.name == FEATURES_FOLDER or exists(Run(first).config):
            raise UsageError(
                f"expected photos outside of what this program writes; received {data}, which is "
                f"in {first}; move them to a folder of their own"
            )
        say(f"{data} lies in {runs}, the folder of the runs: do not remove that as a whole")


def output_file(path: Path, suffix: str, photos: Iterable[Path] = ()) -> Path:
    """Return ``path`` if something may be written there; links are followed.

    Args:
        path: of the file that shall be written.
        suffix: what its name must end with, such as ``.html``: photos, archives and the files of a
            run's results end otherwise.
        photos: folders or archives that are only read.

    Raises:
        UsageError: when it has another suffix, is one of ``photos`` or lies in one, or holds what
            this program has not written.
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
    if exists(place) and not _is_ours(place):
        raise UsageError(
            f"expected a new file, or one that this program has written; received {path}, which is "
            "another; name another place, or move it away"
        )
    return path


def _is_ours(path: Path) -> bool:
    """Return whether this program wrote a page or notebook."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if path.suffix.lower() == ".html":
            return PAGE_MARK in text[:1000]
        # Cells are numbered as nobody else does; whoever adds one in Jupyter has made it theirs.
        cells = [cell["id"] for cell in json.loads(text)["cells"]]
        return bool(cells) and cells == [f"cell-{number:02}" for number in range(len(cells))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
