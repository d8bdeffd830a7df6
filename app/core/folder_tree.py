"""A folder of photos as it lies on the disk: every file below it, each real folder once.

Links to folders are followed, after all real folders, so that a folder keeps the place where it
really lies. What systems, network disks and programs put beside photos is listed, but apart.
``scan`` gives all of it at once, in order; ``stream`` gives file by file, for millions of them.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Folders that no person has made: hidden ones, those of Synology and QNAP (@eaDir, #recycle), of
# Windows ($RECYCLE.BIN), macOS (__MACOSX), Linux (lost+found) and Python (__pycache__). Classes may
# be called $5 or #cats.
_SYSTEM = re.compile(
    r"[.@].*|__.*|\$[a-z].*|#(recycle|snapshot).*|recycler|system volume information"
    r"|lost\+found|found\.\d+|(network trash|temporary) (folder|items)",
    re.IGNORECASE,
)

Left = Literal["hidden", "link", "unreadable"]


@dataclass(eq=False)
class Folder:
    """One folder and what a person has put into it, sorted by name."""

    name: str  # relative to the root, with forward slashes; empty for the root
    files: list[str] = field(default_factory=list)  # their names, relative to the root
    folders: list[Folder] = field(default_factory=list)

    @property
    def own_name(self) -> str:
        """The name without the folders above."""
        return self.name.rpartition("/")[2]

    def below(self) -> Iterator[str]:
        """Yield the names of all files in it and below it, in no useful order."""
        todo = [self]
        while todo:
            folder = todo.pop()
            yield from folder.files
            todo += folder.folders


@dataclass
class FolderTree:
    """All that lies below a folder."""

    root: Folder
    # Files that no person means as photos, and links that are not followed → why.
    left_out: dict[str, Left] = field(default_factory=dict)
    linked: list[str] = field(default_factory=list)  # links to folders that were followed
    closed: dict[str, str] = field(default_factory=dict)  # cannot be listed → the system's reason


def is_system(name: str) -> bool:
    """Return whether a folder of this name was made by a system or a program, not by a person."""
    return bool(_SYSTEM.fullmatch(name))


def scan(root: str | Path) -> FolderTree:
    """List what lies below a folder; no file is opened.

    Each real folder is read once: a link that leads to a folder around it, or to one that was read
    already, is not followed, so loops end. Hidden files and folders of systems are in ``left_out``
    with all that is in them; so are links that are not followed. A folder that cannot be listed
    is in ``closed``; if it belongs to a system, only in ``left_out``.
    """
    tree = FolderTree(Folder(""))
    top = os.fspath(root)
    seen = {_identity(top)}
    links = _read(top, tree.root, tree, seen)
    while links:  # the nearest first, and those that are found behind links at the end
        found, links = sorted(links, key=lambda link: (link[1].count("/"), link[1])), []
        for parent, name in found:
            path = os.path.join(top, name)  # noqa: PTH118
            if _leads_back(path, top) or (identity := _identity(path)) in seen:
                tree.left_out[name] = "link"
                continue
            seen.add(identity)
            folder = Folder(name)
            tree.linked.append(name)
            parent.folders.append(folder)
            parent.folders.sort(key=lambda one: one.name)
            links += _read(path, folder, tree, seen)
    return tree


def _read(
    path: str, folder: Folder, tree: FolderTree, seen: set[object]
) -> list[tuple[Folder, str]]:
    """Fill a folder with what is in it and below it; return the links to folders, not followed."""
    links: list[tuple[Folder, str]] = []
    todo = [(path, folder)]
    while todo:
        path, folder = todo.pop()
        for entry in _entries(path, folder.name, tree):
            name = f"{folder.name}/{entry.name}".removeprefix("/")
            if not _is_folder(entry):
                if entry.name.startswith("."):
                    tree.left_out[name] = "hidden"
                else:
                    folder.files.append(name)
            elif entry.is_symlink() and not is_system(entry.name):
                links.append((folder, name))
            elif is_system(entry.name):
                _leave(entry, name, tree)
            else:
                seen.add(_identity(entry.path))
                child = Folder(name)
                folder.folders.append(child)
                todo.append((entry.path, child))
    return links


def _leave(entry: os.DirEntry[str], name: str, tree: FolderTree) -> None:
    """Note all that is in a folder of a system, and nothing of what links in it lead to."""
    if entry.is_symlink():
        tree.left_out[name] = "hidden"
        return
    todo = [(entry.path, name)]
    while todo:
        path, above = todo.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:
            tree.left_out[above] = "unreadable"
            continue
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                todo.append((each.path, f"{above}/{each.name}"))
            else:
                tree.left_out[f"{above}/{each.name}"] = "hidden"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; who reads it as a file learns the reason
        return False


def _entries(path: str, name: str, tree: FolderTree) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        tree.closed[name] = error.strerror or str(error)
        return []


def _identity(path: str) -> object:
    """Return what only this folder has, by whatever path it is reached."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _leads_back(link: str, top: str) -> bool:
    """Return whether a link leads to a folder around itself or around all of the photos."""
    target = Path(os.path.realpath(link))
    inside = (os.path.dirname(link), top)  # noqa: PTH120
    return any(Path(os.path.realpath(path)).is_relative_to(target) for path in inside)


def stream(root: str | Path) -> Iterator[os.DirEntry[str] | OSError]:
    """Yield every file below a folder that ``scan`` gives to ``Folder.files``, one at a time.

    Memory grows with the number of folders, not of files, since nothing is sorted: the order is
    that of the disk. Links to folders come after all real folders, as in ``scan``.

    Yields:
        The entry of a file, or of a link to one; of a folder that cannot be listed the error, whose
        ``filename`` is its path.
    """
    top = os.fspath(root)
    seen = {_identity(top)}
    folders, links = [top], deque[str]()
    while folders or links:
        if folders:
            path = folders.pop()
        else:
            path = links.popleft()
            if _leads_back(path, top) or (identity := _identity(path)) in seen:
                continue
            seen.add(identity)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        if not entry.name.startswith("."):
                            yield entry
                    elif not is_system(entry.name):
                        if entry.is_symlink():
                            links.append(entry.path)
                        else:
                            seen.add(_identity(entry.path))
                            folders.append(entry.path)
        except OSError as error:
            yield error
