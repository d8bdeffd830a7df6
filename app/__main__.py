"""``python -m app COMMAND``, and ``cats-vs-dogs COMMAND`` where the project is installed."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from app.core.cli import leave, run
from app.core.errors import UsageError

SCRIPT = "cats-vs-dogs"  # its name in pyproject.toml
# Command → the module whose ``main(argv)`` runs it, imported only then; and what it does.
COMMANDS = {
    "train": ("train", "train a classifier on a folder of photos"),
    "predict": ("predict", "say what photos show"),
    "score": ("app.scoring.score", "say what any number of photos show, as Parquet files"),
    "sort": ("app.scoring.sort", "sort scored files into folders of their answers"),
    "fetch": ("app.data.sets.fetch", "download photos to train on, or draw a sample"),
    "studio": ("app.studio.studio", "ask, teach, review and share on a page of this machine"),
    "serve": ("app.serving.serve", "predict over HTTP, with a page to drop photos on"),
    "share": ("app.share.share", "write a folder that answers in a browser, offline"),
    "report": ("app.report.report", "write the report of a finished run again"),
    "review": ("app.review", "list the photos of a run that a person should look at"),
    "compare": ("app.report.compare", "compare finished runs on the same photos"),
    "export": ("app.export.formats", "write a run's classifier in other formats"),
    "cache": ("app.features.cache_command", "show or clear the feature cache"),
    "card": ("app.report.model_card", "write the model card of a finished run again"),
    "notebook": ("app.report.notebook", "execute a notebook and keep its output"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command that ``argv`` begins with; return the exit code.

    Raises:
        UsageError: when there is no such command.
    """
    program = program_name()
    if not argv or argv[0] in ("-h", "--help"):
        print(usage(program))
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"expected a command out of {', '.join(COMMANDS)}; received {name}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    sys.argv[0] = f"{program} {name}"  # what argparse calls the command in its usage
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def program_name() -> str:
    """Return what the user typed before the command."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else "python -m app"


def usage(program: str) -> str:
    """Return the help text: a line for each command."""
    lines = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            "commands:",
            *lines,
            "",
            f"{program} COMMAND --help describes one of them.",
        ]
    )


def console() -> NoReturn:
    """Run the command line and end the process: what the installed ``cats-vs-dogs`` calls."""
    leave(run(main))


if __name__ == "__main__":
    console()
