"""``python -m app compare A B``: runs side by side, as a page, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import UsageError
from app.core.records import values_of
from app.core.run_folder import Run
from app.core.run_metrics import Metrics
from app.core.safe_output import output_file
from app.core.sanitise import for_terminal, shown
from app.evaluation.paired_tests import holm
from app.report.comparison import Comparison, compare, differing, names_of, photos_in_common
from app.report.figures import accuracies
from app.report.html import Parts, Picture, duration, environment, interval
from app.report.results import Results, read_results

LEVEL = 0.05  # of McNemar's test: above it no difference is called one
SHOWN = 40  # photos in a list; the JSON has all


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared.

    Attributes:
        first: name of the first run.
        other: name of the other one.
        found: the comparison.
        p_value: of McNemar's test, raised where there are several pairs.
        pairs: how many there are.
        trained: the number of training photos of each.
        trained_in_common: how many of them are in both.
    """

    first: str
    other: str
    found: Comparison
    p_value: float
    pairs: int
    trained: tuple[int, int]
    trained_in_common: int

    @property
    def better(self) -> str | None:
        """The name of the run that is better; None where no difference is shown."""
        if self.p_value >= LEVEL:
            return None
        tested = self.found.mcnemar
        return self.other if tested.second_only > tested.first_only else self.first


@dataclass(frozen=True)
class Compared:
    """Two runs or more, each compared with the first.

    Attributes:
        folders: of the runs.
        names: of the runs, no two of them alike.
        results: what they say.
        comparisons: of the first with each other one, in their order.
    """

    folders: tuple[Path, ...]
    names: tuple[str, ...]
    results: tuple[Results, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def metrics(self) -> list[tuple[str, Metrics]]:
        """Each run's name and figures."""
        return [(name, each.metrics) for name, each in zip(self.names, self.results, strict=True)]

    def pairs(self) -> list[Pair]:
        """Return the first run with each other one, in their order."""
        first = self.results[0]
        trained = [metrics.photos["train"] for _, metrics in self.metrics]
        p_values = holm([found.mcnemar.p_value for found in self.comparisons])
        return [
            Pair(
                self.names[0],
                self.names[k],
                found,
                p_value,
                len(p_values),
                (trained[0], trained[k]),
                photos_in_common(first, self.results[k]),
            )
            for k, (found, p_value) in enumerate(
                zip(self.comparisons, p_values, strict=True), start=1
            )
        ]

    def place(self, output: Path | None) -> Path:
        """Return where the page goes: ``output``, else beside the first run.

        Raises:
            UsageError: when that is a run's own file, or ``app.core.safe_output`` refuses it.
        """
        names = "-".join(folder.resolve().name for folder in self.folders)
        path = output or self.folders[0].resolve().parent / f"compare-{names}.html"
        if path.resolve() in [Run(folder).report.resolve() for folder in self.folders]:
            raise UsageError(
                f"expected a place for the page; received {path}, which is the report of a run; "
                "name another one with --output"
            )
        return output_file(path, ".html", [r.config.data for r in self.results])

    def page(self) -> str:
        """Return the whole page as HTML."""
        tests = [(name, metrics.test) for name, metrics in self.metrics]
        phases = dict.fromkeys(phase for _, metrics in self.metrics for phase in metrics.seconds)
        phases.pop("total", None)
        return (
            environment()
            .get_template("comparison.html.j2")
            .render(
                names=list(self.names),
                pairs=self.pairs(),
                runs=self.metrics,
                tests=tests,
                accuracies=Picture(accuracies(self.names, [test for _, test in tests]), ""),
                differing=differing(self.results),
                phases=[*phases, "total"],
                shown=SHOWN,
            )
        )

    def text(self) -> str:
        """Return the short table for a terminal."""
        rows = [["run", "test accuracy", "95 % interval", "log-loss", "training photos", "time"]]
        rows += [
            [
                name,
                f"{test.accuracy:.4f}",
                interval(test.accuracy_interval_95),
                f"{test.log_loss:.4f}",
                f"{metrics.photos['train']:,}",
                duration(metrics.seconds["total"]),
            ]
            for name, metrics in self.metrics
            for test in [metrics.test]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(pairs)])
            for pairs in (zip(row, widths, strict=True) for row in rows)
        ]
        say = Parts("outcome.html.j2")
        lines += ["", *(say.sentence(pair).text for pair in self.pairs())]
        other = [f"{name}: {' | '.join(texts)}" for name, texts in differing(self.results).items()]
        lines += [say.differing(self.names).text, *other] if other else [say.the_same().text]
        return "\n".join(map(for_terminal, lines))

    def values(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {
            "runs": [
                {"name": name, "folder": str(folder), "test": values_of(metrics.test)}
                | {"stages": values_of(metrics.stages), "seconds": metrics.seconds}
                for (name, metrics), folder in zip(self.metrics, self.folders, strict=True)
            ],
            "comparisons": [
                {"first": pair.first, "second": pair.other, "p_value_holm": pair.p_value}
                | dataclasses.asdict(pair.found)
                for pair in self.pairs()
            ],
            "differing": differing(self.results),
        }


def read_compared(folders: Sequence[Path]) -> Compared:
    """Read runs and compare each with the first.

    Raises:
        UsageError: for fewer than two, for one given twice, and where two cannot be compared.
        BundleError: when one is unfinished or damaged.
    """
    if len(folders) < 2:
        raise UsageError(
            f"expected two runs or more to compare; received {len(folders)}; "
            "write python -m app compare runs/A runs/B"
        )
    for place, times in Counter(folder.resolve() for folder in folders).items():
        if times > 1:
            raise UsageError(
                f"expected runs that are not the same; received {place} {times} times; give each "
                "one once"
            )
    results = [
        dataclasses.replace(read_results(Run(folder)), name=name)
        for folder, name in zip(folders, names_of(folders), strict=True)
    ]
    return Compared(
        folders=tuple(folders),
        names=tuple(shown(each.name) for each in results),
        results=tuple(results),
        comparisons=tuple(compare(results[0], other) for other in results[1:]),
    )
