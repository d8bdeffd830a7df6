"""Finished runs side by side, as a page, as text or as JSON: ``python -m app compare RUN RUN...``.

What a page needs is imported where it is used, so that ``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.errors import UsageError
from app.core.records import values_of
from app.core.run_folder import Run
from app.core.safe_output import output_file
from app.core.sanitise import for_json, for_terminal

if TYPE_CHECKING:
    from app.report.comparison import Compared

SHOWN = 40  # photos in a list of the page; the JSON has all
ANSWERS = ("right", "wrong", "neither", "unsure")


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the page and print its table, or JSON; return the exit code.

    Raises:
        AppError: when the runs cannot be compared.
    """
    parser = Parser(
        description="Compare finished runs on the same test photos, each with the first."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of two runs or more"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page to write (default: compare-A-B.html beside the runs)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    from app.report.comparison import read_compared

    folders: list[Path] = arguments.runs
    compared = read_compared(folders)
    photos = [each.config.data for each in compared.results]
    path = output_file(page_path(folders, arguments.output), ".html", photos)
    with open_whole(path) as file:
        file.write(page(compared))
    if arguments.json:
        print(for_json(values(compared, folders) | {"page": str(path)}, indent=2))
    else:
        print(f"{table(compared)}\n\n{for_terminal(str(path))}")
    return 0


def page_path(folders: Sequence[Path], output: Path | None) -> Path:
    """Return where the page is written: ``output``, else beside the first run.

    Raises:
        UsageError: when that is the report of one of the runs.
    """
    names = "-".join(folder.resolve().name for folder in folders)
    path = output or folders[0].resolve().parent / f"compare-{names}.html"
    if path.resolve() in [Run(folder).report.resolve() for folder in folders]:
        raise UsageError(
            f"expected a place for the page; received {path}, which is the report of a run; "
            "name another one with --output"
        )
    return path


def page(compared: Compared) -> str:
    """Return the whole page as HTML."""
    from app.report.figures import accuracies
    from app.report.html import Picture, environment
    from app.report.verdict import too_few

    runs, names = compared.results, compared.names
    phases = dict.fromkeys(phase for run in runs for phase in run.metrics.seconds)
    phases.pop("total", None)
    template = environment().get_template("comparison.html.j2")
    return template.render(
        names=names,
        comparisons=compared.comparisons,
        runs=runs,
        accuracies=partial(Picture, accuracies(names, [run.metrics.test for run in runs])),
        differing=compared.differing,
        phases=[*phases, "total"],
        shown=SHOWN,
        too_few=too_few,
    )


def table(compared: Compared) -> str:
    """Return the short table for a terminal, and what the tests say, in sentences."""
    from app.report.html import Parts, duration, interval
    from app.report.verdict import too_few

    rows = [["run", *ANSWERS, "of", "accuracy", "95 % interval", "log-loss", "trained on", "time"]]
    for run in compared.results:
        test, metrics = run.metrics.test, run.metrics
        numbers = [f"{count:,}" for count in (*vars(test.counts).values(), test.n)]
        scores = [f"{test.accuracy:.4f}", interval(test.accuracy_interval_95)]
        scores.append(f"{test.log_loss:.4f}")
        numbers += ["–"] * len(scores) if too_few(test) else scores
        numbers.append(f"{metrics.photos['train']:,}")
        rows.append([run.name, *numbers, duration(metrics.seconds["total"])])
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows]
    say = Parts("outcome.html.j2")
    several = len(compared.comparisons)
    lines += ["", *(say.sentence(each, several).text for each in compared.comparisons)]
    lines.append(say.differing(compared.names).text if compared.differing else say.the_same().text)
    lines += [f"{name}: {' | '.join(texts)}" for name, texts in compared.differing.items()]
    return "\n".join(map(for_terminal, lines))


def values(compared: Compared, folders: Sequence[Path]) -> dict[str, Any]:
    """Return all of it for JSON."""
    return {
        "runs": [
            {"name": run.name, "folder": str(folder), "test": values_of(run.metrics.test)}
            | {"stages": values_of(run.metrics.stages), "seconds": run.metrics.seconds}
            for run, folder in zip(compared.results, folders, strict=True)
        ],
        "comparisons": [dataclasses.asdict(each) for each in compared.comparisons],
        "differing": compared.differing,
    }
