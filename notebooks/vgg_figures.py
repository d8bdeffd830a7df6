"""The figures of ``notebooks/2_vgg16_in_depth.py``: data in, a ``Figure`` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.stats import binomtest

from app.data.decode import Pixels
from app.report.figures import DARK, GREY, HOLLOW, STYLE, WHOLE_PERCENT

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

WIDTH = 9.0  # inches: as wide as a cell of a notebook
CLASS_COLOURS = ("#E07A3F", "#2A6FBB")  # as in lesson.mplstyle

# Lines that are told apart without colour too: by marker, by dash, by brightness.
LINES: tuple[dict[str, Any], ...] = (
    {"color": "black", "marker": "x", "linestyle": ":"},
    {"color": "#8C8C8C", "marker": "o", "linestyle": "--", "markersize": 4},
    {"color": CLASS_COLOURS[0], "marker": "s", "linestyle": "-.", **HOLLOW},
    {"color": DARK, "marker": "^", "linestyle": "-"},
)


@mpl.rc_context(STYLE)
def shares(parts: Sequence[str], quantities: Mapping[str, Sequence[float]]) -> Figure:
    """Draw what share of each quantity each part of the network takes, a panel a quantity."""
    figure = Figure(figsize=(WIDTH, 0.6 + 0.32 * len(parts)), layout="constrained")
    panels = figure.subplots(1, len(quantities), sharey=True)
    for axes, (name, values) in zip(panels, quantities.items(), strict=True):
        share = np.asarray(values) / np.sum(values)
        bars = axes.barh(list(parts), share, color=DARK, height=0.7)
        axes.bar_label(bars, [f"{100 * one:.0f} %" for one in share], padding=3, fontsize=9)
        axes.set_title(name)
        axes.set_xlim(0, 1.3 * share.max())
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
    panels[0].invert_yaxis()
    return figure


@mpl.rc_context(STYLE)
def gradients(maps: Sequence[Floats], titles: Sequence[str]) -> Figure:
    """Draw how strongly each pixel moves an output: white not at all, the darker the more."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False).flat
    for axes, gradient, title in zip(panels, maps, titles, strict=True):
        # The root, because the corners of a wide field move the output very little.
        axes.imshow(np.sqrt(np.abs(gradient)), cmap="Greys", vmin=0)
        axes.set_title(title)
        side = len(gradient)
        axes.set_xticks(np.arange(-0.5, side), labels=[])
        axes.set_yticks(np.arange(-0.5, side), labels=[])
        axes.tick_params(length=0)
        axes.set_axisbelow(False)  # the grid between the pixels
        axes.spines[:].set(visible=True, color="#DDDDDD")
    return figure


@mpl.rc_context(STYLE)
def windows(picture: Pixels, window: int, step: int) -> Figure:
    """Draw a picture with the first and the last of the windows that slide over it."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(6.0, 6.0 * height / width), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture)
    last = ((width - window) // step * step, (height - window) // step * step)
    for corner, dash, name in (((0, 0), "-", "first"), (last, "--", "last")):
        for colour, thick in (("white", 5.0), (DARK, 2.5)):
            axes.add_patch(
                Rectangle(
                    corner,
                    window,
                    window,
                    fill=False,
                    color=colour,
                    linewidth=thick,
                    linestyle=dash if colour == DARK else "-",
                    clip_on=False,
                )
            )
        axes.text(
            corner[0] + (6 if name == "first" else window - 6),
            corner[1] + (6 if name == "first" else window - 6),
            name,
            ha="left" if name == "first" else "right",
            va="top" if name == "first" else "bottom",
            backgroundcolor="white",
        )
    rows, columns = range(last[1] // step + 1), range(last[0] // step + 1)
    centres = np.array([(step * c, step * r) for r in rows for c in columns]) + window / 2
    for colour, size in (("white", 60), (DARK, 25)):
        axes.scatter(centres[:, 0], centres[:, 1], s=size, color=colour)
    axes.set_axis_off()
    return figure


@mpl.rc_context(STYLE)
def spread_by_layer(layers: Sequence[str], spreads: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the standard deviation of each layer's output, a line a network."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, values), line in zip(spreads.items(), LINES, strict=False):
        axes.plot(range(len(values)), values, label=name, **line)
    axes.set_yscale("log")
    axes.set_xticks(range(len(layers)), layers, rotation=90)
    axes.set(ylabel="Spread of the output")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=10)
    return figure


@mpl.rc_context(STYLE)
def loss_curves(
    losses: Mapping[str, Sequence[float]], *, steps: int, guessing: float, top: float
) -> Figure:
    """Draw the training loss of each network in a panel of its own, and the loss of guessing.

    The thin line is every step, the thick one means of ``steps``. What is above ``top`` leaves the
    panel.
    """
    rows = -(-len(losses) // 2)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).flat
    # In this order: zip would take a panel too many before it finds the losses at their end.
    for place, ((name, values), axes) in enumerate(zip(losses.items(), panels, strict=False)):
        means = mean_of_each(values, steps)
        axes.axhline(guessing, color="black", linewidth=1, linestyle=":")
        axes.plot(np.arange(len(values)) + 1, values, color=CLASS_COLOURS[0], linewidth=0.8)
        axes.plot(steps * (np.arange(len(means)) + 0.5), means, color=DARK, marker="o")
        axes.set_title(name, fontsize=10)
        axes.set(ylim=(0, top), xlim=(0, len(values)))
        axes.tick_params(labelbottom=place >= len(losses) - 2)  # where no panel is below
    for axes in panels:  # what is left of them
        axes.set_axis_off()
    figure.supxlabel("Step", fontsize=11)
    figure.supylabel("Training loss (dotted: guessing)", fontsize=11)
    return figure


@mpl.rc_context(STYLE)
def feature_maps(maps: Mapping[str, Floats], targets: Ints, classes: Sequence[str]) -> Figure:
    """Draw photos as points of a plane, ``(n, 2)`` a panel; marker and colour say the class."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    panels = figure.subplots(1, len(maps))
    marks: tuple[dict[str, Any], ...] = (
        {"color": CLASS_COLOURS[0], "marker": "o", "s": 16},
        {"edgecolor": CLASS_COLOURS[1], "facecolor": "none", "marker": "^", "s": 30},
    )
    for axes, (title, points) in zip(panels, maps.items(), strict=True):
        for number, (label, mark) in enumerate(zip(classes, marks, strict=True)):
            own = points[targets == number]
            axes.scatter(own[:, 0], own[:, 1], label=label, linewidths=1.1, **mark)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


@mpl.rc_context(STYLE)
def accuracies(found: Mapping[str, float], photos: int) -> Figure:
    """Draw validation accuracies as points with the 95 % interval of so many photos (Wilson)."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, accuracy in enumerate(found.values()):
        interval = binomtest(round(accuracy * photos), photos).proportion_ci(0.95, "wilson")
        axes.plot([interval.low, interval.high], [place, place], color=GREY)
        axes.plot(accuracy, place, "o", color=DARK)
        axes.text(accuracy, place - 0.15, f"{100 * accuracy:.1f} %", ha="center", va="bottom")
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.7)
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.xaxis.set_major_formatter(WHOLE_PERCENT)
    axes.set(xlabel=f"Accuracy on {photos} validation photos")
    axes.grid(visible=False, axis="y")
    return figure


def mean_of_each(values: Sequence[float], steps: int) -> Floats:
    """Return the means of ``steps`` values each; a rest that is shorter is left out."""
    whole = len(values) // steps * steps
    means: Floats = np.asarray(values[:whole], float).reshape(-1, steps).mean(axis=1)
    return means
