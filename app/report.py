"""The report of a run: ``python -m app.report RUN`` runs notebooks/report.py and writes a page.

The page is one file that needs nothing else: no network, no script, no font.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.atomic import open_whole
from app.cli import run as run_command
from app.notebook import PROJECT, run_notebook, save_notebook, without_machine
from app.printable import printable
from app.results import RUN_VARIABLE, check_complete
from app.runs import Run

SOURCE = PROJECT / "notebooks" / "report.py"
STYLE = Path(__file__).with_suffix(".css")

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run and return its path.

    Raises:
        AppError: when the run is not finished, or the report's notebook fails on it.
    """
    page = render(execute(run), title=f"Report: {run.folder.resolve().name}")
    with open_whole(run.report) as file:
        file.write(page)
    return run.report


def write_notebook(run: Run, path: Path) -> Path:
    """Write the executed notebook to ``path``, the same for the same run on every machine.

    Raises:
        AppError: when the run is not finished, or the report's notebook fails on it.
    """
    return save_notebook(cleaned(execute(run), run), path)


def execute(run: Run) -> Any:
    """Return notebooks/report.py as an executed ``NotebookNode``.

    It is run by this Python, whatever kernels are installed, and reads no settings of Jupyter.

    Raises:
        AppError: when the run is not finished, or a cell fails.
    """
    check_complete(run)
    return run_notebook(
        SOURCE,
        {RUN_VARIABLE: str(run.folder.resolve())},
        where=f" on {run.folder}",
        mend="; the run itself is whole",
    )


def render(notebook: Any, *, title: str) -> str:
    """Turn an executed notebook into an HTML page without its code."""
    from nbconvert import HTMLExporter  # here, because it takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # "basic" is the template without any page around it; the others fetch scripts.
        exporter = HTMLExporter(  # type: ignore[no-untyped-call]
            template_name="basic",
            exclude_input=True,
            exclude_input_prompt=True,
            exclude_output_prompt=True,
            exclude_anchor_links=True,
        )
        body, _ = exporter.from_notebook_node(notebook)
    return framed(body, title)


def framed(body: str, title: str) -> str:
    """Return a whole page around its content."""
    return PAGE.format(title=html.escape(title), style=STYLE.read_text(encoding="utf-8"), body=body)


def write_comparison(arguments: argparse.Namespace) -> None:
    """Write the page of ``--compare`` and print its table, or JSON.

    Raises:
        AppError: when the runs cannot be compared.
    """
    from app.comparison_page import read_compared  # brings matplotlib

    compared = read_compared(arguments.compare)
    path = compared.place(arguments.output)
    with open_whole(path) as file:
        file.write(framed(compared.body(), compared.title))
    if arguments.json:
        print(json.dumps({**compared.values(), "page": str(path)}, indent=2))
    else:
        print(f"{compared.text()}\n\n{printable(str(path))}")


def cleaned(notebook: Any, run: Run) -> Any:
    """Take out of a notebook what depends on the machine, and number its cells.

    Absolute paths are shortened to their last part.
    """
    config = json.loads(run.config.read_text(encoding="utf-8"))
    paths = [value for value in config.values() if isinstance(value, str)]
    return without_machine(notebook, [*paths, str(run.folder.resolve())])


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the report; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.report", description="Write the report of a finished run."
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="the run's folder, runs/<name>"
    )
    parser.add_argument(
        "--notebook",
        type=Path,
        metavar="FILE",
        help="write the executed notebook to this file, instead of report.html",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="two runs or more side by side, each against the first: a page of its own",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="of --compare (default: compare-A-B.html beside the runs)",
    )
    parser.add_argument("--json", action="store_true", help="--compare answers in JSON")
    arguments = parser.parse_args(argv)
    if (arguments.run is None) == (arguments.compare is None):
        parser.error("expected the folder of one run, or --compare with those of two or more")
    if not arguments.compare and (arguments.output or arguments.json):
        parser.error("--output and --json go with --compare")
    if arguments.compare:
        write_comparison(arguments)
        return 0
    run = Run(arguments.run)
    print(write_notebook(run, arguments.notebook) if arguments.notebook else write_report(run))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
