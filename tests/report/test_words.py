"""The words of report, card and comparison: whole sentences, so that they could be translated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.report import report

FOLDER = Path(report.__file__).parent
LAYOUT = {"notebook.html.j2", "page.html.j2", "parts.html.j2"}  # these have no sentences
TEMPLATES = sorted(p for p in (FOLDER / "templates").glob("*.j2") if p.name not in LAYOUT)
NOTEBOOKS = FOLDER.parents[1] / "notebooks"
MODULES = [*sorted(FOLDER.glob("*.py")), NOTEBOOKS / "vgg_show.py"]
ENDS_A_SENTENCE = r"</(p|h[1-3]|li|td|th|summary|strong|span|figcaption|label|ul)>"
CONDITION = re.compile(r"{%-?\s*(if|elif|else|endif)\b.*?-?%}", re.DOTALL)
HIDDEN = re.compile(
    r"{#.*?#}|{%-?\s*set\b[^%]*?-?%}|{%-?\s*(?:do|import|from|extends)\b.*?-?%}", re.DOTALL
)
TEXTS = ast.Constant | ast.JoinedStr
CHOSEN = re.compile(r'{{[^}]*"[^"]*[a-z]{2}[^"]*"\s+if\s[^}]*\selse\b[^}]*}}')
STATEMENT_ALONE = re.compile(r"(\s*{%.*?%})+\s*")


def glued(template: str, *, markdown: bool = False) -> Iterator[str]:
    """Yield what a condition chooses and is no whole sentence, or cuts one in two."""
    if markdown:  # a line is a paragraph, an item of a list or a row of a table
        template = re.sub(r"\A---\n.*?\n---\n", "", template, flags=re.DOTALL)
        lines = template.splitlines()
        template = "\n".join(
            line if STATEMENT_ALONE.fullmatch(line) else f"{line}." for line in lines
        )
    macro = r"{% macro .*?%}(.*?){%-? endmacro -?%}"
    bodies = re.findall(macro, template, re.DOTALL)
    for body in (*bodies, re.sub(macro, "", template, flags=re.DOTALL)):
        yield from CHOSEN.findall(body)
        parts = CONDITION.split(HIDDEN.sub("", body))[::2]
        for number, part in enumerate(parts):
            part = re.sub(r"{%.*?%}", "\n", part, flags=re.DOTALL)
            part = re.sub(r"{{.*?}}", "X", part, flags=re.DOTALL)
            part = re.sub(r"<[^>]*>", "", re.sub(ENDS_A_SENTENCE, ".", part)).strip()
            if len(part) < 2 or not re.search("[a-z]{3}", part):
                continue  # values alone
            begins = number == 0 or re.match(r"[A-Z0-9“.<|#–-]", part)
            ends = number == len(parts) - 1 or re.search(r"[.:!?;]\s*X*$", part)
            if not (begins and ends):
                yield part


def put_together(code: str) -> Iterator[str]:
    """Yield what in Python makes one sentence of several pieces of words."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.JoinedStr(values=values):
                for value in values:
                    for inner in ast.walk(value):
                        if isinstance(inner, ast.IfExp) and words(inner.body) + words(inner.orelse):
                            yield ast.unparse(node)
            case ast.BinOp(left, ast.Mult(), right):
                if any(isinstance(side, TEXTS) and words(side) for side in (left, right)):
                    yield ast.unparse(node)
            case ast.BinOp(op=ast.Add()) if (
                isinstance(node.left, ast.IfExp) or isinstance(node.right, ast.IfExp)
            ) and (words(node.left) or words(node.right)):
                yield ast.unparse(node)
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join")
            ) if re.search("[a-z]", between):
                yield ast.unparse(node)


def words(node: ast.AST) -> list[str]:
    """Return the words that stand in an expression."""
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
    return [
        text for text in texts if isinstance(text, str) and re.search("[a-z]{2}| [a-z]|^s$", text)
    ]


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<p>All is well.{% if x %} But look.{% endif %}</p>", 0),
        ("<p>{% if x %}All is well.{% else %}Nothing is.{% endif %} Go on.</p>", 0),
        ("<p>It{% if x %} lowered the loss{% else %} brought nothing{% endif %}.</p>", 2),
        ("<p>It was {{ a }}{% if x %}, as before{% endif %}.</p>", 2),
        ('<p>{{ n }} {{ "photo" if n == 1 else "photos" }} are left.</p>', 1),
    ],
)
def test_glued_sentences_are_found(template: str, found: int) -> None:
    macro = f"{{% macro one(x) %}}{template}{{% endmacro %}}"
    assert len(list(glued(macro))) == found
    assert len(list(glued(template))) == found


def test_a_line_of_markdown_is_a_sentence_of_its_own() -> None:
    chosen = "{% if x %}\n- **Network:** VGG16\n{% else %}\n- **Network:** VGG19\n{% endif %}\n"
    assert list(glued(chosen, markdown=True)) == []
    cut = "- **Trained:** head\n{%- if x %}\n then block5\n{%- endif %}\n"
    assert list(glued(cut, markdown=True)) != []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_condition_chooses_whole_sentences(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert list(glued(text, markdown=template.name.endswith(".md.j2"))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("""f"{n} photo{'s' if n > 1 else ''} left" """, 1),
        ("""'Photos' + ' of cats' * cats""", 1),
        ("""('Drawings' if drawn else 'Photos') + ' of cats'""", 1),
        ("""' and '.join(names)""", 1),
        ("""', '.join(names)""", 0),
        ("""f'{n} photos left' if n > 1 else 'one photo left'""", 0),
        ("""f"{'–' if n is None else n}" """, 0),
    ],
)
def test_pieces_that_are_put_together_are_found(code: str, found: int) -> None:
    assert len(list(put_together(code))) == found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_python_says_whole_sentences(module: Path) -> None:
    assert list(put_together(module.read_text(encoding="utf-8"))) == []
