"""Does the review list find wrong labels? Some are turned at random, and a person follows the list.

    python -m benchmarks.review --data FOLDER --runs FOLDER -- --stages head --image-size 160

Three runs: with the labels as they are; with some labels of training and validation turned at
random; and with these corrected. Between the last two a simulated person goes through the list of
``app.report.review_queue`` from its top, one key a photo, and knows the truth: the label in
the first run. Validation of all runs is judged by the true labels.

Runs that are there already are not trained again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.core.atomic_files import write_rows
from app.core.cli import run
from app.core.errors import UsageError
from app.core.labels import NEITHER
from app.core.run_folder import Run
from app.data.corrections import CorrectionsLog
from app.data.manifest import ManifestRow
from app.evaluation.prediction_set import read_predictions
from app.report.review_queue import read_review_queue
from benchmarks.command import answer, parser_of, train_flags
from benchmarks.markdown import markdown_table, verdict
from benchmarks.measured import measure, train_command

CLEAN, TURNED, CORRECTED = "clean", "turned", "corrected"
FOUND_BAR, POINTS_BAR = 0.95, 0.002


@dataclass(frozen=True)
class Followed:
    """What a person did who followed the list.

    Attributes:
        keys: that were pressed, one a photo.
        found: how many turned labels were corrected after each of the keys.
    """

    keys: int
    found: list[int]


def main(argv: Sequence[str]) -> int:
    """Train, review, train again, and print the tables; return 0 when the bars are met."""
    parser = parser_of("review", "Correct labels that were turned at random.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="for the runs")
    parser.add_argument(
        "--turned", type=int, default=100, metavar="N", help="labels that are turned"
    )
    parser.add_argument(
        "--keys", type=int, default=200, metavar="N", help="that the person presses"
    )
    parser.add_argument(
        "--test", type=int, default=200, metavar="N", help="test photos; answering them takes time"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is turned")
    arguments = parser.parse_args(argv)
    flags, runs = train_flags(arguments), arguments.runs
    rows = _labelled(arguments.data, arguments.test)
    turned = turn(rows, arguments.turned, arguments.seed)
    runs.mkdir(parents=True, exist_ok=True)
    for name, labels in ((CLEAN, {}), (TURNED, turned)):
        table = _write_table(rows, labels, runs / f"{name}.csv")
        _train(arguments.data, runs, name, ["--labels", str(table), *flags])
    corrections = Run(runs / TURNED).corrections
    followed = follow(Run(runs / TURNED), rows, turned, arguments.keys, corrections)
    table = runs / f"{TURNED}.csv"
    again = ["--labels", str(table), "--corrections", str(corrections), *flags]
    _train(arguments.data, runs, CORRECTED, again)
    accuracy = {
        name: true_accuracy(Run(runs / name), {row.name: row.label for row in rows})
        for name in (CLEAN, TURNED, CORRECTED)
    }
    seconds = {name: Run(runs / name).read_metrics().seconds for name in accuracy}
    found = followed.found[-1]
    lost = accuracy[CLEAN]["validation"] - accuracy[CORRECTED]["validation"]
    met = found >= FOUND_BAR * len(turned) and lost <= POINTS_BAR + 1e-9
    table_of_runs = markdown_table(
        ["run", "validation, by the true labels", "test", "seconds"],
        [
            [
                name,
                f"{each['validation']:.4f}",
                f"{each['test']:.4f}",
                f"{seconds[name]['total']:.0f}",
            ]
            for name, each in accuracy.items()
        ],
    )
    steps = [n for n in (50, 100, 150, 200, 300, 400) if n <= followed.keys]
    table_of_keys = markdown_table(
        ["keys", *map(str, steps)],
        [[f"corrected, of {len(turned)}", *(str(followed.found[n - 1]) for n in steps)]],
    )
    text = f"{table_of_keys}\n\n{table_of_runs}\n\nBars {verdict(met)}."
    values = {"turned": len(turned), "found": followed.found, "keys": followed.keys}
    answer(arguments, text, {**values, "accuracy": accuracy, "seconds": seconds})
    return 0 if met else 1


def turn(rows: Sequence[ManifestRow], count: int, seed: int) -> dict[str, str]:
    """Give so many photos of training and validation, chosen at random, another class.

    Returns:
        Name → the wrong label.
    """
    random = np.random.default_rng(seed)
    learned = [row for row in rows if row.split != "test"]
    classes = sorted({row.label for row in rows})
    if count > len(learned):
        raise UsageError(f"expected at most {len(learned)} labels to turn; received {count}")
    chosen = [learned[n] for n in random.permutation(len(learned))[:count]]
    return {
        row.name: str(random.choice([name for name in classes if name != row.label]))
        for row in chosen
    }


def follow(
    turned_run: Run,
    rows: Sequence[ManifestRow],
    turned: Mapping[str, str],
    keys: int,
    corrections: Path,
) -> Followed:
    """Decide about the photos of a run's list, from its top, as a person who knows the truth."""
    truth = {row.name: row.label for row in rows}
    corrections.unlink(missing_ok=True)  # of an earlier simulation
    log = CorrectionsLog(corrections)
    found: list[int] = []
    count = 0
    queue = [item for item in read_review_queue(turned_run) if item.name in truth]
    for item in queue[:keys]:
        right = item.label == truth[item.name]
        log.decide(item.name, item.sha256, "right" if right else "class", truth[item.name])
        count += not right
        found.append(count)
    return Followed(len(found), found)


def true_accuracy(finished: Run, truth: Mapping[str, str]) -> dict[str, float]:
    """Return the share of photos whose likeliest class is the true one, by split."""
    classes = finished.read_metrics().classes
    numbers = {name: number for number, name in enumerate(classes)}
    shares = {}
    for split in ("validation", "test"):
        given = read_predictions(finished.predictions, split, classes)
        targets = np.array([numbers[truth[name]] for name in given.names])
        shares[split] = float((given.answers == targets).mean())
    return shares


def _labelled(data: Path, test: int) -> list[ManifestRow]:
    """Return the photos of the folder as a run divides them, of test evenly chosen ones."""
    from app.data.inventory import take_inventory

    every = [
        row
        for row in take_inventory(data, data=data, seed=0)
        if row.verdict == "used" and row.label != NEITHER
    ]
    asked = [row for row in every if row.split == "test"]
    places = np.unique(np.linspace(0, len(asked) - 1, min(test, len(asked))).astype(int))
    return [row for row in every if row.split != "test"] + [asked[place] for place in places]


def _write_table(rows: Sequence[ManifestRow], labels: Mapping[str, str], path: Path) -> Path:
    """Write a table of labels, those in ``labels`` changed."""
    cells = (
        {"name": row.name, "label": labels.get(row.name, row.label), "split": row.split}
        for row in rows
    )
    write_rows(cells, ["name", "label", "split"], path)
    return path


def _train(data: Path, runs: Path, name: str, flags: Sequence[str]) -> None:
    there = Run(runs / name)
    if there.config.is_file() and not there.is_complete():
        measure([sys.executable, "train.py", "--resume", str(there.folder.resolve())])
    elif not there.is_complete():
        measure(train_command(data, runs, name, [*flags, "--no-report"]))


if __name__ == "__main__":
    sys.exit(run(main))
