"""``python -m app review RUN``: the photos of a run to look at, in the order in which it pays."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.cli import Parser
from app.core.console import heeding_ctrl_c, quiet_native_stderr, say
from app.core.run_folder import Run, check_complete
from app.core.sanitise import for_json, for_terminal

if TYPE_CHECKING:
    from app.report.review_queue import ReviewItem

COUNT = 100  # photos without labels that are listed
SHOWN = 20  # photos in the table; the JSON has all


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, print the queue as a table or as JSON; return the exit code.

    Raises:
        AppError: when the run is not finished, or a file of it is damaged.
    """
    parser = Parser(
        description="List the photos of a finished run that a person should look at: those whose "
        "label may be wrong, mistakes, outliers, near-duplicates and files that were not used."
    )
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="the run's folder, runs/<name>; may be missing with --unlabelled",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, for every photo of the list"
    )
    parser.add_argument(
        "--unlabelled",
        type=Path,
        metavar="DIR",
        help="list photos of this folder instead, which have no labels: those first whose labels "
        "would teach the run's model most, without a run the most typical ones",
    )
    parser.add_argument(
        "--weights", metavar="PATH", help="with --unlabelled and without a run: as for train.py"
    )
    parser.add_argument(
        "--count",
        type=int,
        default=COUNT,
        metavar="N",
        help=f"with --unlabelled: how many (default: {COUNT})",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="say what the corrections so far would change on validation: the head is solved again "
        "on cached features, in seconds",
    )
    arguments = parser.parse_args(argv)
    run = None if arguments.run is None else Run(arguments.run)
    if arguments.unlabelled:
        _unlabelled(run, arguments)
        return 0
    if run is None:
        parser.error("the following arguments are required: RUN (or --unlabelled)")
    if arguments.preview:
        _preview(run, as_json=arguments.json)
        return 0
    from app.report.review_queue import read_review_queue

    queue = read_review_queue(run)
    if arguments.json:
        for item in queue:
            print(for_json(asdict(item)))
    else:
        _print(queue)
    return 0


def _preview(run: Run, *, as_json: bool) -> None:
    """Print what the run's ``corrections.csv`` would change."""
    from app.data.corrections import read_corrections
    from app.report.verdict import paired_said

    check_complete(run)
    corrections = read_corrections(run.corrections)
    say("Starting Keras")
    with heeding_ctrl_c(), quiet_native_stderr():
        from app.preview import preview_corrections  # brings Keras, which takes seconds to import

    found = preview_corrections(run, corrections)
    print(for_json(asdict(found)) if as_json else for_terminal(paired_said(found)))


def _unlabelled(run: Run | None, arguments: Namespace) -> None:
    """Print which photos of a folder to label first."""
    from app.inference.wording import percentage
    from app.report.unlabelled_queue import first_queue, unlabelled_queue

    folder, count = arguments.unlabelled, arguments.count
    if run is None:
        queue = first_queue(folder, count, arguments.weights)
    else:
        queue = unlabelled_queue(run, folder, count)
    for item in queue:
        if arguments.json:
            print(for_json(asdict(item)))
        elif item.probability is None:
            print(for_terminal(item.name))
        else:
            print(for_terminal(f"{item.name}: {item.likeliest} ({percentage(item.probability)})"))


def _print(queue: Sequence[ReviewItem]) -> None:
    """Print how many photos of each kind there are, and the first that wait for a decision."""
    from app.report.review_queue import KINDS

    counts = Counter(item.kinds[0] for item in queue)
    for kind, words in KINDS.items():
        print(f"{counts[kind]:>7,}  {words}")
    waiting = [item for item in queue if item.decision is None]
    print(f"{len(queue) - len(waiting):>7,}  of these are decided\n")
    for item in waiting[:SHOWN]:
        print(for_terminal(f"{item.name}: {'; '.join(item.reasons)}"))
    if len(waiting) > SHOWN:
        print(f"... and {len(waiting) - SHOWN:,} more; --json lists them all")
