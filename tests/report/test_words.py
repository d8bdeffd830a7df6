"""The words of the report: whole sentences, so that they could be translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.report import report

WORDS = Path(report.__file__).parent / "templates" / "report.html.j2"
ENDS_A_SENTENCE = r"</(p|h3|li|td|th|summary|strong|span|figcaption|label|ul)>"
CONDITION = re.compile(r"{%-?\s*(if|elif|else|endif)\b.*?-?%}", re.DOTALL)
HIDDEN = re.compile(r"{#.*?#}|{%-?\s*set\b[^%]*?-?%}|{%-?\s*(?:do|import|from)\b.*?-?%}", re.DOTALL)


def glued(template: str) -> Iterator[str]:
    """Yield what a condition chooses and is no whole sentence, or cuts one in two."""
    for macro in re.findall(r"{% macro .*?%}(.*?){% endmacro", template, re.DOTALL):
        parts = CONDITION.split(HIDDEN.sub("", macro))[::2]
        for number, part in enumerate(parts):
            part = re.sub(r"{%.*?%}", "\n", part, flags=re.DOTALL)
            part = re.sub(r"{{.*?}}", "X", part, flags=re.DOTALL)
            part = re.sub(r"<[^>]*>", "", re.sub(ENDS_A_SENTENCE, ".", part)).strip()
            if len(part) < 2 or not re.search("[a-z]{3}", part):
                continue  # values alone
            begins = number == 0 or re.match(r"[A-Z0-9“.<]", part)
            ends = number == len(parts) - 1 or re.search(r"[.:!?;]\s*X*$", part)
            if not (begins and ends):
                yield part


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>All is well.{% if x %} But look.{% endif %}</p>", 0),
        ("<p>{% if x %}All is well.{% else %}Nothing is.{% endif %} Go on.</p>", 0),
        ("<p>It{% if x %} lowered the loss{% else %} brought nothing{% endif %}.</p>", 2),
        ("<p>It was {{ a }}{% if x %}, as before{% endif %}.</p>", 2),
    ],
)
def test_glued_sentences_are_found(template: str, found: int) -> None:
    macro = f"{{% macro one(x) %}}{template}{{% endmacro %}}"
    assert len(list(glued(macro))) == found


def test_a_condition_chooses_whole_sentences() -> None:
    assert list(glued(WORDS.read_text(encoding="utf-8"))) == []
