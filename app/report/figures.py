"""One function a figure: plain data in, a ``Figure`` out; nothing is read, shown or written.

Colours are those of ``tokens.css``, which the colour-blind can tell apart; whatever differs in
colour differs in brightness, marker or dash too, so that a grey print is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from rich.filesize import decimal
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from app.core.run_metrics import HistoryRow, SplitMetrics
from app.evaluation.metrics import ECE_BINS, Floats, Ints, reliability_bins, wilson_interval
from app.report.html import duration, percent
from app.report.tokens import CLASS_COLOURS, COLOURS, class_colour

TEXT, GREY, LINE, PAGE = (COLOURS[name] for name in ("text", "soft", "line", "page"))
DARK, WRONG = COLOURS["link"], COLOURS["wrong"]
PALE = 0.18  # how much of a colour an area has
MOST_RED = 0.6  # opacity of a cell whose photos are all wrong; its words are still dark on it
DARK_FROM = 0.7  # the share from which a cell is so strong that its words are light
WIDTH = 5.6  # inches: at 11 points the words are still legible on a phone 360 pixels wide
CURVES_SHOWN = 6  # more are not told apart by eye
ZOOM, ZOOM_FROM = 0.1, 0.97  # the corner of a square that is enlarged; from which area on
FULL_CELLS = 8  # classes up to which a cell has room for a share as well
MOST_CELLS = 25  # classes; the numbers of more are not legible in a square
PAIRS_SHOWN = 20
LONGEST_NAME, LONGEST_RUN = 18, 24  # letters of a class beside a bar, of a run beside its interval
# Names outside its alphabets are drawn by the first of these that the machine has.
# fmt: off
FALLBACKS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS",
)
# fmt: on
INSTALLED = set(font_manager.get_font_names())
POINTS = 200  # of a curve whose every point has an interval
BAR_WIDTH = 0.05  # of novelty
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
PERCENT = PercentFormatter(1, symbol=" %")
WHOLE_PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
HOLLOW: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5}


STYLE: dict[Any, Any] = {
    # DejaVu Sans comes with matplotlib, so figures are the same everywhere. Matplotlib warns of
    # fonts that are not installed.
    "font.family": ["DejaVu Sans", *(name for name in FALLBACKS if name in INSTALLED)],
    "font.size": 11,
    "axes.titlesize": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), PAGE),
    "text.parse_math": False,  # a class may be called $\\frac$
}


@mpl.rc_context(STYLE)
def learning_curves(history: Sequence[HistoryRow]) -> Figure:
    """Draw log-loss (above) and validation accuracy (below) over the epochs of fine-tuning.

    Lines are broken between stages, because a stage starts from the best epoch of the one before.
    The solved head has no epochs (``strengths``).
    """
    figure, (above, below) = _axes(5.4, nrows=2, sharex=True)
    firsts = [i for i, row in enumerate(history) if i == 0 or row.stage != history[i - 1].stage]
    raised, stages = False, zip([0, *firsts], firsts, [*firsts[1:], len(history)], strict=False)
    for before, first, end in stages:
        epochs, rows = range(first + 1, end + 1), history[first:end]
        training, validation = [r.loss for r in rows], [r.validation_loss for r in rows]
        # Hollow and large, so that it is seen where the other lies on it.
        above.plot(epochs, training, "s--", color=GREY, label="training", **HOLLOW)
        above.plot(epochs, validation, "o-", color=DARK, label="validation")
        accuracies = [row.validation_accuracy for row in rows]
        below.plot(epochs, accuracies, "o-", color=DARK, label="validation")
        for axes in (above, below) if first else ():
            axes.axvline(first + 0.5, color=GREY, linestyle=":", linewidth=1)
        # A name that would run into the one before is put a line higher.
        raised = 0 < first < before + 0.16 * len(history) and not raised
        place, offset = (first + 0.5, 1.0), (3, 20 if raised else 5)
        _note(above, rows[0].stage, place, ("data", "axes fraction"), offset, color=GREY)
    highest = max(max(row.loss, row.validation_loss) for row in history)
    above.set(ylabel="Log-loss", ylim=(0, 1.08 * highest))
    below.set(xlabel="Epoch", ylabel="Validation accuracy", xlim=(0.5, len(history) + 0.5))
    below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    below.yaxis.set_major_formatter(PERCENT)
    below.set_ylim(top=min(below.get_ylim()[1], 1.005))  # no accuracy is above 100 %
    last = history[-1]
    losses = {"training": last.loss, "validation": last.validation_loss}
    (lower, low), (upper, high) = sorted(losses.items(), key=itemgetter(1))
    lack = max(0.09 * 1.08 * highest - (high - low), 0) / 2  # of room between the two names
    accuracy = last.validation_accuracy
    ends = [(above, lower, low - lack), (above, upper, high + lack)]
    for axes, text, height in [*ends, (below, percent(accuracy), accuracy)]:
        _note(axes, text, (1.0, height), ("axes fraction", "data"), (5, 0), va="center")
    return figure


@mpl.rc_context(STYLE)
def strengths(trials: Sequence[HistoryRow], kept: int) -> Figure:
    """Draw the log-loss of a solved head at each strength of regularisation, from strong to weak.

    Args:
        trials: a row a strength; each is a solution of its own, none goes on from another.
        kept: the number of the one that was kept, from 1; it is marked.
    """
    figure, axes = _axes(3.6)
    places = range(1, len(trials) + 1)
    style = {"label": "training", **HOLLOW}
    axes.plot(places, [row.loss for row in trials], "s--", color=GREY, **style)
    losses = [row.validation_loss for row in trials]
    axes.plot(places, losses, "o-", color=DARK, label="validation")
    if kept:
        axes.plot(kept, losses[kept - 1], "D", color=TEXT, markersize=9, label="kept")
    axes.set(xlabel="Regularisation, from strong to weak", ylabel="Log-loss")
    axes.set_ylim(bottom=0)
    axes.set_xticks(places)
    _legend_below(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw ``matrix[i][j]``, photos of class i answered with class j; shade is the row's share.

    What is right, on the diagonal, is blue; what is wrong is red, by the square root of its share,
    since few mistakes are to be seen as well.

    Of more than ``MOST_CELLS`` classes the pairs are drawn that are confused most often.
    """
    counts = np.asarray(matrix)
    if len(classes) > MOST_CELLS:
        return _confused_pairs(counts, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.9 * len(classes), 9.0)
    figure, axes = _axes(side, max(side, WIDTH))
    edges = np.arange(len(classes) + 1) - 0.5
    right = np.eye(len(classes), dtype=bool)
    for colour, drawn, hidden, most in (
        (DARK, shares, ~right, 1.0),
        (WRONG, np.sqrt(shares), right, MOST_RED),
    ):
        ends = [to_rgba(colour, 0), to_rgba(colour, most)]
        shades = LinearSegmentedColormap.from_list("", ends)
        axes.pcolormesh(edges, edges, np.ma.array(drawn, mask=hidden), cmap=shades, vmin=0, vmax=1)
    axes.invert_yaxis()
    size = 13 if len(classes) <= 4 else 9
    for (i, j), count in np.ndenumerate(counts):
        text = f"{count:,}\n{percent(shares[i, j])}"
        if len(classes) > FULL_CELLS:  # no room, and what is confused should stand out
            text = f"{count:,}" if count else ""
        colour = PAGE if i == j and shares[i, j] > DARK_FROM else TEXT
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)
    ticks = range(len(classes))
    names = short_names(classes)
    turned = 90 if max(map(len, names)) * len(names) > 40 else 0
    axes.set_xticks(ticks, names, rotation=turned)
    axes.set_yticks(ticks, names)
    axes.set(xlabel="Prediction", ylabel="Truth")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def reliability(targets: Ints, probabilities: Floats) -> Figure:
    """Draw how often answers of a confidence are right (above) and how many there are (below).

    Bars through the points are Wilson's 95 % intervals: with few photos they are long.
    """
    bins = reliability_bins(targets, probabilities)
    figure, (above, below) = _axes(5.6, nrows=2, sharex=True, height_ratios=(3, 1.3))
    accuracy = np.array([b.accuracy for b in bins])
    intervals = np.array([wilson_interval(b.right, b.count) for b in bins])
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
    points = [b.confidence for b in bins], accuracy, _around(accuracy, intervals)
    style: dict[str, Any] = {"color": DARK, "elinewidth": 1.2, "clip_on": False}
    above.errorbar(*points, fmt="o", label="answers, 95 % interval", **style)
    # Nobody answers with less confidence than an even share of all classes.
    left = int(ECE_BINS / probabilities.shape[1]) / ECE_BINS
    above.set(xlim=(left, 1), ylim=(0, 1.02), ylabel="Share of right answers")
    lows, counts = [b.low for b in bins], [b.count for b in bins]
    style = {"align": "edge", "color": DARK, "edgecolor": PAGE}
    bars = below.bar(lows, counts, width=1 / ECE_BINS, **style)
    below.bar_label(bars, fmt="{:,.0f}", fontsize=9)
    below.margins(y=0.25)
    below.set(xlabel="Confidence in the answer", ylabel="Photos")
    below.grid(visible=False, axis="x")
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in (above.xaxis, below.xaxis, above.yaxis):
        axis.set_major_formatter(WHOLE_PERCENT)
    _legend_below(figure, above)
    return figure


@mpl.rc_context(STYLE)
def roc(targets: Ints, probabilities: Floats, classes: Sequence[str]) -> Figure:
    """Draw the ROC curve, with its upper left corner enlarged.

    Two classes have one curve, for the second class; more have a curve for each class against the
    rest, of which the worst few are drawn. Classes without a photo, or alone, have no curve.
    """
    two = len(classes) == 2
    drawable = [1] if two else range(len(classes))
    areas = _worst(roc_auc_score, targets, probabilities, drawable)
    curves = {k: roc_curve(targets == k, probabilities[:, k])[:2] for k in areas}
    # The corner is enlarged under the diagonal, where no curve is.
    figure, axes = _draw_curves(curves, areas, classes, (0.6, 0.13, 0.38, 0.33), left=0.0)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
    if two:
        axes.set(xlabel=f"{classes[0]} answered as {classes[1]}", ylabel=f"{classes[1]} found")
        area = f"area {areas[1]:.4f}" if areas else "no curve: only one class has photos"
        axes.text(0.98, 0.02, area, ha="right")
    else:
        axes.set(xlabel="Others answered as the class", ylabel="Of the class found")
        _legend_below(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def precision_recall(targets: Ints, probabilities: Floats, classes: Sequence[str]) -> Figure:
    """Draw precision over recall for each class, with the upper right corner enlarged.

    Of more than a few classes those with the lowest average precision are drawn. Classes without a
    photo, or alone, have no curve.
    """
    areas = precision_areas(targets, probabilities)
    curves = {}
    for k in areas:
        precision, recall, _ = precision_recall_curve(targets == k, probabilities[:, k])
        curves[k] = recall, precision
    corner = (0.17, 0.13, 0.41, 0.38)
    figure, axes = _draw_curves(curves, areas, classes, corner, left=1 - ZOOM)
    axes.set(xlabel="Of the class found (recall)", ylabel="Right where it is named (precision)")
    _legend_below(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def coverage(confidence: Floats, right: NDArray[np.bool_], total: int, threshold: float) -> Figure:
    """Draw the accuracy of the answers that are given over the share of photos that get one.

    Args:
        confidence: of the photos that are not answered ``neither``, ``(n,)``.
        right: whether their answers are right, ``(n,)``.
        total: number of all photos, those answered ``neither`` among them.
        threshold: the run's; answers of less confidence are ``unsure``. The point is marked.
    """
    order = np.argsort(-confidence, kind="stable")
    # How many answers are given from each confidence on: those that are equally sure come together.
    given = np.flatnonzero(np.diff(confidence[order], append=-1)) + 1
    some = np.linspace(0, len(given) - 1, min(len(given), POINTS)).round().astype(int)
    given = given[np.unique(some)]
    hits = np.cumsum(right[order])[given - 1]
    share, accuracy = given / total, hits / given
    pairs = zip(hits.tolist(), given.tolist(), strict=True)
    low, high = np.array([wilson_interval(k, n) for k, n in pairs]).T
    figure, axes = _axes(4.0)
    axes.fill_between(share, low, high, color=DARK, alpha=PALE, linewidth=0, label="95 % interval")
    axes.plot(share, accuracy, color=DARK, label="accuracy")
    answered = confidence >= threshold
    if answered.any():
        x, y = answered.sum() / total, right[answered].mean()
        label = f"this run: {percent(x)} answered, {percent(y, 2)} right"
        axes.plot(x, y, "D", color=TEXT, markersize=9, label=label, clip_on=False, zorder=5)
    # Where few photos are answered the interval is long, and says little.
    bottom = min(low[share >= min(0.1, share[-1])].min(), accuracy.min())
    # The surest answers are often equally sure; all of them may be.
    left = min(np.floor(10 * share[0]) / 10, 0.9)
    axes.set(xlim=(left, 1), ylim=(bottom - 0.05 * (1 - bottom), 1 + 0.02 * (1 - bottom)))
    axes.set(xlabel="Share of photos that get an answer", ylabel="Accuracy of these answers")
    axes.xaxis.set_major_formatter(WHOLE_PERCENT)
    axes.yaxis.set_major_formatter(PERCENT)
    _legend_below(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def novelty(values: Mapping[str, Floats], threshold: float) -> Figure:
    """Draw how novelties, 0 to 1, are distributed in two splits, and where ``neither`` begins.

    The second one is drawn filled, under the first. The legend says which share lies beyond.
    """
    figure, axes = _axes(3.8)
    edges = np.linspace(0, 1, round(1 / BAR_WIDTH) + 1)
    styles: list[dict[str, Any]] = [
        {"edgecolor": GREY, "linestyle": "--", "zorder": 3},
        {"edgecolor": DARK, "facecolor": to_rgba(DARK, PALE), "fill": True, "zorder": 2},
    ]
    for (name, found), style in zip(values.items(), styles, strict=True):
        shares = np.histogram(found, edges)[0] / max(len(found), 1)
        label = f"{name}: {percent(float((found > threshold).mean()))} beyond"
        axes.stairs(shares, edges, linewidth=2, label=label, **style)
    axes.axvline(threshold, color=TEXT, linestyle=":", linewidth=1.5)
    beside: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "bbox": {"facecolor": PAGE, "edgecolor": "none", "pad": 1.5},
    }
    axes.text(threshold + 0.02, 0.6, "neither →", zorder=4, **beside)
    axes.text(threshold - 0.02, 0.6, "← a class", zorder=4, ha="right", **beside)
    axes.set(xlim=(0, 1), xlabel="Novelty", ylabel="Share of photos")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PERCENT)
    _legend_below(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def memory_by_phase(memory: Mapping[str, int]) -> Figure:
    """Draw a bar a phase, the first on top: bytes resident at most up to its end."""
    gigabytes = {phase: peak / 1e9 for phase, peak in memory.items()}
    return _bars(gigabytes, [decimal(peak) for peak in memory.values()], "GB")


@mpl.rc_context(STYLE)
def time_by_phase(seconds: Mapping[str, float]) -> Figure:
    """Draw a bar a phase, the first on top; ``total`` is turned into what the phases left over."""
    phases = {name: value for name, value in seconds.items() if name != "total"}
    total = seconds.get("total", sum(phases.values()))
    phases["other"] = max(total - sum(phases.values()), 0.0)
    texts = [f"{duration(value)} ({percent(value / total, 0)})" for value in phases.values()]
    return _bars(phases, texts, "Seconds")


@mpl.rc_context(STYLE)
def accuracies(names: Sequence[str], tests: Sequence[SplitMetrics]) -> Figure:
    """Draw the test accuracy of each run with its 95 % interval, the first on top."""
    figure, axes = _axes(0.9 + 0.45 * len(names))
    places = range(len(names))[::-1]
    values = np.array([test.accuracy for test in tests])
    intervals = np.array([test.accuracy_interval_95 for test in tests])
    axes.errorbar(values, places, xerr=_around(values, intervals), fmt="o", color=DARK, capsize=5)
    axes.set_yticks(places, short_names(names, LONGEST_RUN))
    axes.set(ylim=(-0.6, len(names) - 0.4), xlabel="Test accuracy, 95 % interval")
    axes.xaxis.set_major_formatter(PERCENT)
    axes.locator_params(axis="x", nbins=5)
    return figure


def _axes(height: float, width: float = WIDTH, **subplots: Any) -> tuple[Figure, Any]:
    """Return an empty figure, inches high and wide, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(**subplots)
    for each in np.ravel(axes):  # ticks are made as a figure is saved, outside of the style
        each.tick_params(color=GREY, labelcolor=TEXT)
    return figure, axes


def _around(values: Floats, intervals: Floats) -> Floats:
    """Return ``(2, n)``, how far intervals ``(n, 2)`` reach below and above their values.

    Never less than 0: an interval may end a rounding error inside its point.
    """
    found: Floats = np.maximum([values - intervals[:, 0], intervals[:, 1] - values], 0)
    return found


def _bars(
    values: Mapping[str, float], texts: Sequence[str], unit: str, room: float = 0.32
) -> Figure:
    """Draw a bar a name, the first on top; ``room`` is kept for the words behind the longest."""
    figure, axes = _axes(0.9 + 0.42 * len(values))
    bars = axes.barh(range(len(values)), list(values.values()), color=DARK, height=0.65)
    axes.set_yticks(range(len(values)), list(values))  # here, so that they are in this style
    axes.bar_label(bars, texts, padding=4)
    axes.invert_yaxis()
    axes.margins(x=room)
    axes.set(xlabel=unit)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def precision_areas(targets: Ints, probabilities: Floats) -> dict[int, float]:
    """Return the average precision of the worst few classes, the lowest first."""
    numbers = range(probabilities.shape[1])
    return _worst(average_precision_score, targets, probabilities, numbers)


def confused_pairs(matrix: Sequence[Sequence[int]] | Ints) -> list[tuple[int, int, int]]:
    """Return (class, answer, photos) of all mistakes, the most frequent first."""
    counts = np.asarray(matrix)
    pairs = [(i, j, int(n)) for (i, j), n in np.ndenumerate(counts) if i != j and n]
    return sorted(pairs, key=lambda pair: -pair[2])


def _confused_pairs(counts: Ints, classes: Sequence[str]) -> Figure:
    """Draw a bar for each of the most frequent mistakes."""
    pairs = confused_pairs(counts)[:PAIRS_SHOWN]
    names = short_names(classes)
    values = {f"{names[i]} as {names[j]}": n for i, j, n in pairs}
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = [f"{n:,} ({percent(shares[i, j])})" for i, j, n in pairs]
    return _bars(values, texts, "Photos", room=0.8)


def short_names(names: Sequence[str], longest: int = LONGEST_NAME) -> list[str]:
    """Return names of at most so many letters, the middle of long ones left out.

    Those that are the same then get their number, from 1, in place of the middle.
    """
    short = [_without_middle(name, longest, "…") for name in names]
    return [
        _without_middle(name, longest, f"…{number}…") if short.count(each) > 1 else each
        for number, (name, each) in enumerate(zip(names, short, strict=True), start=1)
    ]


def _without_middle(name: str, longest: int, gap: str) -> str:
    if len(name) <= longest:
        return name
    kept = max(longest - len(gap), 2)
    return f"{name[: (kept + 1) // 2]}{gap}{name[len(name) - kept // 2 :]}"


def _worst(
    area: Callable[..., float], targets: Ints, probabilities: Floats, numbers: Iterable[int]
) -> dict[int, float]:
    """Return the areas of the worst few of some classes that have photos and are not alone."""
    areas = {
        k: float(area(targets == k, probabilities[:, k]))
        for k in numbers
        if 0 < (targets == k).sum() < len(targets)
    }
    return dict(sorted(areas.items(), key=itemgetter(1))[:CURVES_SHOWN])


def _draw_curves(
    curves: Mapping[int, tuple[Floats, Floats]],
    areas: Mapping[int, float],
    classes: Sequence[str],
    corner_place: tuple[float, float, float, float],
    left: float,
) -> tuple[Figure, Axes]:
    """Draw curves into a square, and the upper corner that begins at ``left`` enlarged."""
    figure, axes = _axes(5.2)
    places, names = [axes], short_names(classes)
    if areas and min(areas.values()) >= ZOOM_FROM:
        corner = axes.inset_axes(corner_place)
        corner.set(xlim=(left, left + ZOOM), ylim=(1 - ZOOM, 1))
        corner.set_title("the corner, enlarged", fontsize=9, color=GREY)
        corner.tick_params(labelsize=9, color=GREY, labelcolor=TEXT)
        places.append(corner)
    for rank, ((k, (x, y)), dash) in enumerate(zip(curves.items(), DASHES, strict=False)):
        # Hidden in the legend would be what begins with "_".
        label = f"\u200b{names[k]}: area {areas[k]:.4f}"
        # Of more classes than colours the curves have colours of their own.
        colour = class_colour(k if len(classes) <= len(CLASS_COLOURS) else rank)
        if len(curves) == 1:
            colour = DARK
        for place in places:
            inside = place is not axes  # the enlarged corner shows a part only
            place.plot(x, y, linestyle=dash, color=colour, label=label, clip_on=inside)
    for place in places:
        for axis in (place.xaxis, place.yaxis):
            axis.set_major_formatter(WHOLE_PERCENT)
            # In the corner 2.5 % would be labelled as 2 %.
            axis.set_major_locator(MaxNLocator(5, steps=None if place is axes else [1, 5, 10]))
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    return figure, axes


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": 2}
        figure.legend(handles, labels, fontsize=10, frameon=False, **place)


def _note(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    of: tuple[str, str],
    offset: tuple[float, float],
    **style: Any,
) -> None:
    """Write beside a place, also outside of the axes; ``of`` names what its coordinates are of."""
    style |= {"xytext": offset, "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, place, xycoords=of, **style)
