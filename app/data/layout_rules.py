"""The rules by which a folder says what its photos show; ``read_folder`` states them in order."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os.path import exists, isdir
from pathlib import Path

from app.core.config import Layout
from app.core.console import listing
from app.core.errors import DataError, UsageError
from app.core.folder_tree import Folder, FolderTree, scan
from app.core.labels import is_neither, plain_name
from app.data.folder_names import (
    SPLITS,
    Split,
    class_before_number,
    holds_annotations,
    holds_photos,
    holds_unlabelled,
    is_helper,
    is_photo_name,
    may_be_photo,
    split_of,
)
from app.data.label_table import LabelTable, find_tables, read_table

LAYOUTS = (
    "class folders (DIR/cat/*.jpg, DIR/dog/*.jpg), the same inside train/, validation/ and test/, "
    "class names before a number (DIR/cat.0.jpg, DIR/dog.0.jpg), or --labels TABLE"
)
ENOUGH = 5  # photos of a class: with fewer a reading of the folder cannot be trained on
SURELY_SEVERAL = 10  # names before numbers: if most photos have their own, they are no classes


@dataclass(frozen=True)
class LayoutSettings:
    """What the user says about the layout.

    Attributes:
        layout: how the folder is to be read; None: as ``read_folder`` finds it.
        labels: a table of labels.
        neither: a folder of photos that show none of the classes, inside or outside of the data
            folder; files outside are called by their whole path.
        join_case: whether names that differ in case only are one class.
    """

    layout: Layout | None = None
    labels: Path | None = None
    neither: Path | None = None
    join_case: bool = False


@dataclass(frozen=True)
class Stranger:
    """A file that shows none of the classes."""

    path: Path
    split: Split | None
    kind: str  # the first folder below ``neither/``, or empty


@dataclass
class Labels:
    """One way to read a folder: each file's class and split."""

    how: str  # in words, for a message
    command: str  # the flag that asks for it
    files: dict[str, tuple[str, Split | None]] = field(default_factory=dict)
    neither: list[tuple[Folder, Split | None]] = field(default_factory=list)
    same_classes: bool = False  # whether every split must have all classes

    def add(self, names: Iterable[str], label: str, split: Split | None = None) -> None:
        """Give files a label and a split."""
        self.files |= dict.fromkeys(names, (label, split))

    def counts(self) -> Counter[str]:
        """Return how many photos each class has, by their names."""
        return Counter(label for name, (label, _) in self.files.items() if is_photo_name(name))

    def enough(self) -> bool:
        """Return whether two classes or more could be trained on."""
        return sum(count >= ENOUGH for count in self.counts().values()) > 1

    def described(self) -> str:
        """Return in words how the folder is read, and with which classes."""
        return f"{self.how} ({listing(sorted(self.counts()), 3)}): {self.command}"


def refuse_closed(root: Path, tree: FolderTree) -> None:
    """Refuse a folder with one in it that cannot be listed."""
    for name, reason in sorted(tree.closed.items()):
        raise DataError(
            f"expected a folder that can be read; received {root / name} ({reason}); "
            "check its permissions"
        )


class LayoutReader:
    """Reads one data folder; ``notes`` are what the user should know of it."""

    def __init__(self, root: Path, tree: FolderTree, settings: LayoutSettings) -> None:
        self.root, self.tree, self.settings = root, tree, settings
        self.notes: list[str] = []
        self._given = self._given_neither()

    def read(self) -> Labels:
        """Return the labels as the settings, or else the rules, say."""
        layout = self.settings.layout
        if self.settings.labels is not None or layout == "table":
            return self._table()
        if layout == "flat":
            return self._flat_anywhere()
        if layout == "subfolders":
            return self._subfolders(self._narrow(self.tree.root))
        try:
            labels = self._layout(self.tree.root)
        except DataError:
            tables = [] if layout else self._tables_beside()
            if not tables:
                raise
            return self._of_tables(tables)
        tables = [] if layout else self._tables_beside()
        return self._settle(labels, self._of_tables(tables)) if tables else labels

    # ---- Rules 3 to 6: folders, and the names of photos ----

    def _layout(self, folder: Folder) -> Labels:
        """Read a folder by its sub-folders and the names of its photos."""
        forced = self.settings.layout == "folders"
        if not forced and (found := self._splits_beside_classes(folder)) is not None:
            return found
        folders = _without_copies(self._folders(folder), self._folders)
        splits = self._splits(folders)
        lone = len(splits) == 1 and [
            child
            for child in folders
            if not (split_of(child.own_name) or is_helper(child.own_name))
            and _photos(child.below()) >= ENOUGH
        ]
        classes = self._classes(folder, folders)
        if lone and not forced:
            raise self._two_readings(folder, classes, next(iter(splits.values())))
        if splits and not lone:
            return self._joined(folder, splits)
        if not forced:
            folders = list(self._with_labels(folder, folders))
            classes = self._classes(folder, folders)
        loose = self._flat(folder)
        inside = self._inside(folders[0]) if len(folders) == 1 else None
        if inside is not None:
            if loose.enough() and not forced:
                inside.command = f"--data {shlex.quote(str(self.root / folders[0].name))}"
                raise self._two_readings(folder, inside, loose)
            inside.neither += self._neither_in(folder, None)
            return inside
        if folders and (parts := self._splits_in_classes(folder, folders)) is not None:
            return parts
        if forced and folders:
            return classes
        if not folders or (len(folders) == 1 and len(loose.counts()) > 1):
            return self._only_loose(folder, loose)
        if all(is_helper(child.own_name) or split_of(child.own_name) for child in folders):
            labelled = [found for child in folders if (found := self._inside(child)) is not None]
            if not labelled and loose.enough():
                return loose
            if len(labelled) != 1:
                raise self._no_classes(folder, [f"{child.own_name}/" for child in folders])
            labelled[0].neither += self._neither_in(folder, None)
            return labelled[0]
        self._refuse_parts(folder, folders, classes)
        if loose.enough():
            raise self._two_readings(folder, classes, loose)
        for name in (child.own_name for child in folders):
            if is_helper(name) or split_of(name):
                self.notes.append(f"{name}/ is read as a class; if it is none, move it away")
        return classes

    def _with_labels(self, folder: Folder, folders: Sequence[Folder]) -> Sequence[Folder]:
        """Leave out what lies beside class folders to be predicted: ``test1/``, ``unlabeled/``.

        A folder called ``train`` may be a class, that of trains, but not beside one called
        ``test``: together they are the parts of a set.
        """
        without = [child for child in folders if holds_unlabelled(child.own_name)]
        others = [child for child in folders if child not in without]
        called = [child for child in others if not is_helper(child.own_name)]
        if not without or not called:
            return folders
        if any(split_of(child.own_name) for child in called):
            if all(split_of(child.own_name) for child in called):
                return folders
            parts = [child for child in folders if split_of(child.own_name)]
            raise self._no_classes(folder, [f"{child.own_name}/" for child in parts])
        return others if len(called) > 1 else folders

    def _splits(self, folders: Sequence[Folder]) -> dict[Split, Labels]:
        """Return the folders called like splits that hold labels."""
        found: dict[Split, tuple[Folder, Labels]] = {}
        for child in folders:
            split = split_of(child.own_name)
            labels = self._of_split(child, split) if split else None
            if split is None or labels is None:
                continue
            if split in found:
                raise DataError(
                    f"expected one folder for {split}; received {found[split][0].own_name}/ and "
                    f"{child.own_name}/; rename or move one of them"
                )
            found[split] = child, labels
        return {split: found[split][1] for split in SPLITS if split in found}

    def _of_split(self, folder: Folder, split: Split) -> Labels | None:
        """Return what a folder called like a split holds; None where it has no labels."""
        name, neither = folder.name, []
        while True:
            neither += self._neither_in(folder, split)
            folders, loose = self._folders(folder), self._flat(folder)
            if len(folders) != 1 or len(loose.counts()) > 1 or _photos(folder.files):
                break
            (child,) = folders
            if not self._folders(child) and len(self._flat(child).counts()) < 2:
                break
            folder = child  # seg_train/seg_train, train/images
        if all(is_helper(each.own_name) or split_of(each.own_name) for each in folders):
            folders = []  # train/images, test/test
        if folders and _photos(folder.files) <= sum(_photos(each.below()) for each in folders):
            labels = self._classes(folder, folders)
        elif len(loose.counts()) > 1:
            labels = loose
        else:
            return None
        labels.how = f"{name}/ is the {split} split of the classes in it"
        labels.command = f"--data {shlex.quote(str(self.root / name))}"
        labels.neither = neither
        return labels

    def _joined(self, folder: Folder, splits: dict[Split, Labels]) -> Labels:
        """Return the labels of all splits; of a single one, no split."""
        if len(splits) > 1 and "train" not in splits:
            raise DataError(
                f"expected a folder train/ beside {' and '.join(f'{name}/' for name in splits)}; "
                f"received {self._shown(folder)} without one; rename the folder with the training "
                "photos to train"
            )
        found = Labels("splits with class folders", "--layout folders", same_classes=True)
        found.neither = self._neither_in(folder, None)
        known = {_key(label) for label in splits["train"].counts()} if "train" in splits else set()
        for split, labels in splits.items():
            inside = {_key(label) for label in labels.counts()}
            if split != "train" and len(inside) == 1 and not inside & known:
                continue  # test/unknown: photos to be predicted
            given = split if len(splits) > 1 else None
            found.files |= {name: (label, given) for name, (label, _) in labels.files.items()}
            found.neither += [(each, given) for each, _ in labels.neither]
        return found

    def _splits_beside_classes(self, folder: Folder) -> Labels | None:
        """Return the labels of ``cat/``, ``dog/``, ``test/cat``, ``test/dog``; else None."""
        folders = self._folders(folder)
        classes = [child for child in folders if split_of(child.own_name) is None]
        names = {_key(child.own_name) for child in classes}
        if len(names) < 2 or any(split_of(child.own_name) == "train" for child in folders):
            return None
        splits = self._splits([child for child in folders if child not in classes])
        if not splits or any(set(map(_key, each.counts())) != names for each in splits.values()):
            return None
        train = self._classes(folder, classes)
        train.neither = []  # those of the folder, which are of no split
        return self._joined(folder, {"train": train, **splits})

    def _splits_in_classes(self, folder: Folder, folders: Sequence[Folder]) -> Labels | None:
        """Return the labels of ``cat/train``, ``cat/test``, ``dog/train`` …; else None."""
        found = self._classes(folder, [])
        for child in folders:
            splits = {each.name: split_of(each.own_name) for each in self._folders(child)}
            if _photos(child.files) or "train" not in splits.values() or None in splits.values():
                return None
            for each in self._folders(child):
                found.add(each.below(), child.own_name, splits[each.name])
        return found if len(folders) > 1 else None

    def _only_loose(self, folder: Folder, loose: Labels) -> Labels:
        """Return the labels in the names of photos, if these are classes."""
        if not loose.files:
            raise DataError(
                f"expected {LAYOUTS}; received {self._shown(folder)}, which holds none of these"
            )
        if all(is_helper(label) or split_of(label) for label in loose.counts()):
            raise self._no_classes(folder, [f"{label}….jpg" for label in loose.counts()])
        names = sorted(loose.counts())
        if len(names) > max(SURELY_SEVERAL, len(loose.files) / 2):
            raise DataError(
                "expected names of photos with the class before the last number, such as "
                f"cat.0.jpg; received {self._shown(folder)} with {len(loose.files):,} photos and "
                f"{len(names):,} classes ({listing(names)}); make a folder for each class, or name "
                "a table of labels: --labels FILE"
            )
        return loose

    def _refuse_parts(self, folder: Folder, folders: Sequence[Folder], classes: Labels) -> None:
        """Refuse folders that share what is in them, which are parts of one set, not classes."""
        inner = [{_key(each.own_name): each for each in self._folders(f)} for f in folders]
        if len(_shared(inner, but=is_helper)) > 1:
            raise self._two_readings(folder, classes, self._subfolders(folder))
        called = [self._flat(child) for child in folders]
        large = [[n for n, count in each.counts().items() if count >= ENOUGH] for each in called]
        if len(_shared(large)) > 1:
            raise self._two_readings(folder, classes, self._flat_anywhere())
        named = [n for n, each in enumerate(called) if each.files]
        if len(named) == 1 and len(folders) > 1 and called[named[0]].enough():
            child, inside = folders[named[0]], called[named[0]]
            if len(inside.files) >= 0.9 * _photos(child.below()):
                inside.command = f"--data {shlex.quote(str(self.root / child.name))}"
                raise self._two_readings(folder, classes, inside)

    def _inside(self, folder: Folder) -> Labels | None:
        """Return how a folder's inside is read; None if it holds photos of one kind only."""
        if not self._folders(folder) and len(self._flat(folder).counts()) < 2:
            return None
        labels = self._layout(folder)
        several = len(labels.counts()) > 1 or any(split for _, split in labels.files.values())
        return labels if several else None

    def _classes(self, folder: Folder, folders: Sequence[Folder]) -> Labels:
        """Return the labels if each of these folders is a class."""
        labels = Labels("each folder is a class", "--layout folders")
        labels.neither = self._neither_in(folder, None)
        for child in folders:
            drawn: set[str] = set()
            if any(holds_photos(each.own_name) for each in child.folders):
                masks = [each for each in child.folders if holds_annotations(each.own_name)]
                drawn.update(name for each in masks for name in each.below())
            labels.add((name for name in child.below() if name not in drawn), child.own_name)
        return labels

    def _flat(self, folder: Folder) -> Labels:
        """Return the labels in the names of the photos that lie directly in a folder."""
        labels = Labels("photos are called by their class", "--layout flat")
        labels.neither = self._neither_in(folder, None)
        for name in folder.files:
            if label := class_before_number(name):
                labels.add([name], label)
        return labels

    def _flat_anywhere(self) -> Labels:
        """Return the labels in the names of all photos, their splits by the folders above."""
        labels = Labels("photos are called by their class", "--layout flat")
        todo: list[tuple[Folder, Split | None]] = [(self.tree.root, None)]
        while todo:
            folder, split = todo.pop()
            labels.neither += self._neither_in(folder, split)
            for name, (label, _) in self._flat(folder).files.items():
                labels.add([name], label, split)
            todo += [(each, split or split_of(each.own_name)) for each in self._folders(folder)]
        if not labels.files:
            raise DataError(
                f"expected photos with a class before a number in their names, such as cat.0.jpg; "
                f"received {self.root} without any; leave out --layout flat"
            )
        return _with_train(labels)

    def _subfolders(self, folder: Folder) -> Labels:
        """Return the labels if each folder in a folder's folders is a class."""
        labels = Labels("each folder inside these is a class", "--layout subfolders")
        labels.neither = self._neither_in(folder, None)
        for child in self._folders(folder):
            for each in self._folders(child):
                labels.add(each.below(), each.own_name)
        if not labels.files:
            raise DataError(
                f"expected folders with class folders in each; received {self._shown(folder)} "
                "without them; leave out --layout subfolders"
            )
        return labels

    def _narrow(self, folder: Folder) -> Folder:
        """Go into single folders as long as there are folders in them."""
        while len(found := self._folders(folder)) == 1 and self._folders(found[0]):
            (folder,) = found
        return folder

    # ---- Rule 7: tables ----

    def _table(self) -> Labels:
        """Return the labels of the table that is asked for."""
        if self.settings.labels is None:
            if tables := self._tables_beside():
                return self._of_tables(tables)
            raise DataError(
                f"expected a table of photos and labels beside the photos; received {self.root} "
                "without one; name it with --labels FILE"
            )
        table, root = self.settings.labels, self.root.resolve()
        real = table.resolve()
        inside = real.relative_to(root).parent.as_posix() if real.is_relative_to(root) else "."
        beside = "" if inside == "." else inside
        return self._of_tables([read_table(table, self._photo_names(), beside)])

    def _tables_beside(self) -> list[LabelTable]:
        """Return the tables in the data folder, its folders, and the folders in these."""
        near = [self.tree.root, *self.tree.root.folders]
        near += [inner for folder in self.tree.root.folders for inner in folder.folders]
        files = [name for folder in near for name in folder.files]
        return find_tables(self.root, files, self._photo_names())

    def _photo_names(self) -> list[str]:
        return [name for name in self.tree.root.below() if may_be_photo(name)]

    def _of_tables(self, tables: Sequence[LabelTable]) -> Labels:
        """Return the labels of a table, or of one for each split."""
        splits = [split_of(table.path.stem) for table in tables]
        if len(tables) > 1 and (None in splits or len(set(splits)) < len(splits)):
            raise DataError(
                f"expected one table of labels; received {listing(t.path for t in tables)}; name "
                f"one: --labels {shlex.quote(str(tables[0].path))}"
            )
        labels = Labels(f"labels are in {listing(t.path.name for t in tables)}", "--layout table")
        for table, split in zip(tables, splits, strict=True):
            given = split if len(tables) > 1 else None
            for name, entry in table.entries.items():
                labels.add([name], entry.label, entry.split or given)
            strange = f"; {table.strange:,} rows name no photo" if table.strange else ""
            self.notes.append(
                f"the labels are from {table.path.name}: {len(table.entries):,} photos of "
                f"{len(table.labels()):,} classes{strange}"
            )
        todo = [self.tree.root]
        while todo:
            folder = todo.pop()
            labels.neither += self._neither_in(folder, None)
            todo += folder.folders
        return _with_train(labels)

    def _settle(self, labels: Labels, table: Labels) -> Labels:
        """Return one of two readings; where both make sense, they must say the same."""
        if len(labels.counts()) < 2:
            return table
        self.notes.clear()
        both = labels.files.keys() & table.files.keys()
        pairs = {(labels.files[name][0], table.files[name][0]) for name in both}
        one_to_one = all(len({pair[side] for pair in pairs}) == len(pairs) for side in (0, 1))
        if one_to_one or len(both) < len(labels.files) / 2:
            return labels
        raise self._two_readings(self.tree.root, labels, table)

    # ---- neither ----

    def strangers(self, labels: Labels) -> dict[str, Stranger]:
        """Return the photos of none of the classes by name."""
        found = {}
        for folder, split in labels.neither + ([(self._given, None)] if self._given else []):
            for name in folder.below():
                kind, inside, _ = name.removeprefix(f"{folder.name}/").partition("/")
                found[name] = Stranger(self.root / name, split, kind if inside else "")
        if self.settings.neither is not None and self._given is None:
            top = self.settings.neither.absolute()
            tree = scan(top)
            refuse_closed(top, tree)
            for name in tree.root.below():
                kind, inside, _ = name.partition("/")
                found[(top / name).as_posix()] = Stranger(top / name, None, kind if inside else "")
        return found

    def _given_neither(self) -> Folder | None:
        """Return the folder of ``--neither`` if it lies in the data folder."""
        given = self.settings.neither
        if given is None:
            return None
        if not isdir(given):
            found = "a file" if exists(given) else "nothing there"
            raise UsageError(
                f"expected --neither to be a folder of photos; received {given} ({found})"
            )
        real, top = given.resolve(), self.root.resolve()
        if top.is_relative_to(real):
            raise UsageError(
                "expected --neither to be a folder beside those of the classes; received "
                f"{given}, which holds them all"
            )
        todo = [self.tree.root]
        while todo and real.is_relative_to(top):
            folder = todo.pop()
            if (self.root / folder.name).resolve() == real:
                return folder
            todo += folder.folders
        return None

    def _neither_in(self, folder: Folder, split: Split | None) -> list[tuple[Folder, Split | None]]:
        return [(child, split) for child in folder.folders if is_neither(child.own_name)]

    # ---- Shared ----

    def _folders(self, folder: Folder) -> list[Folder]:
        """Return the sub-folders with photos that may be classes or splits."""
        found = [
            child
            for child in folder.folders
            if not is_neither(child.own_name)
            and child is not self._given
            and any(map(may_be_photo, child.below()))
        ]
        if any(holds_photos(child.own_name) for child in found):
            found = [child for child in found if not holds_annotations(child.own_name)]
        return found

    def _shown(self, folder: Folder) -> Path:
        return self.root / folder.name

    def _no_classes(self, folder: Folder, names: Sequence[str]) -> DataError:
        return DataError(
            f"expected classes; received {self._shown(folder)} with {listing(sorted(names), 4)}: "
            "names of splits or of helpers, not of classes; put the photos of each class into a "
            "folder of its own, or name a table of labels: --labels FILE; if these are the "
            "classes: --layout folders"
        )

    def _two_readings(self, folder: Folder, one: Labels, other: Labels) -> DataError:
        return DataError(
            f"expected a folder that can be read in one way; received {self._shown(folder)}, which "
            f"can be read in two: {one.described()}; or {other.described()}; add the one that is "
            "meant"
        )


def _without_copies(
    folders: Sequence[Folder], folders_in: Callable[[Folder], list[Folder]]
) -> list[Folder]:
    """Leave out folders that hold folders of the names of two others beside them or more.

    They are another copy of the whole, as some archives have it.
    """
    names = {_key(child.own_name) for child in folders}
    inside = {child.name: {_key(each.own_name) for each in folders_in(child)} for child in folders}
    return [each for each in folders if len(names & inside[each.name]) < 2]


def _photos(names: Iterable[str]) -> int:
    return sum(map(is_photo_name, names))


def _key(name: str) -> str:
    """Return a name as names of different folders are compared."""
    return plain_name(name).casefold()


def _shared(each: Sequence[Iterable[str]], but: Callable[[str], bool] | None = None) -> set[str]:
    """Return what is in two of the collections or more."""
    counts = Counter(name for names in each for name in names if but is None or not but(name))
    return {name for name, count in counts.items() if count > 1}


def _with_train(labels: Labels) -> Labels:
    """Return the labels, without splits where none is that of training."""
    if "train" not in {split for _, split in labels.files.values()}:
        labels.files = {name: (label, None) for name, (label, _) in labels.files.items()}
    return labels
