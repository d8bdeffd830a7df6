"""Ask, teach, review and share on a page of this machine: ``python -m app studio``."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from app.core.cli import Parser, tell
from app.core.config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from app.core.errors import BundleError

EPILOG = """\
examples:
  python -m app studio                        prints the address of the page
  python -m app studio --runs runs --run first --open

Only this machine can open the page, and only with the secret that stands in the address: it is new
each time. python -m app serve is the service for others and for programs.
Photos that are asked about are not kept. What is taught stays in memory until it is saved: then it
is a folder of photos below --data, and a run below --runs, which every other command knows.

exit code: 0 it was ended with Ctrl-C, 2 wrong usage, or a port that is taken
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, show the page until a signal comes, return the exit code."""
    arguments = parser().parse_args(argv)
    # Not for --help: they bring NumPy and ONNX Runtime.
    from app.core.console import say
    from app.core.run_folder import finished_run, newest_complete_run
    from app.serving.server import GracefulServer, bind
    from app.studio.application import Studio

    studio = Studio(arguments.runs, arguments.data, arguments.image_size, arguments.weights)
    try:
        if arguments.run is not None:
            run = finished_run(arguments.runs, arguments.run)
        else:
            run = newest_complete_run(arguments.runs)
        studio.open_run(run)
        say(f"run {run.folder.name} answers")
    except BundleError as error:
        if arguments.run is not None:
            raise
        say(f"no run answers yet: {error}")
    with bind("127.0.0.1", arguments.port) as listening:
        address = studio.entry.link(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        say(f"the page answers at {address} (Ctrl-C ends it)")
        if arguments.open and not webbrowser.open(address):
            tell("no browser was found; open the address yourself")
        end = GracefulServer(studio).serve_on(listening)
    say(str(end))
    return end.exit_code


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = Parser(
        description="Ask, teach, review and share on a page that only this machine can open.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "--data",
        type=Path,
        default=Path("taught"),
        metavar="DIR",
        help="the folder below which Teach saves folders of photos; default: %(default)s",
    )
    result.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s"
    )
    result.add_argument(
        "--run", metavar="NAME", help="the run that answers at first (default: the newest complete)"
    )
    result.add_argument(
        "--port",
        type=port,
        default=8100,
        help="default: %(default)s; 0 takes any that is free, which is printed",
    )
    result.add_argument(
        "--image-size",
        type=image_size,
        default=160,
        metavar="PIXELS",
        help="height and width that Teach brings photos to: more pixels show more and take longer; "
        "default: %(default)s",
    )
    result.add_argument(
        "--weights",
        metavar="FILE",
        help="for Teach, as train.py has it: a Keras .h5 file of VGG16 without top, or 'none' for "
        "random weights (default: found or downloaded)",
    )
    result.add_argument(
        "--open",
        action="store_true",
        help="open the page in the browser, on whose command line other users of this machine can "
        "read the address",
    )
    return result


def port(text: str) -> int:
    """Read a port for argparse."""
    return _whole_number(text, 0, 65_535)


def image_size(text: str) -> int:
    """Read a number of pixels for argparse."""
    return _whole_number(text, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)


def _whole_number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"expected {least} to {most}; received {text}")
    return int(text)
