"""``python -m app review RUN``: the photos of a run to look at, in the order in which it pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from app.core.cli import Parser
from app.core.run_folder import Run
from app.core.sanitise import for_json, for_terminal

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
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/<name>")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, for every photo of the list"
    )
    arguments = parser.parse_args(argv)
    from app.report.review_queue import KINDS, read_review_queue

    run = Run(arguments.run)
    queue = read_review_queue(run)
    if arguments.json:
        for item in queue:
            print(for_json(asdict(item)))
        return 0
    counts = Counter(item.kinds[0] for item in queue)
    for kind, words in KINDS.items():
        print(f"{counts[kind]:>7,}  {words}")
    waiting = [item for item in queue if item.decision is None]
    print(f"{len(queue) - len(waiting):>7,}  of these are decided\n")
    for item in waiting[:SHOWN]:
        print(for_terminal(f"{item.name}: {'; '.join(item.reasons)}"))
    if len(waiting) > SHOWN:
        print(f"... and {len(waiting) - SHOWN:,} more; --json lists them all")
    return 0
