"""Lists and tables as editors, Excel and PowerShell write them are read alike."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from app.core.errors import UsageError
from app.core.text_file import decode_text, name_readings, read_text_file, row_readings, table_rows

TEXT = "kätzchen.jpg\r\nhund.jpg\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_usual_encoding_gives_the_same_text(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes(TEXT.encode(encoding))
    assert read_text_file(tmp_path / "list.txt", "a list") == TEXT
    assert decode_text(b"\xfe\xff" + TEXT.encode("utf-16-be")) == TEXT


def test_a_line_that_is_no_utf_8_leaves_the_others_as_they_are() -> None:
    assert decode_text("猫\n".encode() + b"caf\xe9\nna\xefve\x81") == "猫\ncafé\nnaïve\udc81"


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("name;label\ncat, 1.jpg;cat\n", [("name", "label"), ("cat, 1.jpg", "cat")]),
        ("name\tlabel\r\n1.jpg\tcat\r\n", [("name", "label"), ("1.jpg", "cat")]),
        ("id,label\r1,cat\r", [("id", "label"), ("1", "cat")]),
        ("sep=;\r\nid;x\r\n", [("id", "x")]),
        ('# a, b\n\n"two\nlines;";"q""q"\nx;y', [("# a, b",), ("two\nlines;", 'q"q'), ("x", "y")]),
        ('"odd.jpg\na;b\n', [('"odd.jpg',), ("a", "b")]),
        ("a b.jpg\0c\nd.jpg\0", [("a b.jpg",), ("c\nd.jpg",)]),
    ],
)
def test_the_first_row_says_what_separates_cells(text: str, cells: list[tuple[str, ...]]) -> None:
    assert [row.cells for row in table_rows(text)] == cells


def test_rows_have_the_numbers_that_an_editor_shows() -> None:
    rows = list(table_rows('\n"two\nlines",x\nlast,y\n'))
    assert [(row.number, row.line) for row in rows] == [(2, '"two\nlines",x'), (4, "last,y")]


def test_a_row_may_mean_a_file_in_several_ways() -> None:
    (row,) = table_rows("'=x\\kätzchen.jpg ;cat")
    readings = list(row_readings(row))
    assert readings[0] == row.line
    assert "=x\\kätzchen.jpg " in readings
    assert "'=x/kätzchen.jpg" in readings
    assert unicodedata.normalize("NFD", "'=x/kätzchen.jpg") in readings


def test_a_name_of_any_bytes_is_found_again() -> None:
    for name in (bytes(range(128, 256)), b"caf\xe9.jpg", "猫é".encode()):
        assert os.fsdecode(name) in name_readings(decode_text(name))


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match=f"expected a list; received .*{reason}"):
            read_text_file(path, "a list")
