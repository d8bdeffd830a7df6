"""Finished runs side by side: ``python -m app compare RUN RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.sanitise import for_json, for_terminal


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the page and print its table, or JSON; return the exit code.

    Raises:
        AppError: when the runs cannot be compared.
    """
    parser = Parser(
        description="Compare finished runs on the same test photos, each with the first."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of two runs or more"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page to write (default: compare-A-B.html beside the runs)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    from app.report.comparison_page import read_compared  # brings matplotlib

    compared = read_compared(arguments.runs)
    path = compared.place(arguments.output)
    with open_whole(path) as file:
        file.write(compared.page())
    if arguments.json:
        print(for_json({**compared.values(), "page": str(path)}, indent=2))
    else:
        print(f"{compared.text()}\n\n{for_terminal(str(path))}")
    return 0
