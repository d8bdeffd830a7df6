"""What are labels worth that a person gives in the order of ``app.evaluation.label_next``?

    python -m benchmarks.labelling --run runs/NAME --figure docs/labelling.svg

The training photos of a finished run play a folder without labels: a person labels 10 of them, then
10 more, and so on, in that order or at random. After each step the head is solved on what has a
label, as ``train.py`` solves it, and answers the validation photos. Features come from the run's
cache. Each draw leaves out a fifth of the photos, so that the order has something to differ in.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.core.cli import Parser, run
from app.core.config import read_config
from app.core.run_folder import Run
from app.data.folder_layout import data_folder
from app.data.manifest import Photos, photos_of, read_manifest, training_photos_before_corrections
from app.evaluation.label_next import FEW_LABELS, label_next
from app.evaluation.metrics import Floats
from app.evaluation.ood import Float32s
from app.report.figures import PALE, STYLE, WHOLE_PERCENT, WIDTH
from app.report.tokens import CLASS_COLOURS
from benchmarks.command import answer
from benchmarks.markdown import markdown_table

STEPS = (10, 20, 40, 60, 100, 200, 400)
KEPT = 0.8  # of the photos, in each draw
STRENGTH = 10.0  # scikit-learn's C, as a head of few photos has it
QUEUE = "as the queue"
ORDERS = ("random", "typical alone", "unsure and diverse alone", QUEUE)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Training photos without labels, and the validation photos that judge.

    Attributes:
        x: coordinates of training ``(n, rank)``.
        embeddings: of training ``(n, channels)``.
        targets: of training ``(n,)``; the person knows them.
        x_validation: coordinates of validation.
        validation: targets of validation.
    """

    x: Floats
    embeddings: Float32s
    targets: Ints
    x_validation: Floats
    validation: Ints

    def solve(self, labelled: Ints) -> LogisticRegression:
        """Return a head that learned from some of the photos."""
        from app.training.linear_probe import head_solver

        return head_solver(STRENGTH).fit(self.x[labelled], self.targets[labelled])

    def several(self, labelled: Ints) -> bool:
        """Say whether the labels are of more than one class."""
        return len(np.unique(self.targets[labelled])) > 1


def main(argv: Sequence[str]) -> int:
    """Solve the heads, print the table; return 0."""
    parser = Parser(prog="python -m benchmarks.labelling", description="The worth of labels.")
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="a finished run")
    parser.add_argument("--draws", type=int, default=8, metavar="N", help="of each order")
    parser.add_argument("--json", action="store_true", help="JSON on stdout, the table on stderr")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curve as an SVG")
    arguments = parser.parse_args(argv)
    pool = read_pool(Run(arguments.run))
    steps = [step for step in STEPS if step <= KEPT * len(pool.targets)]
    found = {
        order: np.array([curve(pool, order, steps, seed) for seed in range(arguments.draws)])
        for order in ORDERS
    }
    rows = [
        [order, *(f"{each.mean():.3f} ({each.min():.3f})" for each in accuracies.T)]
        for order, accuracies in found.items()
    ]
    table = markdown_table(["labels", *map(str, steps)], rows)
    values: dict[str, Any] = {"steps": steps}
    values |= {order: each.tolist() for order, each in found.items()}
    if arguments.figure is not None:
        draw(steps, found["random"], found[QUEUE], arguments.figure)
    answer(arguments, f"Validation accuracy, mean (worst) of {arguments.draws}:\n\n{table}", values)
    return 0


@mpl.rc_context({**STYLE, "svg.hashsalt": "labelling"})
def draw(steps: Sequence[int], random: Floats, queue: Floats, path: Path) -> None:
    """Draw accuracy over the number of labels, in the order of the queue and at random, as SVG.

    Args:
        steps: numbers of labels ``(steps,)``.
        random: accuracy ``(draws, steps)`` with labels at random.
        queue: the same in the order of the queue.
        path: of the file.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for accuracies, colour, style, label in (
        (queue, CLASS_COLOURS[1], "o-", "in the order of the queue"),
        (random, CLASS_COLOURS[0], "s--", "at random"),
    ):
        axes.plot(steps, accuracies.mean(axis=0), style, color=colour, label=label)
        lowest, highest = accuracies.min(axis=0), accuracies.max(axis=0)
        axes.fill_between(steps, lowest, highest, color=colour, alpha=PALE, linewidth=0)
    axes.set(xscale="log", xlabel="Labels", ylabel="Validation accuracy")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(WHOLE_PERCENT)
    axes.legend(loc="lower right", title=f"mean and range of {len(queue)} draws")
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def curve(pool: Pool, order: str, steps: Sequence[int], seed: int) -> list[float]:
    """Return the accuracy on validation after each step; guessing, while one class has labels."""
    random = np.random.default_rng(seed)
    count = len(pool.targets)
    some: Ints = np.sort(random.permutation(count)[: round(KEPT * count)])
    labelled = np.empty(0, np.int64)  # places among ``some``
    accuracies = []
    for step in steps:
        if order == "random":
            free = np.setdiff1d(np.arange(len(some)), labelled)
            new = random.permutation(free)[: step - len(labelled)]
        else:
            probabilities = _probabilities(pool, order, some, labelled)
            new = label_next(
                pool.embeddings[some], labelled, step - len(labelled), probabilities, seed=seed
            )
        labelled = np.concatenate([labelled, new])
        chosen = some[labelled]
        accuracies.append(
            float(pool.solve(chosen).score(pool.x_validation, pool.validation))
            if pool.several(chosen)
            else 1 / len(np.unique(pool.validation))
        )
    return accuracies


def _probabilities(pool: Pool, order: str, some: Ints, labelled: Ints) -> Floats | None:
    """Return what the head says of all photos, where the order asks for it."""
    if order == "typical alone" or not pool.several(some[labelled]):
        return None
    counts = np.bincount(pool.targets[some[labelled]], minlength=pool.validation.max() + 1)
    if order == QUEUE and counts.min() < FEW_LABELS:
        return None
    found: Floats = pool.solve(some[labelled]).predict_proba(pool.x[some])
    return found


def read_pool(finished: Run) -> Pool:
    """Return a run's photos in the space of its head, from its cache."""
    from app.experiment_setup import set_up
    from app.training.linear_probe import fit_linear_probe

    config, rows = read_config(finished.config, exact=False), read_manifest(finished.manifest)
    with data_folder(config.data) as root:
        train, validation = photos_of(rows, "train", root), photos_of(rows, "validation", root)
        photos: Photos = {"train": train, "validation": validation}
        classes = finished.read_metrics().classes
        scales = training_photos_before_corrections(rows, root)
        setup = set_up(config, len(classes), photos, [], scales)
        probe = fit_linear_probe(
            setup.model,
            config.stage_plan()[0],
            setup.source.labelled("train"),
            setup.source.labelled("validation"),
            [STRENGTH],
            cross_validate=False,
        )
    return Pool(
        probe.train.coordinates,
        probe.train.embeddings,
        np.array([photo.target for photo in train]),
        probe.validation.coordinates,
        np.array([photo.target for photo in validation]),
    )


if __name__ == "__main__":
    sys.exit(run(main))
