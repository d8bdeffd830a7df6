"""The table that a run ends with, for people, on stdout."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table

from app.core.config import TrainConfig
from app.core.run_folder import Run
from app.core.sanitise import for_terminal


def print_summary(run: Run) -> None:
    """Print the stages, the test accuracy with its interval, and where everything lies."""
    metrics = run.read_metrics()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("stage", "trainable", "epochs", "seconds", "val. accuracy", "val. log-loss"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for stage in metrics.stages:
        table.add_row(
            stage.name,
            f"{stage.trainable_parameters:,}",
            str(stage.epochs),
            f"{stage.seconds:.0f}",
            f"{stage.validation.accuracy:.4f}",
            f"{stage.validation.log_loss:.4f}",
        )
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.print(table)
    test = metrics.test
    low, high = test.accuracy_interval_95
    console.print(
        f"\nTest accuracy {test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"log-loss {test.log_loss:.4f}, on {test.n} photos that had no part in training.",
        markup=False,
    )
    ask = "python predict.py"
    if run.folder.parent != TrainConfig.runs:
        ask += f" --bundle {shlex.quote(for_terminal(str(run.bundle)))}"
    console.print(
        f"Everything lies in {for_terminal(str(run.folder))} (photos read and trained in "
        f"{metrics.seconds['total']:.0f} s). Now: {ask} PHOTO",
        markup=False,
    )
