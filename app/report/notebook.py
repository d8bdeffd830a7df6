"""Runs a notebook's script and keeps the result: ``python -m app notebook FILE.py``.

The script, in jupytext's percent format, is the source; the ``.ipynb`` beside it is made from it.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.errors import AppError, UsageError
from app.core.safe_output import output_file
from app.core.sanitise import for_terminal

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = "notebooks/1_transfer_learning.py"
CELL_TIMEOUT = 1800  # seconds; training took 600 on two slow cores that other programs used as well


def run_notebook(
    source: Path, variables: Mapping[str, str], *, where: str = "", mend: str = ""
) -> Any:
    """Return a script in percent format as an executed ``NotebookNode``.

    This Python runs it in the project's folder, whatever kernels and settings Jupyter has.

    Args:
        source: the script.
        variables: of the environment, besides those of this process.
        where: what the cells run on, for the message of a failure.
        mend: how to mend a failure, for its message.

    Raises:
        AppError: when a cell fails.
    """
    # Here, because Jupyter takes a second to import, and --help should not.
    import jupytext
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = jupytext.read(source)
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
        ours = {"IPYTHONDIR": folder, "MPLBACKEND": "agg"}  # no start-up files of the user's
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            # cleanup_kc: else a manager that was given is left running.
            environment = {**os.environ, **variables, **ours}
            client.execute(cleanup_kc=True, cwd=str(PROJECT), env=environment, **silent)
        except CellExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except (DeadKernelError, AssertionError):  # the latter is nbclient's, as it cleans up
            reason = "a process that was killed while it ran them, perhaps for its memory"
        except (CellTimeoutError, RuntimeError, OSError) as error:
            # RuntimeError: the kernel did not start; OSError: no loopback, no disk.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            return notebook
    raise AppError(f"expected the cells of {source.name} to run{where}; received {reason}{mend}")


def without_warnings(notebook: Any) -> Any:
    """Remove from a notebook what cells wrote to stderr: warnings name the machine's paths."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def without_machine(notebook: Any, paths: Sequence[str] = ()) -> Any:
    """Remove from a notebook what depends on the machine, and number its cells.

    Absolute ones among ``paths``, the project's and the home folder are shortened to their last
    part. Messages on stderr are removed.
    """
    absolute = {
        each for each in (*paths, str(PROJECT), str(Path.home())) if Path(each).is_absolute()
    }
    last = {}  # the text of a path in JSON, and in HTML in JSON → that of its last part
    for path in sorted(absolute, key=len, reverse=True):  # the longest first: one may begin another
        for escape in (str, html.escape):
            long, short = escape(path), escape(Path(path).name)
            last[json.dumps(long)[1:-1]] = json.dumps(short)[1:-1]
    any_path = re.compile("|".join(map(re.escape, last)))
    for index, cell in enumerate(without_warnings(notebook).cells):
        if cell.cell_type == "code":
            text = any_path.sub(lambda match: last[match[0]], json.dumps(cell.outputs))
            cell.outputs = json.loads(text)
        cell.id, cell.metadata = f"cell-{index:02}", {}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def save_notebook(notebook: Any, path: Path) -> Path:
    """Write a notebook to ``path``, whole or not at all; return the path."""
    import nbformat  # here, because --help should not wait for it

    node = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    text: str = nbformat.writes(node)  # type: ignore[no-untyped-call]
    with open_whole(path) as file:
        file.write(text.rstrip("\n") + "\n")
    return path


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, run the script, write the notebook; return the exit code."""
    parser = Parser(description="Run a notebook's script and write the notebook beside it.")
    parser.add_argument("source", type=Path, metavar="FILE.py", help=EXAMPLE)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (default: FILE.ipynb)"
    )
    arguments = parser.parse_args(argv)
    source: Path = arguments.source
    if source.suffix != ".py" or not source.is_file():
        raise UsageError(f"expected a notebook's script, such as {EXAMPLE}; received {source}")
    output = output_file(arguments.output or source.with_suffix(".ipynb"), ".ipynb")
    path = save_notebook(without_machine(run_notebook(source, {})), output)
    print(for_terminal(str(path)))
    return 0
