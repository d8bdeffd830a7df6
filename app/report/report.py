"""The report of a run: ``python -m app report RUN`` runs report_cells.py and writes a page.

The page is one file that needs nothing else: no network, no script, no font. ``print_summary`` is
the table at the end of training.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.config import TrainConfig
from app.core.run_folder import Run
from app.core.safe_output import output_file
from app.core.sanitise import for_terminal
from app.report.notebook import run_notebook, save_notebook, without_machine, without_warnings
from app.report.results import PHOTOS_VARIABLE, RUN_VARIABLE, read_results
from app.report.verdict import corrections_said, verdict

SOURCE = Path(__file__).with_name("report_cells.py")  # a script that Jupyter runs, not a module


@dataclass(frozen=True)
class Section:
    """A part of a report: its title, what cells show in it, and the parts that are folded in it."""

    title: str
    outputs: list[Any] = field(default_factory=list)
    folds: list[Section] = field(default_factory=list)


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run and return its path.

    It shows photos of the run, those that are still where they were.

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
    """Return where the photos were that a run was trained on.

    Raises:
        AppError: when the run is not finished, or a file of it is damaged.
    """
    return read_results(run).config.data.absolute()


def execute(run: Run, photos: Path | None = None) -> Any:
    """Return report_cells.py as an executed ``NotebookNode``.

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

    page = environment().get_template("notebook.html.j2")
    return page.render(title=title, sections=sections(without_warnings(notebook)))


def sections(notebook: Any) -> list[Section]:
    """Return what the cells of a notebook show, under its headings."""
    found: list[Section] = []
    here = Section("")
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            here.outputs.extend(cell.outputs)
            continue
        level, _, heading = cell.source.partition(" ")
        here = Section(heading)
        (found[-1].folds if level == "###" else found).append(here)
    return found


def cleaned(notebook: Any, run: Run) -> Any:
    """Remove from the notebook of a run what depends on the machine (``without_machine``)."""
    config = read_results(run).config
    paths = [config.data, config.exclude, config.weights, config.runs, run.folder.resolve()]
    return without_machine(notebook, [str(path) for path in paths if path])


def print_summary(run: Run) -> None:
    """Print the stages of a finished run, how it answered the test photos, and where it is."""
    metrics = run.read_metrics()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("stage", "trainable", "epochs", "seconds", "val. accuracy", "val. log-loss"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for stage in metrics.stages:
        table.add_row(
            stage.name,
            f"{stage.trainable_parameters:,}",
            str(stage.epochs),
            f"{stage.seconds:.0f}",
            f"{stage.validation.accuracy:.4f}",
            f"{stage.validation.log_loss:.4f}",
        )
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.print(table)
    said = map(for_terminal, [*verdict(metrics), *corrections_said(metrics)])
    console.print("\n" + "\n".join(said), markup=False)
    command = "python predict.py"
    if run.folder.parent != TrainConfig.runs:
        command += f" --bundle {shlex.quote(for_terminal(str(run.bundle)))}"
    console.print(
        f"Everything lies in {for_terminal(str(run.folder))} (photos read and trained in "
        f"{metrics.seconds['total']:.0f} s). Now: {command} PHOTO",
        markup=False,
    )


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
