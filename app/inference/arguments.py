"""The arguments that say which classifier answers, the same for every command that asks one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from app.core.cli import tell
from app.core.config import Engine
from app.core.run_folder import finished_run, newest_complete_run


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names a bundle, and ``--min-confidence``, ``--precision`` and ``--engine``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle folder")
    where.add_argument("--run", metavar="NAME", help="a run's name (default: the newest complete)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--min-confidence",
        type=share,
        metavar="P",
        help="answer unsure below this probability, 0 to 1 (default: the run's, chosen so that at "
        "most 1 %% of the answers that name a class are wrong, or 0.8 where this cannot be shown)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "int8", "float32"),
        default="auto",
        help="int8 takes a third of the time, and was exported only if it answers nearly as "
        "float32 does; auto takes it where it was exported and the processor can (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=get_args(Engine),
        default="auto",
        help="what runs the model; auto takes the one that is measured to be faster here, and for "
        "few photos ONNX Runtime (default: %(default)s)",
    )


def share(text: str) -> float:
    """Read a probability for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1; received {text}")
    return value


def bundle_folder(arguments: argparse.Namespace) -> Path:
    """Return the bundle that the arguments name; where they name none, say which run answers.

    Raises:
        BundleError: when there is no finished run that could be meant.
    """
    if arguments.bundle is not None:
        return Path(arguments.bundle)
    if arguments.run is not None:
        return finished_run(arguments.runs, arguments.run).bundle
    run = newest_complete_run(arguments.runs)
    time = run.finished()
    date = time.strftime(" (%Y-%m-%d %H:%M UTC)") if time else ""
    tell(f"run {run.folder.name}{date} answers")
    return run.bundle
