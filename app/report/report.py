"""The report of a run: ``python -m app report RUN`` runs report_cells.py and writes a page.

The page is one file that needs nothing else: no network, no script, no font.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.run_folder import Run
from app.core.safe_output import output_file
from app.core.sanitise import for_terminal
from app.report.notebook import run_notebook, save_notebook, without_machine, without_warnings
from app.report.results import PHOTOS_VARIABLE, RUN_VARIABLE, read_results

SOURCE = Path(__file__).with_name("report_cells.py")  # a script that Jupyter runs, not a module


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run and return its path.

    It shows photos that the run was trained on, where they still lie.

    Raises:
        AppError: when the run is not finished, or the report's notebook fails on it.
    """
    page = render(execute(run, photos=photos_of(run)), title=f"Report: {run.folder.resolve().name}")
    with open_whole(run.report) as file:
        file.write(page)
    return run.report


def write_notebook(run: Run, path: Path) -> Path:
    """Write the executed notebook to ``path``, without traces of the machine.

    It is made to be passed on, so it shows drawings where the report shows photos.

    Raises:
        UsageError: when ``path`` is among the run's photos, or does not end with ``.ipynb``.
        AppError: when the run is not finished, or the report's notebook fails on it.
    """
    output_file(path, ".ipynb", [photos_of(run)])  # first, since executing takes its time
    return save_notebook(cleaned(execute(run), run), path)


def photos_of(run: Run) -> Path:
    """Return where the photos lay that a run was trained on.

    Raises:
        AppError: when the run is not finished, or a file of it is damaged.
    """
    return read_results(run).config.data.absolute()


def execute(run: Run, photos: Path | None = None) -> Any:
    """Return report_cells.py as an executed ``NotebookNode``.

    It is run by this Python, whatever kernels are installed, and reads no settings of Jupyter.

    Args:
        run: a finished one.
        photos: the folder or archive whose photos may be shown; without it drawings are.

    Raises:
        AppError: when the run is not finished, or a cell fails.
    """
    read_results(run)  # a damaged file is reported in a line of its own
    return run_notebook(
        SOURCE,
        {RUN_VARIABLE: str(run.folder.resolve()), PHOTOS_VARIABLE: str(photos or "")},
        where=f" on {run.folder}",
        mend="; the run itself is whole",
    )


def render(notebook: Any, *, title: str) -> str:
    """Turn an executed notebook into an HTML page without its code, nor warnings."""
    from app.report.html import environment  # here, because --help should not wait for it

    cells = without_warnings(notebook).cells
    headings = [cell.source for cell in cells if cell.cell_type == "markdown"]
    titles = [text[3:] for text in headings if text.startswith("## ")]
    page = environment().get_template("notebook.html.j2")
    return page.render(title=title, titles=titles, cells=cells)


def cleaned(notebook: Any, run: Run) -> Any:
    """Take out of a notebook what depends on the machine, and number its cells.

    Absolute paths are shortened to their last part.
    """
    config = read_results(run).config
    paths = [config.data, config.exclude, config.weights, config.runs, run.folder.resolve()]
    return without_machine(notebook, [str(path) for path in paths if path])


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the report; return the exit code."""
    parser = Parser(description="Write the report of a finished run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/<name>")
    parser.add_argument(
        "--notebook",
        type=Path,
        metavar="FILE",
        help="write the executed notebook to this file, instead of report.html",
    )
    arguments = parser.parse_args(argv)
    run = Run(arguments.run)
    path = write_notebook(run, arguments.notebook) if arguments.notebook else write_report(run)
    print(for_terminal(str(path)))
    return 0
