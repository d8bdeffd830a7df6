"""Disk → labelled files: which layout a folder has, and each file's class and split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os.path import exists, isdir, isfile
from pathlib import Path

from app.core.console import listing
from app.core.errors import DataError, UsageError
from app.core.folder_tree import scan
from app.core.labels import NEITHER, UNSURE, is_neither, is_unsure, plain_name
from app.data.folder_names import SPLITS, Split, annotated_by
from app.data.layout_rules import ENOUGH, LAYOUTS, LayoutReader, LayoutSettings, refuse_closed
from app.data.sets.archive import KINDS, is_archive, unpacked

__all__ = [
    "ENOUGH", "LAYOUTS", "SPLITS", "FolderReading", "LabelledFile", "LayoutSettings", "Split",
    "data_folder", "files_below", "find_files", "linked_folders", "read_folder",
]  # fmt: skip


@dataclass(frozen=True)
class LabelledFile:
    """One file below the data folder, with the class and the split that its place gives."""

    path: Path
    name: str  # relative to the data folder, with forward slashes
    label: str  # its class, or ``neither``
    split: Split | None  # None when the project decides
    kind: str = ""  # below ``neither/``: the name of the first folder, such as ``fox``


@dataclass(frozen=True)
class FolderReading:
    """Every file below the data folder: the labelled ones, and the others with the kind of reason.

    Attributes:
        files: those with a label, by split and in the order of their names.
        others: the names of all others → the code of the reason, one of ``manifest.REASONS``.
        notes: sentences on what was found, for the user.
    """

    files: list[LabelledFile]
    others: dict[str, str]
    notes: list[str]


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
        found, mend = "nothing there", f"`python -m app fetch drawn {data}` makes a sample to try"
        if exists(data):
            found, mend = "a file", "name the folder that it lies in, or unpack it first"
        raise UsageError(
            f"expected --data to be a folder of photos or a {KINDS} of one; received {data} "
            f"({found}); {mend}"
        )


def find_files(root: Path, settings: LayoutSettings | None = None) -> list[LabelledFile]:
    """List the labelled files below ``root``; see ``read_folder``."""
    return read_folder(root, settings or LayoutSettings()).files


def read_folder(root: Path, settings: LayoutSettings) -> FolderReading:
    """Find out how a folder says what its photos show, and list every file below it.

    The rules, in their order:

    1. What systems and programs put there never counts; links to folders are followed once.
    2. ``neither/`` beside classes or splits, or in a split, holds photos of none of the classes.
    3. Folders called like splits are splits where they hold class folders, or photos that are
       called by their class. What else lies beside several splits has no label, but class folders
       beside ``test/`` with the same classes are train. A single folder in a split that train does
       not have, or that is called like no class, holds photos without a label.
    4. Folders with photos are classes, loose photos beside them have no label. But folders are no
       classes that hold sub-folders, or photos, of the same two names or more; nor when all of
       them are called like splits or helpers (``images/``, ``masks/``, ``100CANON/``). A folder
       that holds folders of the names of two others beside it is another copy of these. Beside
       two others, those called like validation, test or ``unlabeled`` have no label.
    5. A single folder with photos is gone into, if it holds any of this.
    6. Without class folders, photos are of the class before the number in their names.
    7. Without these, a table beside the photos gives the labels.
    8. ``1_mask.png`` beside ``1.png`` is an annotation and has no label.

    Nothing is opened but tables.

    Raises:
        DataError: when no layout fits, or two that say different things, with the flag that
            decides; or when the splits have different classes.
        UsageError: when a table or the folder of photos of none of the classes cannot be read.
    """
    tree = scan(root)
    refuse_closed(root, tree)
    reader = LayoutReader(root, tree, settings)
    try:
        labels = reader.read()
    except RecursionError:
        raise DataError(
            f"expected a few folders within each other; received {root} with hundreds; move the "
            "photos into folders of their classes"
        ) from None
    strangers = reader.strangers(labels)
    files = [
        LabelledFile(root / name, name, plain_name(label), split)
        for name, (label, split) in labels.files.items()
        if name not in strangers
    ]
    files = _without_annotations(files)
    files = [replace(file, label=NEITHER) if is_neither(file.label) else file for file in files]
    files, notes = _meet_case(files, join=settings.join_case)
    _check_classes(files, same=labels.same_classes)
    files += [
        LabelledFile(each.path, name, NEITHER, each.split, each.kind)
        for name, each in strangers.items()
    ]
    order = {split: number for number, split in enumerate((None, *SPLITS))}
    files.sort(key=lambda file: (order[file.split], file.name.split("/")))
    named = {file.name for file in files}
    others = dict.fromkeys(sorted(set(tree.root.below()) - named), "no_class")
    return FolderReading(files, {**others, **tree.left_out}, [*reader.notes, *notes])


def linked_folders(root: Path) -> list[Path]:
    """List the links to folders whose photos are read."""
    return [root / name for name in scan(root).linked]


def files_below(folder: Path) -> list[Path]:
    """List every file below a folder, sorted; without what systems and programs put there.

    Raises:
        DataError: when a folder in it cannot be listed.
    """
    tree = scan(folder)
    refuse_closed(folder, tree)
    return [folder / name for name in sorted(tree.root.below())]


def _without_annotations(files: list[LabelledFile]) -> list[LabelledFile]:
    """Leave out files that are called like another one and ``_mask`` or the like behind."""
    photos = {file.name.rpartition(".")[0] for file in files}
    return [file for file in files if annotated_by(file.name) not in photos]


def _meet_case(files: list[LabelledFile], *, join: bool) -> tuple[list[LabelledFile], list[str]]:
    """Join classes whose names differ in case only, or say that there are some."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for file in files:
        spellings[file.label.casefold()][file.label] += 1
    several = {key: counts for key, counts in spellings.items() if len(counts) > 1}
    if not several:
        return files, []
    shown = listing(" and ".join(sorted(counts)) for counts in several.values())
    if not join:
        note = f"classes whose names differ in case only: {shown}; --join-case makes them one"
        return files, [note]
    chosen = {key: max(sorted(counts), key=counts.__getitem__) for key, counts in several.items()}
    joined = [replace(file, label=chosen.get(file.label.casefold(), file.label)) for file in files]
    return joined, [f"joined, since they differ in case only: {shown}"]


def _check_classes(files: list[LabelledFile], *, same: bool) -> None:
    """Refuse splits with other classes than train, and classes that are called as an answer is."""
    classes: dict[Split | None, set[str]] = defaultdict(set)
    for file in files:
        classes[file.split].add(file.label)
    every = set().union(*classes.values())
    expected = classes.get("train", every) - {NEITHER}
    for split, labels in classes.items() if same else ():
        if wrong := (labels - {NEITHER}) ^ expected:
            spelled = Counter(label.casefold() for label in wrong)
            join = "; or add --join-case" if max(spelled.values()) > 1 else ""
            raise DataError(
                f"expected the classes of train ({listing(sorted(expected), 4)}) in every split; "
                f"received {listing(sorted(labels), 4)} in {split}, which differs by "
                f"{listing(sorted(wrong), 4)}; rename or move folders{join}"
            )
    if taken := sorted(filter(is_unsure, every)):
        raise DataError(
            f"expected classes of other names than {UNSURE}, which is an answer of its own; "
            f"received {listing(taken)}; rename the folder"
        )
    if "" in every:
        raise DataError(
            "expected a name for each class; received a folder whose name is blank; rename it"
        )
