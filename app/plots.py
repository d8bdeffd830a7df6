"""One function a figure: plain data in, a ``Figure`` out; nothing is read, shown or written.

Colours are Okabe and Ito's (2008), which the colour-blind can tell apart; whatever differs in
colour differs in brightness and in marker or dash too, so that a grey print is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from app.display import duration, percent
from app.evaluation import ECE_BINS, reliability_bins
from app.history import HistoryRow

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

DARK, LIGHT, GREY = "#0072B2", "#E69F00", "#595959"
WIDTH = 5.6  # inches: at 11 points the words are still legible on a phone 360 pixels wide
CURVES_SHOWN = 6  # more are not told apart by eye
ZOOM, ZOOM_FROM = 0.1, 0.97  # the corner of the ROC square that is enlarged; from which area on
PERCENT = PercentFormatter(1, symbol=" %")
WHOLE_PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
HOLLOW: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5}

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a class may be called $\\frac$
}


@mpl.rc_context(STYLE)
def learning_curves(history: Sequence[HistoryRow]) -> Figure:
    """Draw log-loss (above) and validation accuracy (below) over the epochs of all stages.

    Lines are broken between stages, because a stage starts from the best epoch of the one before.
    """
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    firsts = [i for i, row in enumerate(history) if i == 0 or row.stage != history[i - 1].stage]
    raised = False
    for first, end in zip(firsts, [*firsts[1:], len(history)], strict=True):
        epochs, rows = range(first + 1, end + 1), history[first:end]
        training = [row.loss for row in rows]
        validation = [row.validation_loss for row in rows]
        # Hollow and large, so that it is seen where the other lies on it.
        above.plot(epochs, training, "s--", color=LIGHT, label="training", **HOLLOW)
        above.plot(epochs, validation, "o-", color=DARK, label="validation")
        accuracy = [row.validation_accuracy for row in rows]
        below.plot(epochs, accuracy, "o-", color=DARK, label="validation")
        for axes in (above, below) if first else ():
            axes.axvline(first + 0.5, color=GREY, linestyle=":", linewidth=1)
        # A name that would run into the one before is put a line higher.
        narrow = bool(first) and first - firsts[firsts.index(first) - 1] < 0.16 * len(history)
        raised = narrow and not raised
        above.annotate(
            rows[0].stage,
            (first + 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 20 if raised else 5),
            textcoords="offset points",
            color=GREY,
        )
    highest = max(max(row.loss, row.validation_loss) for row in history)
    above.set(ylabel="Log-loss", ylim=(0, 1.08 * highest))
    below.set(xlabel="Epoch", ylabel="Validation accuracy", xlim=(0.5, len(history) + 0.5))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.yaxis.set_major_formatter(PERCENT)
    last = history[-1]
    ends = {"training": last.loss, "validation": last.validation_loss}
    for name, place in _apart(ends, 0.09 * above.get_ylim()[1]).items():
        _label_right(above, place, name)
    _label_right(below, last.validation_accuracy, percent(last.validation_accuracy))
    return figure


@mpl.rc_context(STYLE)
def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw ``matrix[i][j]``, photos of class i answered with class j; shade is the row's share."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.9 * len(classes), 9.0)
    figure = Figure(figsize=(max(side, WIDTH), side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = {"fontsize": 13} if len(classes) <= 4 else {"fontsize": 9}
    for (i, j), count in np.ndenumerate(counts):
        text = f"{count:,}\n{percent(shares[i, j])}" if len(classes) <= 8 else f"{count:,}"
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, **size)  # type: ignore[arg-type]
    ticks = range(len(classes))
    turned = 90 if max(map(len, classes)) * len(classes) > 40 else 0
    axes.set_xticks(ticks, classes, rotation=turned)
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="Answer", ylabel="Truth")
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
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1.3))
    confidence = np.array([b.confidence for b in bins])
    accuracy = np.array([b.accuracy for b in bins])
    intervals = [binomtest(b.right, b.count).proportion_ci(0.95, "wilson") for b in bins]
    # Clipped at 0: an interval may end a rounding error inside its point.
    down = np.maximum(accuracy - [interval.low for interval in intervals], 0)
    up = np.maximum([interval.high for interval in intervals] - accuracy, 0)
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
    above.errorbar(
        confidence,
        accuracy,
        (down, up),
        fmt="o",
        color=DARK,
        elinewidth=1.2,
        clip_on=False,
        label="answers, 95 % interval",
    )
    # Nobody answers with less confidence than an even share of all classes.
    left = int(ECE_BINS / probabilities.shape[1]) / ECE_BINS
    above.set(xlim=(left, 1), ylim=(0, 1.02), ylabel="Share of right answers")
    above.legend(loc="lower right", frameon=False, fontsize=9)
    bars = below.bar(
        [b.low for b in bins],
        [b.count for b in bins],
        width=1 / ECE_BINS,
        align="edge",
        color=DARK,
        edgecolor="white",
    )
    below.bar_label(bars, fmt="{:,.0f}", fontsize=9)
    below.margins(y=0.25)
    below.set(xlabel="Confidence in the answer", ylabel="Photos")
    below.grid(visible=False, axis="x")
    for axes in (above, below):
        axes.xaxis.set_major_formatter(WHOLE_PERCENT)
    above.yaxis.set_major_formatter(WHOLE_PERCENT)
    return figure


@mpl.rc_context(STYLE)
def roc(targets: Ints, probabilities: Floats, classes: Sequence[str]) -> Figure:
    """Draw the ROC curve, with its upper left corner enlarged.

    Two classes have one curve, for the second class; more have a curve for each class against the
    rest, of which the worst few are drawn. Classes without a photo, or alone, have no curve.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    axes = figure.subplots()
    two = len(classes) == 2
    numbers = [1] if two else range(len(classes))
    drawable = [k for k in numbers if 0 < (targets == k).sum() < len(targets)]
    areas = {k: float(roc_auc_score(targets == k, probabilities[:, k])) for k in drawable}
    worst = sorted(areas, key=lambda k: areas[k])[:CURVES_SHOWN]
    places = [axes]
    if worst and areas[worst[0]] >= ZOOM_FROM:
        corner = axes.inset_axes((0.57, 0.13, 0.41, 0.38))  # under the diagonal, where no curve is
        corner.set(xlim=(0, ZOOM), ylim=(1 - ZOOM, 1))
        corner.set_title("the corner, enlarged", fontsize=9, color=GREY)
        corner.tick_params(labelsize=9)
        places.append(corner)
    dashes = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
    for rank, (k, dash) in enumerate(zip(worst, dashes, strict=False)):
        found, hit, _ = roc_curve(targets == k, probabilities[:, k])
        colour = DARK if two else mpl.colormaps["cividis"](0.9 * rank / CURVES_SHOWN)
        for place in places:
            place.plot(
                found,
                hit,
                linestyle=dash,
                color=colour,
                label=f"{classes[k]}: area {areas[k]:.4f}",
                clip_on=place is not axes,
            )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
    for place in places:
        for axis in (place.xaxis, place.yaxis):
            axis.set_major_formatter(WHOLE_PERCENT)
            axis.set_major_locator(MaxNLocator(5))
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    if two:
        axes.set(xlabel=f"{classes[0]} answered as {classes[1]}", ylabel=f"{classes[1]} found")
        area = f"area {areas[1]:.4f}" if areas else "no curve: only one class has photos"
        axes.text(0.98, 0.02, area, ha="right")
    else:
        axes.set(xlabel="Others answered as the class", ylabel="Of the class found")
        if worst:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure


@mpl.rc_context(STYLE)
def time_by_phase(seconds: Mapping[str, float]) -> Figure:
    """Draw a bar a phase, the first on top; ``total`` is turned into what the phases left over."""
    phases = {name: value for name, value in seconds.items() if name != "total"}
    total = seconds.get("total", sum(phases.values()))
    phases["other"] = max(total - sum(phases.values()), 0.0)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(phases)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(phases), list(phases.values()), color=DARK, height=0.65)
    texts = [f"{duration(value)} ({percent(value / total, 0)})" for value in phases.values()]
    axes.bar_label(bars, texts, padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.32)  # room for the words behind the longest bar
    axes.set(xlabel="Seconds")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def _label_right(axes: Axes, height: float, text: str) -> None:
    axes.annotate(
        text,
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        annotation_clip=False,
    )


def _apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Move two heights apart until their labels do not touch; higher stays higher."""
    (low, a), (high, b) = sorted(places.items(), key=lambda item: item[1])
    lack = max(gap - (b - a), 0.0) / 2
    return {low: a - lack, high: b + lack}
