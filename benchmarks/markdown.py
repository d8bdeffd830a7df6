"""A table in Markdown: it reads on a terminal and can be put into the README as it is."""

from __future__ import annotations

from collections.abc import Sequence

GIB, GB = 2**30, 10**9  # memory is told in GiB, disk in GB, as systems and shops do


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its columns as wide as their longest cell; all but the first to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, rule, *rows]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def gib(size: int | float | None) -> str:
    """Return bytes as GiB with two digits, or a dash for what is not known."""
    return "–" if size is None else f"{size / GIB:.2f}"


def verdict(met: bool) -> str:
    """Return how a bar is told."""
    return "met" if met else "missed"
