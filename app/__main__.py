"""``python -m app COMMAND``: what there is to do beside training and predicting."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from app.core.cli import leave, run
from app.core.errors import UsageError

# Command → the module whose ``main(argv)`` runs it, imported only then; and what it does.
COMMANDS = {
    "fetch": ("app.data.sets.fetch", "download photos to train on, or draw a sample"),
    "serve": ("app.serving.serve", "predict over HTTP, with a page to drop photos on"),
    "report": ("app.report.report", "write the report of a finished run again"),
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
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"expected a command out of {', '.join(COMMANDS)}; received {name}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code


def usage() -> str:
    """Return the help text: a line for each command."""
    lines = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m app COMMAND ...",
            "",
            "What there is to do beside train.py and predict.py.",
            "",
            "commands:",
            *lines,
            "",
            "python -m app COMMAND --help describes one of them.",
        ]
    )


if __name__ == "__main__":
    leave(run(main))
