"""What a run writes as CSV does no harm in a spreadsheet, and is read back as it was."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.atomic_files import read_rows, write_rows
from app.core.sanitise import for_csv, from_csv

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
FORMULAS += ["x;=1+1", "a;b;@c", "x\n-1", 'x;"=1"', "x;\t=1", "x\r\n+1"]


@pytest.mark.parametrize("name", [*FORMULAS, "'=1", "''", "cat.jpg", "", "a=1", 'q"u,o\nte'])
def test_names_come_back_and_never_begin_a_formula(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    write_rows([{"name": name, "p": -0.5}], ["name", "p"], path)
    with path.open(newline="", encoding="utf-8") as file:
        (_, row) = csv.reader(file)
    assert not row[0].startswith(tuple("=+-@\t\r\n"))
    for line in re.split(r"[\r\n]", path.read_text(encoding="utf-8")):
        for other in re.split(r"[;\t]", line):  # as where ``;`` or a tab separates cells
            assert not other.startswith(tuple("=+-@"))
    assert row[1] == "-0.5"  # a number stays one
    assert read_rows(path) == [{"name": name, "p": "-0.5"}]


@given(st.text() | st.text("x;=+-@\t\r\n'\""))
def test_any_text_comes_back(text: str) -> None:
    assert from_csv(for_csv(text)) == text


def test_names_that_are_no_utf_8_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"=\xff.jpg")
    write_rows([{"name": name}], ["name"], tmp_path / "rows.csv")
    assert read_rows(tmp_path / "rows.csv") == [{"name": name}]


def test_text_is_in_quotes_and_numbers_are_not(tmp_path: Path) -> None:
    rows = [{"p_;=a": 0.5, "name": "a"}, {"p_;=a": 7, "name": ""}]
    write_rows(rows, ["name", "p_;=a"], tmp_path / "rows.csv")
    written = (tmp_path / "rows.csv").read_bytes()
    assert written == b'"name","p_;\'=a"\r\n"a",0.5\r\n"",7\r\n'
    assert read_rows(tmp_path / "rows.csv")[0] == {"name": "a", "p_;=a": "0.5"}


def test_a_row_that_is_too_short_is_read_for_its_reader_to_judge(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,p\na\n")
    assert read_rows(tmp_path / "rows.csv") == [{"name": "a", "p": None}]
