"""The report of a run: ``python -m app.report RUN`` runs notebooks/report.py and writes a page.

The page is one file that needs nothing else: no network, no script, no font.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.atomic import open_whole
from app.cli import run as run_command
from app.errors import AppError, BundleError
from app.results import PHOTOS_VARIABLE, RUN_VARIABLE, check_complete
from app.runs import Run

PROJECT = Path(__file__).resolve().parent.parent
SOURCE = PROJECT / "notebooks" / "report.py"
STYLE = Path(__file__).with_suffix(".css")
CELL_TIMEOUT = 600  # seconds; a cell takes less than one, but a machine that trains may be busy

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
<main>
{body}
</main>
</body>
</html>
"""


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
        AppError: when the run is not finished, or the report's notebook fails on it.
    """
    import nbformat  # here, because --help should not wait for it

    node = nbformat.from_dict(cleaned(execute(run), run))  # type: ignore[no-untyped-call]
    text: str = nbformat.writes(node)  # type: ignore[no-untyped-call]
    with open_whole(path) as file:
        file.write(text.rstrip("\n") + "\n")
    return path


def photos_of(run: Run) -> Path:
    """Return where the photos lay that a run was trained on.

    Raises:
        AppError: when the run is not finished, or does not say it.
    """
    check_complete(run)
    try:
        data: str = json.loads(run.config.read_text(encoding="utf-8"))["data"]
        return Path(data).absolute()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"expected {run.config} to say where the photos are; received a damaged file "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error


def execute(run: Run, photos: Path | None = None) -> Any:
    """Return notebooks/report.py as an executed ``NotebookNode``.

    It is run by this Python, whatever kernels are installed, and reads no settings of Jupyter.

    Args:
        run: a finished one.
        photos: the folder or archive whose photos may be shown; without it drawings are.

    Raises:
        AppError: when the run is not finished, or a cell fails.
    """
    check_complete(run)
    # Imported here, because Jupyter takes a second that --help should not.
    import jupytext
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = jupytext.read(SOURCE)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Jupyter warns of its own affairs (asyncio policies, sockets closed late).
        warnings.simplefilter("ignore")
        # Without folders to look in, "python3" is the Python that runs this.
        kernel = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(Path(folder) / "kernel.json"),
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=CELL_TIMEOUT,
            startup_timeout=CELL_TIMEOUT,
            record_timing=False,
            extra_arguments=["--HistoryManager.enabled=False"],
        )
        environment = {
            **os.environ,
            RUN_VARIABLE: str(run.folder.resolve()),
            PHOTOS_VARIABLE: str(photos or ""),
            "IPYTHONDIR": folder,  # a user's start-up files have no part in a report
            "MPLBACKEND": "agg",
        }
        try:
            client.execute(
                cleanup_kc=True,  # else a manager that was given is left running
                cwd=str(PROJECT),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except CellExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except (CellTimeoutError, DeadKernelError, RuntimeError, OSError) as error:
            # RuntimeError: the kernel did not start; OSError: no loopback, no disk.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            return notebook
    raise AppError(
        f"expected the report's cells to run on {run.folder}; received {reason}; the run itself "
        f"is whole"
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
    return PAGE.format(
        title=html.escape(title),
        style=STYLE.read_text(encoding="utf-8"),
        body=with_contents(body),
    )


def with_contents(body: str) -> str:
    """Number the sections of a page and put links to them before the first one."""
    start, *sections = body.split("<h2>")
    links = "\n".join(
        f'<li><a href="#section-{number}">{section.partition("</h2>")[0]}</a></li>'
        for number, section in enumerate(sections, start=1)
    )
    contents = (
        '<nav aria-label="Contents"><details><summary>Contents</summary>\n'
        f"<ol>\n{links}\n</ol></details></nav>\n"
    )
    numbered = [f'<h2 id="section-{n}">{section}' for n, section in enumerate(sections, start=1)]
    return "".join([start, contents if sections else "", *numbered])


def cleaned(notebook: Any, run: Run) -> Any:
    """Take out of a notebook what depends on the machine, and number its cells.

    Absolute paths are shortened to their last part.
    """
    config = json.loads(run.config.read_text(encoding="utf-8"))
    paths = [value for value in config.values() if isinstance(value, str)]
    paths += [str(run.folder.resolve()), str(PROJECT), str(Path.home())]
    # The longest first: one may begin another.
    found = sorted({path for path in paths if Path(path).is_absolute()}, key=len, reverse=True)
    any_path = re.compile("|".join(re.escape(json.dumps(path)[1:-1]) for path in found))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        text = json.dumps(cell.outputs)
        cell.outputs = json.loads(any_path.sub(lambda match: Path(match[0]).name, text))
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index:02}", {}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the report; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.report", description="Write the report of a finished run."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/<name>")
    parser.add_argument(
        "--notebook",
        type=Path,
        metavar="FILE",
        help="write the executed notebook to this file, instead of report.html",
    )
    arguments = parser.parse_args(argv)
    run = Run(arguments.run)
    print(write_notebook(run, arguments.notebook) if arguments.notebook else write_report(run))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
