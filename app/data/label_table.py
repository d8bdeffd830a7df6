"""Labels in a table: a CSV or TSV file with the photos' names, their labels and perhaps splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from app.core.console import listing
from app.core.errors import DataError, UsageError
from app.core.labels import plain_name
from app.core.text_file import FILE_COLUMNS, Row, name_readings, read_text_file, table_rows
from app.data.folder_names import Split, split_of, stem_of

SUFFIXES = (".csv", ".tsv")
MOST_BYTES = 16_000_000  # of a table that nobody has named: hundreds of thousands of rows
MOST_COLUMNS = 200
# What columns are called, the likeliest first; compared in lower case, without blanks and _ and -.
_LABELS = (
    "label", "labels", "class", "classname", "classes", "category", "target", "breed", "species",
    "diagnosis", "dx", "y", "tag", "type", "labelname", "classid", "labelid", "categoryid",
)  # fmt: skip
_FILES = {name.replace("_", "") for name in FILE_COLUMNS} | {"imageid", "idcode", "filepath"}
_SPLIT_COLUMNS = ("split", "set", "dataset", "subset", "partition", "usage", "fold")


@dataclass(frozen=True)
class TableEntry:
    """What a table says about one photo."""

    label: str
    split: Split | None


@dataclass(frozen=True)
class LabelTable:
    """A table that names photos of the data folder."""

    path: Path
    entries: dict[str, TableEntry]  # by the photo's name below the data folder
    strange: int  # rows that name no photo

    def labels(self) -> set[str]:
        """Return the labels that it gives."""
        return {entry.label for entry in self.entries.values()}


def read_table(path: Path, names: Collection[str], beside: str = "") -> LabelTable:
    """Read a table that the user has named, or that lies beside the photos.

    The column whose cells name the most photos is that of the files; the label's is found by its
    name, or is the only other one whose values repeat. A photo is named by its path below the data
    folder or below the table, by its file name, or by that without suffix. Where several files
    have that name, the one counts whose folder holds the most photos of the table.

    Args:
        path: CSV or TSV, in any of the encodings of ``app.core.text_file``.
        names: of all photos below the data folder.
        beside: the table's folder below the data folder.

    Raises:
        UsageError: when it cannot be read, or has no column of photos or none of labels.
        DataError: when it gives one photo two labels.
    """
    what = "--labels to be a table of photos and labels"
    rows = [row for row in table_rows(read_text_file(path, what)) if not row.line.startswith("#")]
    if not rows:
        raise UsageError(f"expected {what}; received {path}, which is empty")
    files = _PhotoNames(names, beside)
    width = max(len(row.cells) for row in rows)
    if width > MOST_COLUMNS:
        raise UsageError(
            f"expected {what}; received {path} with {width:,} columns, as tables of numbers have; "
            f"keep at most {MOST_COLUMNS}"
        )
    titles = [_title(_cell(rows[0], column)) for column in range(width)]
    matches = [
        (len({cell for row in rows if files.known(cell := _cell(row, column))}), title in _FILES)
        if title not in _LABELS  # 0 and 1 may be names of photos, too
        else (0, False)
        for column, title in enumerate(titles)
    ]
    column = max(range(width), key=lambda column: matches[column])
    if not matches[column][0]:
        raise UsageError(
            f"expected {what}; received {path}, no cell of which names a photo of the data folder; "
            "write one row for each photo, its file name and its label, as CSV or TSV"
        )
    header = None if files.known(_cell(rows[0], column)) else rows[0]
    rows = rows[1:] if header else rows
    label, split = _columns(path, header, rows, column, width)
    found = files.choose([_cell(row, column) for row in rows])
    entries: dict[str, TableEntry] = {}
    for row, name in zip(rows, found, strict=True):
        given = plain_name(_cell(row, label))
        if name is None or not given:
            continue
        entry = TableEntry(given, split_of(_cell(row, split)) if split is not None else None)
        if entries.setdefault(name, entry).label != entry.label:
            raise DataError(
                f"expected one label for each photo in {path}; received {entries[name].label} and "
                f"{entry.label} for {name}; remove one of the rows"
            )
    return LabelTable(path, entries, sum(name is None for name in found))


def find_tables(root: Path, tables: Iterable[str], names: Collection[str]) -> list[LabelTable]:
    """Return the tables that give photos at least two labels; half of the rows name photos.

    Files that are called submissions are examples of answers.

    Args:
        root: the data folder.
        tables: names of files below it, of any kind.
        names: of all photos below it.
    """
    found = []
    for name in sorted(tables):
        path = root / name
        known = path.suffix.lower() in SUFFIXES and "submission" not in path.name.lower()
        if not known or not isfile(path) or path.stat().st_size > MOST_BYTES:
            continue
        try:
            table = read_table(path, names, name.rpartition("/")[0])
        except (UsageError, DataError):  # another kind of table
            continue
        if len(table.labels()) > 1 and len(table.entries) >= table.strange:
            found.append(table)
    return found


def _columns(
    path: Path, header: Row | None, rows: Sequence[Row], file: int, width: int
) -> tuple[int, int | None]:
    """Return the columns of labels and of splits."""
    titles = [_title(_cell(header, column)) if header else "" for column in range(width)]
    split = next(
        (
            column
            for column, title in enumerate(titles)
            if title in _SPLIT_COLUMNS and all(split_of(_cell(row, column)) for row in rows)
        ),
        None,
    )
    others = [column for column in range(width) if column not in (file, split)]
    for known in _LABELS:
        if (column := next((c for c in others if titles[c] == known), None)) is not None:
            return column, split
    repeating = [c for c in others if _repeats([_cell(row, c) for row in rows])]
    if len(repeating) != 1:
        shown = [header.cells[c] if header else f"column {c + 1}" for c in others if c < width]
        raise UsageError(
            f"expected a column of labels in {path}, called label; received the columns "
            f"{listing(shown) or 'of file names only'}; call the one that holds the labels label"
        )
    return repeating[0], split


def _title(cell: str) -> str:
    """Return the name of a column as it is compared."""
    return "".join(letter for letter in cell.lower() if letter.isalnum())


def _repeats(values: Sequence[str]) -> bool:
    """Return whether values could be labels: at least two, each twice on average."""
    distinct = len(set(values) - {""})
    return 1 < distinct <= max(2, len(values) / 2)


def _cell(row: Row, column: int) -> str:
    return row.cells[column].strip() if column < len(row.cells) else ""


class _PhotoNames:
    """Finds photos by what tables call them."""

    def __init__(self, names: Iterable[str], beside: str) -> None:
        self._beside = f"{beside}/" if beside else ""
        self._whole = set(names)
        self._own = defaultdict(list)  # without folders, with and without suffix
        for name in sorted(self._whole):
            own = name.rpartition("/")[2]
            self._own[own].append(name)
            if (stem := stem_of(name)) != own:
                self._own[stem].append(name)

    def known(self, cell: str) -> bool:
        return bool(self._candidates(cell))

    def choose(self, cells: Sequence[str]) -> list[str | None]:
        """Return the photo that each cell means; None where there is none.

        Raises:
            DataError: when a cell may mean several photos.
        """
        candidates = [self._candidates(cell) for cell in cells]
        folders = Counter(_folder(name) for names in candidates for name in names)
        chosen: list[str | None] = []
        for cell, names in zip(cells, candidates, strict=True):
            most = max((folders[_folder(name)] for name in names), default=0)
            best = [name for name in names if folders[_folder(name)] == most]
            if len(best) > 1:
                raise DataError(
                    f"expected each row of a table to name one photo; received {cell!r}, which may "
                    f"be {best[0]} or {best[1]}; write the folder before the name"
                )
            chosen.append(best[0] if best else None)
        return chosen

    def _candidates(self, cell: str) -> list[str]:
        text = cell.replace("\\", "/").removeprefix("./")
        if text.isascii() and text.rpartition("/")[2] not in self._own:
            return []  # most cells of most tables
        for reading in name_readings(text):
            for whole in (self._beside + reading, reading):
                if whole in self._whole:
                    return [whole]
            found = self._own[own] if (own := reading.rpartition("/")[2]) in self._own else []
            if "/" in reading:  # the table may have been written where folders lay elsewhere
                found = [n for n in found if f"/{n}".endswith(f"/{reading}")] or found
            if found:
                return found
        return []


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
