"""Disk → labelled files: which layout a folder has, and each file's class and split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import Literal

from app.core.errors import DataError, UsageError
from app.core.labels import NEITHER, UNSURE, is_neither, is_unsure
from app.data.decode import SUFFIXES
from app.data.sets.archive import KINDS, is_archive, unpacked

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
LAYOUTS = (
    "class folders (DIR/cat/*.jpg, DIR/dog/*.jpg), the same inside train/, validation/ and test/, "
    "or class names before a number (DIR/cat.0.jpg, DIR/dog.0.jpg)"
)
# cat.0.jpg as Kaggle names them; cat_0, cat-0, cat 0, cat (0), cat0 and great_dane_0 as people do.
_CLASS_BEFORE_NUMBER = re.compile(r"(?P<label>[^\W\d_](.*[^\W\d_])?)[._ -]*\(?\d+\)?\.\w+")


@dataclass(frozen=True)
class LabelledFile:
    """One file below the data folder, with the class and the split that its place gives."""

    path: Path
    name: str  # relative to the data folder, with forward slashes
    label: str  # its class, or ``neither``
    split: Split | None  # None when the project decides
    kind: str = ""  # below ``neither/``: the name of the first folder, such as ``fox``


@contextmanager
def data_folder(data: Path) -> Iterator[Path]:
    """Yield the folder behind ``--data``; an archive is unpacked to a temporary folder meanwhile.

    Raises:
        UsageError: when ``data`` is neither a folder nor an archive.
        DataError: when the archive is damaged or hostile.
    """
    if isdir(data):
        yield data
    elif isfile(data) and is_archive(data):
        with unpacked(data) as folder:
            yield folder
    else:
        found = "a file" if exists(data) else "nothing there"
        raise UsageError(
            f"expected --data to be a folder of photos or a {KINDS} of one; received {data} "
            f"({found}); `python -m app fetch drawn {data}` makes a sample to try with"
        )


def find_files(root: Path, neither: Path | None = None) -> list[LabelledFile]:
    """List every file below ``root`` with its class and, where given, its split.

    Understands class folders, ``train/`` ``validation/`` ``test/`` with class folders in each,
    Kaggle's flat ``cat.0.jpg`` ``dog.0.jpg``, and any of these below a folder that holds nothing
    else (``PetImages/Cat``). What lies in a folder ``neither/`` beside the class folders or the
    splits, or in a split, shows none of the classes. Files are sorted by name; nothing is opened.

    Args:
        root: the data folder.
        neither: a folder of photos that show none of the classes, inside or outside of ``root``;
            files outside are called by their whole path.

    Raises:
        DataError: when no layout fits, or the splits have different classes.
    """
    top = _descend(root)
    strangers = _neither_below(top, root, None)
    if neither is not None:
        strangers += _strangers(neither, root, None)
    folders = _split_folders(top)
    strangers += [
        file for split, folder in folders.items() for file in _neither_below(folder, root, split)
    ]
    if len(folders) > 1 and "train" not in folders:  # else the splits would pass for classes
        names = " and ".join(f"{folder.name}/" for folder in folders.values())
        raise DataError(
            f"expected a folder train/ beside {names}; received {top} without one; "
            "rename the folder with the training photos to train"
        )
    if len(folders) < 2:  # beside train/ lie at most unlabelled files, as in Kaggle's test1/
        folders = {None: folders.get("train", top)}
    files = [
        file
        for split, folder in folders.items()
        for file in _labelled(folder, root=root, split=split)
    ]
    if not files:
        raise DataError(f"expected {LAYOUTS}; received {root}, which holds none of these")
    _check_classes(files)
    by_name = {file.name: file for file in (*files, *strangers)}
    return list(by_name.values())


def _neither_below(folder: Path, root: Path, split: Split | None) -> list[LabelledFile]:
    """List the files of folders called ``neither`` that lie directly in a folder."""
    return [
        file
        for child in _children(folder)
        if child.is_dir() and is_neither(child.name)
        for file in _strangers(child, root, split)
    ]


def _strangers(folder: Path, root: Path, split: Split | None) -> list[LabelledFile]:
    """List the files of a folder of none of the classes, each with the kind that it shows."""
    found = []
    for path in files_below(folder):
        inner = path.relative_to(folder).parts
        name = _name(path, root) if path.is_relative_to(root) else path.absolute().as_posix()
        found.append(LabelledFile(path, name, NEITHER, split, inner[0] if len(inner) > 1 else ""))
    return found


def linked_folders(root: Path) -> list[Path]:
    """List the links to folders whose photos are read: those of classes and splits."""
    folders = _folders(root)
    return [f for f in (*folders, *chain(*map(_folders, folders))) if f.is_symlink()]


def _descend(folder: Path) -> Path:
    """Go through folders that hold no photo and one folder, of folders or of ``cat.0.jpg`` files.

    A readme or a licence beside that folder, as in Microsoft's archive, does not matter.
    """
    while True:
        children = _folders(folder)
        if len(children) != 1 or any(_is_photo_name(path) for path in _files(folder)):
            return folder
        child = children[0]
        if not _folders(child) and not _flat(child, root=child, split=None):
            return folder
        folder = child


def _split_folders(folder: Path) -> dict[Split | None, Path]:
    found: dict[Split, Path] = {}
    for child in _folders(folder):
        split = SPLIT_NAMES.get(child.name.lower())
        if split is None or not _labelled(child, root=child, split=split):
            continue
        if split in found:
            raise DataError(
                f"expected one folder for {split}; received {found[split].name}/ and "
                f"{child.name}/; rename or move one of them"
            )
        found[split] = child
    return {split: found[split] for split in SPLITS if split in found}


def _labelled(folder: Path, *, root: Path, split: Split | None) -> list[LabelledFile]:
    classes, flat = _folders(folder), _flat(folder, root=root, split=split)
    if not classes or len({file.label for file in flat}) > 1:  # photos beside folders of originals
        return flat
    return [
        LabelledFile(path, _name(path, root), child.name, split)
        for child in classes
        for path in files_below(child)
    ]


def _flat(folder: Path, *, root: Path, split: Split | None) -> list[LabelledFile]:
    matches = ((path, _CLASS_BEFORE_NUMBER.fullmatch(path.name)) for path in _files(folder))
    return [
        LabelledFile(path, _name(path, root), match["label"].lower(), split)
        for path, match in matches
        if match and _is_photo_name(path)
    ]


def _check_classes(files: list[LabelledFile]) -> None:
    """Refuse splits with other classes than train, and classes that are called as an answer is."""
    classes = defaultdict(set)
    for file in files:
        classes[file.split].add(file.label)
    expected = classes[files[0].split]  # train's, or all
    for split, labels in classes.items():
        if labels != expected:
            raise DataError(
                f"expected the classes of train ({', '.join(sorted(expected))}) in every "
                f"split; received {', '.join(sorted(labels))} in {split}; rename or move folders"
            )
    if taken := sorted(filter(is_unsure, expected)):
        raise DataError(
            f"expected classes of other names than {UNSURE}, which is an answer of its own; "
            f"received {', '.join(taken)}; rename the folder"
        )


def _folders(folder: Path) -> list[Path]:
    return [
        path
        for path in _children(folder)
        if path.is_dir() and path.name != "__MACOSX" and not is_neither(path.name)
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in _children(folder) if not path.is_dir()]


def _children(folder: Path) -> list[Path]:
    """List what a folder holds, sorted, hidden names left out."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"expected a folder that can be read; received {folder} ({error.strerror}); "
            "check its permissions"
        ) from error


def files_below(folder: Path) -> list[Path]:
    """List every file below a folder, hidden ones left out, sorted within each folder."""
    found = _files(folder)
    for child in _folders(folder):
        if not child.is_symlink():  # it could lead back here, and go round for ever
            found += files_below(child)
    return sorted(found)


def _is_photo_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
