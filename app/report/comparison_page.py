"""``python -m app compare A B``: runs side by side, as a page, as text and as JSON."""

from __future__ import annotations

import dataclasses
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from app.core.errors import UsageError
from app.core.printable import printable
from app.core.records import values_of
from app.core.run_folder import Run
from app.core.run_metrics import SplitMetrics
from app.core.safe_output import output_file
from app.evaluation.paired_tests import holm
from app.report.comparison import (
    Comparison,
    Difference,
    compare,
    differing,
    names_of,
    photos_in_common,
)
from app.report.figures import DARK, PERCENT, STYLE, WIDTH, short_names
from app.report.html import (
    Number,
    Picture,
    Table,
    Verdict,
    Words,
    duration,
    interval,
    number,
    percent,
    shown,
)
from app.report.results import Results, read_results

LEVEL = 0.05  # of McNemar's test: above it no difference is called one
LONGEST_NAME = 24  # letters of a run's name beside its interval
SHOWN = 40  # photos in a list; the JSON has all


SAME = "Nothing was done otherwise: settings, versions and device are the same."
METHOD = (
    "Photos are the same where their bytes are (SHA-256). McNemar's test in its exact form looks "
    "at the photos that only one of the two answers rightly: if both were equally good, each would "
    "be as likely to be that one. An accuracy has Wilson's interval; the difference of two on the "
    "same photos that of Bonett and Price (2012); the difference of two log-losses the percentile "
    "bootstrap over photos, each drawn with both answers. All intervals are of 95 % and speak of "
    "other photos of this kind, not of training anew with another seed. The test is exact and the "
    "intervals are not, so at the edge one may call a difference clear and the other not. Where "
    "several runs are compared with the first, p-values are raised by Holm's correction (1979): "
    "of many differences some would be rare by chance."
)


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared.

    Attributes:
        first: name of the first run.
        first_results: what it says.
        other: name of the other one.
        results: what that one says.
        found: the comparison.
        p_value: of McNemar's test, raised where there are several pairs.
        pairs: how many there are.
    """

    first: str
    first_results: Results
    other: str
    results: Results
    found: Comparison
    p_value: float
    pairs: int

    @property
    def told_p_value(self) -> str:
        """The p-value in words."""
        raised = f" ({self.p_value:.3g} as one of {self.pairs})" if self.pairs > 1 else ""
        return f"p = {self.found.mcnemar.p_value:.3g}{raised}"

    def verdict(self) -> tuple[str, str]:
        """Return the outcome in a few words, and in a sentence with its numbers."""
        tested = self.found.mcnemar
        better = self.other if tested.second_only > tested.first_only else self.first
        if self.p_value < LEVEL:
            outcome, meaning = (
                f"{better} is better",
                "so large a difference is rare by chance alone",
            )
        elif tested.first_only == tested.second_only:
            outcome, meaning = "No difference shown", "both are right equally often"
        else:
            outcome = "No difference shown"
            meaning = "chance alone gives such a difference often enough"
        return outcome, (
            f"Of {self.found.n:,} test photos in common, answered rightly by {self.first} only: "
            f"{tested.first_only}, by {self.other} only: {tested.second_only}, by neither: "
            f"{tested.both_wrong}. McNemar's test {self.told_p_value}: {meaning}."
        )

    def body(self) -> list[str]:
        """Return the part of a page about the two runs."""
        outcome, sentence = self.verdict()
        verdict = Verdict(outcome, f"McNemar's test, {self.told_p_value}", sentence)
        parts = [shown_html(part) for part in (verdict, self._table(), Words(self._photos()))]
        return [*parts, *_disagreements(self.first, self.other, self.found)]

    def _photos(self) -> str:
        found, first, other = self.found, self.first, self.other
        both = photos_in_common(self.first_results, self.results)
        trained = [r.metrics.photos["train"] for r in (self.first_results, self.results)]
        text = (
            f"{first} has {found.asked[0]:,} test photos, {other} {found.asked[1]:,}; {found.n:,} "
            f"are compared. {both:,} photos are among the training photos of both "
            f"({trained[0]:,} and {trained[1]:,}). Differences are {other} less {first}."
        )
        if found.relabelled:
            text += f" {found.relabelled:,} in common have another class in each and are left out."
        return text

    def _table(self) -> Table:
        """Put the differences first: on a phone the last columns are out of sight."""
        found = self.found
        return Table(
            ["", "difference", "95 % interval", self.first, self.other],
            [
                [
                    "accuracy",
                    _points(found.accuracy),
                    _points_interval(found.accuracy),
                    percent(found.first.accuracy, 2),
                    percent(found.second.accuracy, 2),
                ],
                [
                    "log-loss",
                    Number(f"{found.log_loss.value:+.4f}"),
                    Number("{:+.4f} to {:+.4f}".format(*found.log_loss.interval_95)),
                    number(found.first.log_loss, 4),
                    number(found.second.log_loss, 4),
                ],
            ],
        )


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
    def title(self) -> str:
        """What the page is called."""
        return f"Comparison: {', '.join(self.names)}"

    def pairs(self) -> list[Pair]:
        """Return the first run with each other one, in their order."""
        p_values = holm([found.mcnemar.p_value for found in self.comparisons])
        others = zip(self.names[1:], self.results[1:], self.comparisons, p_values, strict=True)
        return [Pair(self.names[0], self.results[0], *other, len(p_values)) for other in others]

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

    def sentences(self) -> list[str]:
        """Return what McNemar's test says of each pair, in words."""
        return [pair.verdict()[1] for pair in self.pairs()]

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
            for name, metrics in zip(self.names, (r.metrics for r in self.results), strict=True)
            for test in [metrics.test]
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join([c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(pairs)])
            for pairs in (zip(row, widths, strict=True) for row in rows)
        ]
        other = [f"{name}: {' | '.join(told)}" for name, told in differing(self.results).items()]
        parts = [*lines, "", *self.sentences()]
        parts += [f"Otherwise done ({' | '.join(self.names)}):", *other] if other else [SAME]
        return "\n".join(map(printable, parts))

    def values(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {
            "runs": [
                {"name": name, "folder": str(folder), "test": values_of(results.metrics.test)}
                | {
                    "stages": values_of(results.metrics.stages),
                    "seconds": results.metrics.seconds,
                }
                for name, folder, results in zip(
                    self.names, self.folders, self.results, strict=True
                )
            ],
            "comparisons": [
                {"first": pair.first, "second": pair.other, "p_value_holm": pair.p_value}
                | dataclasses.asdict(pair.found)
                for pair in self.pairs()
            ],
            "differing": differing(self.results),
        }

    def body(self) -> str:
        """Return the page's content as HTML."""
        parts = [heading(1, f"{' and '.join(self.names)}, side by side")]
        for pair in self.pairs():
            if pair.pairs > 1:
                parts.append(heading(2, f"{pair.other} against {pair.first}"))
            parts += pair.body()
        parts += [heading(2, "Each run on its own test photos"), shown_html(self._scores())]
        parts += [
            picture_html(
                Picture(
                    intervals(self.names, [r.metrics.test for r in self.results]),
                    "Test accuracy of each run with its 95 % interval: "
                    + "; ".join(map(_told_score, self.names, self.results)),
                )
            ),
            heading(2, "What was done otherwise"),
            shown_html(self._differing()),
            heading(2, "Stages and time"),
            shown_html(self._stages()),
            shown_html(self._seconds()),
            heading(2, "How this is computed"),
            shown_html(Words(METHOD)),
        ]
        return "\n".join(parts)

    def _scores(self) -> Table:
        header = ["run", "photos", "accuracy", "95 % interval", "log-loss", "calibration error"]
        return Table(
            header,
            [
                [
                    name,
                    number(test.n),
                    percent(test.accuracy, 2),
                    Number(_percents(test.accuracy_interval_95)),
                    number(test.log_loss, 4),
                    number(test.ece, 4),
                ]
                for name, test in zip(
                    self.names, (r.metrics.test for r in self.results), strict=True
                )
            ],
        )

    def _differing(self) -> Table | Words:
        rows = [[name, *told] for name, told in differing(self.results).items()]
        return Table(["", *self.names], rows) if rows else Words(SAME)

    def _stages(self) -> Table:
        header = ["run", "stage", "epochs", "kept", "time", "val. accuracy", "val. log-loss"]
        return Table(
            header,
            [
                [
                    name,
                    stage.name,
                    number(stage.epochs),
                    number(stage.kept_epoch),
                    Number(duration(stage.seconds)),
                    percent(stage.validation.accuracy, 2),
                    number(stage.validation.log_loss, 4),
                ]
                for name, results in zip(self.names, self.results, strict=True)
                for stage in results.metrics.stages
            ],
        )

    def _seconds(self) -> Table:
        each = [results.metrics.seconds for results in self.results]
        phases = dict.fromkeys(phase for seconds in each for phase in seconds if phase != "total")
        return Table(
            ["phase", *self.names],
            [
                [phase, *(Number(duration(s[phase]) if phase in s else "–") for s in each)]
                for phase in (*phases, "total")
            ],
        )


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


def _disagreements(first: str, other: str, found: Comparison) -> list[str]:
    photos = found.disagreements
    if not photos:
        return [shown_html(Words("Both are right, or wrong, about the same photos."))]
    table = Table(
        ["photo", "truth", first, other],
        [[photo.name, photo.truth, photo.first, photo.second] for photo in photos[:SHOWN]],
    )
    more = [Words(f"... and {len(photos) - SHOWN:,} more.")] if len(photos) > SHOWN else []
    lead = Words("Photos that one answers rightly and the other does not:")
    return [shown_html(lead), shown_html(table), *map(shown_html, more)]


@mpl.rc_context(STYLE)
def intervals(names: Sequence[str], tests: Sequence[SplitMetrics]) -> Figure:
    """Draw each run's test accuracy with its 95 % interval, the first on top."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = list(range(len(names)))[::-1]
    values = [test.accuracy for test in tests]
    low, high = zip(*(test.accuracy_interval_95 for test in tests), strict=True)
    around = [
        [value - end for value, end in zip(values, low, strict=True)],
        [end - value for value, end in zip(values, high, strict=True)],
    ]
    axes.errorbar(values, places, xerr=around, fmt="o", color=DARK, capsize=5)
    axes.set_yticks(places, short_names(names, LONGEST_NAME))
    axes.set(ylim=(-0.6, len(names) - 0.4), xlabel="Test accuracy, 95 % interval")
    axes.xaxis.set_major_formatter(PERCENT)
    axes.locator_params(axis="x", nbins=5)
    return figure


def heading(level: int, text: str) -> str:
    """Return a heading as HTML."""
    return f"<h{level}>{html.escape(shown(text))}</h{level}>"


def shown_html(part: Table | Verdict | Words) -> str:
    """Return what a notebook would show of a part."""
    return part._repr_html_()


def picture_html(picture: Picture) -> str:
    """Return a figure as HTML, its pixels in it."""
    data, about = picture._repr_mimebundle_()
    alt, width = html.escape(picture.alt), about["image/png"]["width"]
    return f'<img src="data:image/png;base64,{data["image/png"]}" alt="{alt}" width="{width}">'


def _told_score(name: str, results: Results) -> str:
    test = results.metrics.test
    return f"{name} {percent(test.accuracy, 2)} ({_percents(test.accuracy_interval_95)})"


def _percents(ends: Sequence[float]) -> str:
    return f"{percent(ends[0], 2)} to {percent(ends[1], 2)}"


def _points(difference: Difference) -> Number:
    return Number(f"{100 * difference.value:+.2f} points")


def _points_interval(difference: Difference) -> Number:
    low, high = difference.interval_95
    return Number(f"{100 * low:+.2f} to {100 * high:+.2f}")
