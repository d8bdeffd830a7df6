"""What the benchmarks have in common as commands: their arguments and how they answer."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from app.core.console import say


class BenchmarkParser(argparse.ArgumentParser):
    """Keeps what follows a lone ``--`` as ``train_flags``, also beside a list of folders."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the arguments before ``--``."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        namespace = argparse.Namespace() if namespace is None else namespace
        namespace.train_flags = given[end + 1 :]
        return super().parse_known_args(given[:end], namespace)


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark that starts ``train.py``: what each of them takes."""
    parser = BenchmarkParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog="What follows a lone -- goes to train.py: ... -- --image-size 128 --views 1",
    )
    parser.add_argument("--weights", metavar="PATH", help="as for train.py")
    parser.add_argument(
        "--json", action="store_true", help="JSON on stdout, the tables on stderr instead"
    )
    return parser


def train_flags(arguments: argparse.Namespace) -> list[str]:
    """Return what ``train.py`` is given of the arguments, fit for any working folder."""
    weights = arguments.weights
    return [*(["--weights", absolute(weights)] if weights else []), *arguments.train_flags]


def absolute(weights: str) -> str:
    """Make a file's path independent of the folder that a process is started in."""
    return weights if weights in ("none", "imagenet") else str(Path(weights).resolve())


def answer(arguments: argparse.Namespace, text: str, values: Any) -> None:
    """Print ``text``, or with ``--json`` the values, and the text on stderr."""
    if arguments.json:
        for line in text.splitlines():
            say(line)
        print(json.dumps(values, indent=2))
    else:
        print(text)
