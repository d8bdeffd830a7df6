"""Names that files, classes and folders may have on Linux, each of them trouble somewhere."""

from __future__ import annotations

import os

NAMES = {
    "no UTF-8": os.fsdecode(b"caf\xe9"),
    "half a letter": os.fsdecode(b"caf\xc3"),
    "escape sequence": "red\x1b[31m\x1b[2J",
    "C1 control": "red\x9b31m",
    "bell, backspace, DEL": "a\a\b\x7f",
    "carriage return": "evil\rgood",
    "newline": "two\nlines",
    "reading direction": "invoice\u202egpj.exe",
    "isolate": "a\u2066b",
    "formula": "=1+1",
    "formula behind a semicolon": "x;=1+1",
    "formula behind a quoted one": 'x;"=1+1',
    "formula behind a tab": "x\t@SUM(A1)",
    "formula behind a newline": "x\n-1+2",
    "quote mark": "'=1",
    "HTML": "<img src=x onerror=alert(1)>",
    "end of an attribute": '"><script>alert(1)<!--',
    "Markdown": "[a](javascript:alert(1)) | **b**",
    "TeX": r"$\frac{a",
    "flag": "--help",
    "pattern": "[ab]*?",
    "shell": "$(touch evil); `a`",
    "rich markup": "[bold red]a[bold]",
    "format string": "%s {0} %(a)s",
    "spaces": "  a  ",
    "emoji of three": "\U0001f469\u200d\U0001f692",
    "Persian": "\u0645\u06cc\u200c\u0631\u0648\u0645",
}
