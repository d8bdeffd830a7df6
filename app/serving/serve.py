"""Predict over HTTP, and on a page: ``python -m app serve``."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from app.core.cli import Parser
from app.core.errors import UsageError
from app.inference.arguments import add_bundle_arguments, bundle_folder

if TYPE_CHECKING:  # brings NumPy and ONNX Runtime, which --help does without
    from app.serving.service import Service

MB = 1_000_000
MOST_WORKERS = 64
Number = TypeVar("Number", int, float)
EPILOG = """\
examples:
  python -m app serve                         the newest run answers at http://127.0.0.1:8000/
  python -m app serve --run first --port 0    a run by its name, at any free port, which is printed
  curl -F photos=@a.jpg -F photos=@b.png http://127.0.0.1:8000/v1/predict
  curl -H 'Content-Type: image/jpeg' --data-binary @a.jpg http://127.0.0.1:8000/v1/predict
  curl -F photo=@a.jpg http://127.0.0.1:8000/v1/explain > heat.png

addresses: / is the page; /v1/predict, /v1/explain, /v1/model, /openapi.json; /healthz, /readyz,
/metrics

Of a photo at most 64 million pixels are read, of some formats 31 million. Nothing that is sent is
written to disk or logged.
Ctrl-C, SIGTERM or SIGHUP ends it when every accepted request has been answered, at the latest ten
seconds after --timeout; what was not is counted.

exit code: 0 every request was answered, 1 requests were cut off, 130 after a second Ctrl-C, which
does not wait, 2 wrong usage, no trained classifier, or a port that is taken
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, serve until a signal comes, return the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.max_files * arguments.workers > arguments.queue:
        raise UsageError(
            "expected a --queue as long as --max-files at least, for each of --workers; received "
            f"{arguments.queue}, {arguments.max_files} and {arguments.workers}; raise the first or "
            "lower another"
        )
    if arguments.workers > 1 and not hasattr(os, "fork"):  # signals end processes at once there
        raise UsageError(
            f"expected --workers 1 on this system; received {arguments.workers}; use Linux or macOS"
        )
    folder = bundle_folder(arguments)
    # Not for --help: they bring NumPy and ONNX Runtime.
    from app.core.console import say
    from app.serving.middleware import is_loopback
    from app.serving.server import GracefulServer, bind
    from app.serving.workers import serve_with_workers

    with bind(arguments.host, arguments.port) as listening:
        host, port = listening.getsockname()[:2]
        loopback = is_loopback(host)
        shown = f"[{host}]" if ":" in host else host
        start = partial(service_of, arguments, folder, loopback=loopback)

        def announce(computing: str) -> None:
            if not loopback:
                say(
                    f"Open to everyone who can reach port {port} of this machine, at {shown}: "
                    "there is no password, and nothing is encrypted. Leave --host out to serve "
                    "this machine only"
                )
            how = f" by {arguments.workers} workers" if arguments.workers > 1 else ""
            say(f"{folder} answers at http://{shown}:{port}/ in {computing}{how} (Ctrl-C ends it)")

        if arguments.workers > 1:
            end = serve_with_workers(start, arguments.workers, listening, announce)
        else:
            service = start()
            announce(service.batcher.classifier.computing)
            end = GracefulServer(service).serve_on(listening)
    say(str(end))
    return end.exit_code


def service_of(arguments: argparse.Namespace, folder: Path, *, loopback: bool) -> Service:
    """Return the service that the arguments describe, or one worker's.

    Args:
        arguments: as ``parser`` reads them.
        folder: of the bundle.
        loopback: whether only this machine can reach it.

    Raises:
        BundleError: when the bundle cannot answer.
    """
    from app.inference.predictor import Classifier
    from app.serving.service import Service
    from app.serving.uploads import Limits

    limits = Limits(
        body=round(arguments.max_body * MB),
        files=arguments.max_files,
        seconds=arguments.timeout,
        queue=arguments.queue,
        # One request must fit into a worker's part.
        held=round(max(arguments.max_held, arguments.max_body * arguments.workers) * MB),
        batch=arguments.batch,
        wait=arguments.wait / 1000,
        workers=arguments.workers,
    )
    # Each worker computes on its part of the cores; all threads of all would only wait.
    cores = max((os.cpu_count() or 1) // limits.workers, 1)
    classifier = Classifier(
        folder,
        arguments.min_confidence,
        arguments.precision,
        arguments.engine,
        math.inf,
        cores if limits.workers > 1 else None,
    )
    return Service(
        classifier, limits, names=arguments.name, loopback=loopback, prefix=arguments.prefix
    )


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = Parser(
        description="Predict over HTTP what photos show, with a page to drop them on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_bundle_arguments(result)
    result.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: %(default)s, which only this machine can reach; 0.0.0.0 opens it to the "
        "whole network, without a password",
    )
    result.add_argument(
        "--port",
        type=between(int, 0, 65_535),
        default=8000,
        help="default: %(default)s; 0 takes any that is free",
    )
    result.add_argument(
        "--name",
        action="append",
        type=host_name,
        default=[],
        metavar="HOST",
        help="a name that the service answers for, such as that of a proxy before it; with --host "
        "the default is this machine's own name",
    )
    result.add_argument(
        "--prefix",
        type=path_prefix,
        default="",
        metavar="PATH",
        help="the path, such as /cats, below which a proxy offers the service; needed only where "
        "the proxy does not remove it",
    )
    result.add_argument(
        "--workers",
        type=between(int, 1, MOST_WORKERS),
        default=1,
        metavar="N",
        help="processes that answer, each with its own network and its part of the limits; "
        "default: %(default)s, which uses all cores, too",
    )
    limits = result.add_argument_group("limits")
    megabytes, count = between(float, 0.001, 100_000), between(int, 1, 100_000)
    flags: list[tuple[str, Callable[[str], float], float, str, str]] = [
        ("--max-body", megabytes, 64, "MB", "of one request (413)"),
        ("--max-files", count, 32, "N", "photos of one request (413)"),
        ("--max-held", megabytes, 512, "MB", "of all requests together (429)"),
        ("--queue", count, 128, "N", "photos that wait or are processed (429, with Retry-After)"),
        ("--timeout", between(float, 0.01, 3600), 30, "S", "for a request (408 or 504)"),
        ("--batch", count, 8, "N", "photos that go through the network at once"),
        ("--wait", between(float, 0, 1000), 5, "MS", "of a batch for photos being decoded"),
    ]
    for flag, kind, default, unit, text in flags:
        limits.add_argument(
            flag, type=kind, default=default, metavar=unit, help=f"{text}; default: %(default)s"
        )
    return result


def host_name(text: str) -> str:
    """Read the name of a host for argparse: without a scheme, a port or a path."""
    from app.serving.middleware import hostname

    if not text or hostname(text) != text.lower():
        raise argparse.ArgumentTypeError(
            f"expected the name of a host, such as photos.example; received {text!r}"
        )
    return text


def path_prefix(text: str) -> str:
    """Read the path of ``--prefix`` for argparse, without a slash at its end."""
    path = text.rstrip("/")
    if not re.fullmatch(r"(/[\w.~-]+)*", path, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected a path such as /cats; received {text!r}")
    return path


def between(kind: Callable[[str], Number], least: float, most: float) -> Callable[[str], Number]:
    """Return a reader of numbers for argparse; NaN is none."""

    def read(text: str) -> Number:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least:g} to {most:g}; received {text}")
        return value

    read.__name__ = "number"  # argparse names it where ``kind`` fails
    return read
