"""The answers to a shard of files as a Parquet file, which appears whole or not at all.

PyArrow (``requirements-extra.in``) is imported when the first part is written or read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.core.atomic_files import whole
from app.core.environment import require_package
from app.inference.bundle_format import file_sha256
from app.inference.prediction import Prediction
from app.scoring.index import Part
from app.scoring.sources import Found

if TYPE_CHECKING:
    import pyarrow as pa

NO_LABEL = ""  # counts files without an answer; no class has this name
PACKED_AT_ONCE = 500
GROUP = 2_000  # rows that Parquet packs together: 5 MB less memory than 10,000, 9 % larger files
_NAME = "part-{:06}.parquet"
_PATTERN = "part-*.parquet"


def require_pyarrow() -> None:
    """Refuse to begin without PyArrow.

    Raises:
        UsageError: with the command that installs it.
    """
    require_package("pyarrow", "Parquet files")
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # its own keeps 10 MB more for small tables


def part_path(folder: Path, number: int) -> Path:
    """Return where a part lies."""
    return folder / _NAME.format(number)


def part_files(folder: Path) -> Iterator[Path]:
    """Yield the files that have the name of a part."""
    for path in folder.glob(_PATTERN):
        digits = path.name[len("part-") : -len(".parquet")]
        if digits.isdecimal() and path.name == _NAME.format(int(digits)):
            yield path


class Row(NamedTuple):
    """The answer to one file: its number in the index, how it was found, and what was answered.

    ``unread`` says that it could not be read, and perhaps can be another time.
    """

    number: int
    found: Found
    answer: Prediction
    unread: bool


def table_of(rows: Sequence[Row], classes: Sequence[str]) -> pa.Table:
    """Return rows as Arrow's table; see ``schema``."""
    import pyarrow as pa

    none = [None] * len(classes)
    shares = [list((r.answer.probabilities or {}).values()) or none for r in rows]
    paths = [_text(r.found.path) for r in rows]
    columns = [
        [text for text, _ in paths],
        [_text(r.found.member)[0] if r.found.member else None for r in rows],
        [r.found.size for r in rows],
        [r.found.modified for r in rows],
        [_text(r.answer.label)[0] if r.answer.label is not None else None for r in rows],
        *([share[number] for share in shares] for number in range(len(classes))),
        [r.answer.novelty for r in rows],
        [_text(r.answer.error)[0] if r.answer.error is not None else None for r in rows],
        [exact for _, exact in paths],
        [r.number for r in rows],
    ]
    return pa.table(columns, schema=schema(classes))


class PartRows:
    """The rows of a part as they come, packed every now and then: 10,000 answers take 20 MB.

    Args:
        classes: the bundle's.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.unread: list[int] = []  # numbers of files
        self._rows: list[Row] = []
        self._packed: list[pa.Table] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        if row.unread:
            self.unread.append(row.number)
        self._rows.append(row)
        if len(self._rows) >= PACKED_AT_ONCE:
            self._pack()

    def table(self) -> pa.Table:
        """Return all rows; see ``schema``."""
        import pyarrow as pa

        self._pack()
        return pa.concat_tables(self._packed)

    def _pack(self) -> None:
        # In this order Ctrl-C between the lines doubles no rows; those lost are answered again.
        rows, self._rows = self._rows, []
        self._packed.append(table_of(rows, self.classes))


def schema(classes: Sequence[str]) -> pa.Schema:
    """Return the columns of a part.

    ``path`` (absolute), ``member`` (of an archive; else null), ``size`` in bytes, ``modified``
    (UTC), ``label`` (null without an answer), a probability for each class, ``novelty``, ``error``
    (null with an answer), ``path_bytes`` (of a path that is no UTF-8, which ``path`` shows with
    escapes; else null), and ``number``, which the file has in the index.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),
            ("member", pa.string()),
            ("size", pa.int64()),
            ("modified", pa.timestamp("ns", tz="UTC")),
            ("label", pa.string()),
            *((f"p_{_text(name)[0]}", pa.float32()) for name in classes),
            ("novelty", pa.float32()),
            ("error", pa.string()),
            ("path_bytes", pa.binary()),
            ("number", pa.int64()),
        ]
    )


def write_part(table: pa.Table, folder: Path, number: int, unread: Sequence[int] = ()) -> Part:
    """Write a part, whole or not at all; return what the index is to know of it."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = part_path(folder, number)
    with whole(path) as temporary:
        # A dictionary of other columns is larger than what it spares.
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=["label"], row_group_size=GROUP
        )
        size, digest = temporary.stat().st_size, file_sha256(temporary)
    counts = pc.value_counts(table["label"]).to_pylist()
    labels = Counter({each["values"] or NO_LABEL: each["counts"] for each in counts})
    return Part(number, table.num_rows, size, digest, dict(labels), tuple(unread))


def read_part(path: Path) -> pa.Table:
    """Read a part."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read()


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a part's rows; ``modified`` is nanoseconds since 1970, which ``datetime`` has not."""
    import pyarrow as pa

    table = read_part(path)
    place, times = table.schema.get_field_index("modified"), table["modified"].cast(pa.int64())
    rows: list[dict[str, Any]] = table.set_column(place, "modified", times).to_pylist()
    return rows


def is_whole(part: Part, folder: Path) -> bool:
    """Return whether a part is on the disk as it was written."""
    path = part_path(folder, part.number)
    try:
        return path.stat().st_size == part.bytes and file_sha256(path) == part.sha256
    except OSError:
        return False


def exact_paths(table: pa.Table) -> list[bytes]:
    """Return the bytes of the paths of a part."""
    pairs = zip(table["path"].to_pylist(), table["path_bytes"].to_pylist(), strict=True)
    return [os.fsencode(text) if exact is None else exact for text, exact in pairs]


def _text(name: str) -> tuple[str, bytes | None]:
    r"""Return a name as UTF-8, other bytes as ``\xff``, and where there are some its bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        exact = os.fsencode(name)
        return exact.decode("utf-8", "backslashreplace"), exact
    return name, None
