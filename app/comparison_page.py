"""``python -m app.report --compare A B``: runs side by side, as a page, as text and as JSON."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from app.comparison import Comparison, Difference, compare, differing, names_of, photos_in_common
from app.display import Number, Picture, Table, Verdict, Words, duration, number, percent, shown
from app.errors import UsageError
from app.plots import DARK, PERCENT, STYLE, WIDTH
from app.printable import printable
from app.results import Results, read_results
from app.runs import Run

LEVEL = 0.05  # of McNemar's test: above it no difference is called one
SHOWN = 40  # photos in a list; the JSON has all


SAME = "Nothing was done otherwise: settings, versions and device are the same."
METHOD = (
    "Photos are the same where their bytes are (SHA-256). McNemar's test in its exact form looks "
    "at the photos that only one of the two answers rightly: if both were equally good, each would "
    "be as likely to be that one. An accuracy has Wilson's interval; the difference of two on the "
    "same photos that of Bonett and Price (2012); the difference of two log-losses the percentile "
    "bootstrap over photos, each drawn with both answers. All intervals are of 95 % and speak of "
    "other photos of this kind, not of training anew with another seed."
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

    def pairs(self) -> list[tuple[str, str, Results, Comparison]]:
        """Return for each but the first run: both names, its results, the comparison."""
        first = self.names[0]
        others = zip(self.names[1:], self.results[1:], self.comparisons, strict=True)
        return [(first, name, results, found) for name, results, found in others]

    def place(self, output: Path | None) -> Path:
        """Return where the page goes: ``output``, else beside the first run.

        Raises:
            UsageError: when that is among the photos of a run, which are only read.
        """
        names = "-".join(folder.resolve().name for folder in self.folders)
        path = output or self.folders[0].resolve().parent / f"compare-{names}.html"
        for results in self.results:
            photos = Path(results.config["data"]).resolve()
            if photos in path.resolve().parents:
                raise UsageError(
                    f"expected a place outside the photos, which are only read; received {path}, "
                    f"which is in {photos}; name another one with --output"
                )
        return path

    def sentences(self) -> list[str]:
        """Return what McNemar's test says of each pair, in words."""
        return [verdict_of(first, other, found)[1] for first, other, _, found in self.pairs()]

    def text(self) -> str:
        """Return the short table for a terminal."""
        rows = [["run", "test accuracy", "95 % interval", "log-loss", "training photos", "time"]]
        rows += [
            [
                name,
                f"{test['accuracy']:.4f}",
                _interval(test["accuracy_interval_95"]),
                f"{test['log_loss']:.4f}",
                f"{metrics['photos']['train']:,}",
                duration(metrics["seconds"]["total"]),
            ]
            for name, metrics in zip(self.names, (r.metrics for r in self.results), strict=True)
            for test in [metrics["test"]]
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
                {"name": name, "folder": str(folder), "test": results.metrics["test"]}
                | {"stages": results.metrics["stages"], "seconds": results.metrics["seconds"]}
                for name, folder, results in zip(
                    self.names, self.folders, self.results, strict=True
                )
            ],
            "comparisons": [
                {"first": first, "second": second, **dataclasses.asdict(found)}
                for first, second, _, found in self.pairs()
            ],
            "differing": differing(self.results),
        }

    def body(self) -> str:
        """Return the page's content as HTML."""
        parts = [heading(1, f"{' and '.join(self.names)}, side by side")]
        for first, other, results, found in self.pairs():
            if len(self.names) > 2:
                parts.append(heading(2, f"{other} against {first}"))
            parts += pair_of(first, other, results, found, self.results[0])
        parts += [heading(2, "Each run on its own test photos"), shown_html(self._scores())]
        parts += [
            picture_html(
                Picture(
                    intervals(self.names, [r.metrics["test"] for r in self.results]),
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
                    number(test["n"]),
                    percent(test["accuracy"], 2),
                    Number(_percents(test["accuracy_interval_95"])),
                    number(test["log_loss"], 4),
                    number(test["ece"], 4),
                ]
                for name, test in zip(
                    self.names, (r.metrics["test"] for r in self.results), strict=True
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
                    stage["name"],
                    number(stage["epochs"]),
                    number(stage["kept_epoch"]),
                    Number(duration(stage["seconds"])),
                    percent(stage["validation"]["accuracy"], 2),
                    number(stage["validation"]["log_loss"], 4),
                ]
                for name, results in zip(self.names, self.results, strict=True)
                for stage in results.metrics["stages"]
            ],
        )

    def _seconds(self) -> Table:
        each = [results.metrics["seconds"] for results in self.results]
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
        UsageError: for fewer than two, and where two cannot be compared.
        BundleError: when one is unfinished or damaged.
    """
    if len(folders) < 2:
        raise UsageError(
            f"expected two runs or more to compare; received {len(folders)}; "
            "write --compare runs/A runs/B"
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


def verdict_of(first: str, other: str, found: Comparison) -> tuple[str, str]:
    """Return the outcome in a few words, and in a sentence with its numbers."""
    tested = found.mcnemar
    better = other if tested.second_only > tested.first_only else first
    clear = tested.p_value < LEVEL
    outcome = f"{better} is better" if clear else "No difference shown"
    meaning = (
        "so large a difference is rare by chance alone"
        if clear
        else "chance alone gives such a difference often enough"
    )
    return outcome, (
        f"Of {found.n:,} test photos in common, answered rightly by {first} only: "
        f"{tested.first_only}, by {other} only: {tested.second_only}, by neither: "
        f"{tested.both_wrong}. McNemar's test p = {tested.p_value:.3g}: {meaning}."
    )


def pair_of(
    first: str, other: str, results: Results, found: Comparison, first_results: Results
) -> list[str]:
    """Return the part of a page about two runs."""
    outcome, sentence = verdict_of(first, other, found)
    same = photos_in_common(first_results, results)
    photos = (
        f"{first} has {found.asked[0]:,} test photos, {other} {found.asked[1]:,}; {found.n:,} are "
        f"compared. {same:,} photos are among the training photos of both "
        f"({first_results.metrics['photos']['train']:,} and "
        f"{results.metrics['photos']['train']:,}). Differences are {other} less {first}."
    )
    if found.relabelled:
        photos += f" {found.relabelled:,} in common have another class in each and are left out."
    table = Table(
        ["", first, other, "difference", "95 % interval"],
        [
            [
                "accuracy",
                percent(found.first.accuracy, 2),
                percent(found.second.accuracy, 2),
                _points(found.accuracy),
                _points_interval(found.accuracy),
            ],
            [
                "log-loss",
                number(found.first.log_loss, 4),
                number(found.second.log_loss, 4),
                Number(f"{found.log_loss.value:+.4f}"),
                Number("{:+.4f} to {:+.4f}".format(*found.log_loss.interval_95)),
            ],
        ],
    )
    verdict = Verdict(outcome, f"McNemar's test, p = {found.mcnemar.p_value:.3g}", sentence)
    parts = [shown_html(verdict), shown_html(table), shown_html(Words(photos))]
    return [*parts, *_disagreements(first, other, found)]


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
def intervals(names: Sequence[str], tests: Sequence[dict[str, Any]]) -> Figure:
    """Draw each run's test accuracy with its 95 % interval, the first on top."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = list(range(len(names)))[::-1]
    values = [test["accuracy"] for test in tests]
    low, high = zip(*(test["accuracy_interval_95"] for test in tests), strict=True)
    around = [
        [value - end for value, end in zip(values, low, strict=True)],
        [end - value for value, end in zip(values, high, strict=True)],
    ]
    axes.errorbar(values, places, xerr=around, fmt="o", color=DARK, capsize=5)
    axes.set_yticks(places, [_short(name) for name in names])
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
    test = results.metrics["test"]
    return f"{name} {percent(test['accuracy'], 2)} ({_percents(test['accuracy_interval_95'])})"


def _interval(interval: Sequence[float]) -> str:
    return f"{interval[0]:.4f}–{interval[1]:.4f}"


def _percents(interval: Sequence[float]) -> str:
    return f"{percent(interval[0], 2)} to {percent(interval[1], 2)}"


def _points(difference: Difference) -> Number:
    return Number(f"{100 * difference.value:+.2f} points")


def _points_interval(difference: Difference) -> Number:
    low, high = difference.interval_95
    return Number(f"{100 * low:+.2f} to {100 * high:+.2f}")


def _short(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
