"""The exercises of docs/teaching.md: each changes one line that is there, into one that runs."""

from __future__ import annotations

import ast
import re
from itertools import pairwise

import jupytext
import pytest

from app.report.notebook import PROJECT

PAGE = (PROJECT / "docs" / "teaching.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+) \| (\d+) \| `(.+?)` → `(.+?)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
EXERCISES = ROW.findall(PAGE)


def code_of(section: str) -> list[str]:
    """Return the code cells below the heading ``## section.`` of the first notebook."""
    found, inside = [], False
    for cell in jupytext.read(PROJECT / "notebooks" / "1_transfer_learning.py").cells:
        if cell.cell_type == "code":
            found += [cell.source] * inside
        elif headings := re.findall(r"^## (\d+)\.", cell.source, re.MULTILINE):
            inside = headings[-1] == section
    return found


def test_there_are_twenty_with_a_question_and_what_was_seen() -> None:
    assert [number for number, *_ in EXERCISES] == [str(number) for number in range(1, 21)]
    assert all(question.endswith("?") and seen for *_, question, seen in EXERCISES)


@pytest.mark.parametrize(("number", "section", "before", "after"), [e[:4] for e in EXERCISES])
def test_each_changes_one_line_of_its_section(
    number: str, section: str, before: str, after: str
) -> None:
    holding = [cell for cell in code_of(section) if before in cell]
    assert len(holding) == 1
    assert holding[0].count(before) == 1
    changed = holding[0].replace(before, after)
    old, new = (ast.unparse(ast.parse(cell)) for cell in (holding[0], changed))
    assert old != new
    lines = zip(holding[0].splitlines(), changed.splitlines(), strict=True)
    assert sum(a != b for a, b in lines) == 1


def test_the_minutes_of_the_lesson_are_ninety() -> None:
    spans = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+)–(\d+) \|", PAGE, re.MULTILINE)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 90
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
