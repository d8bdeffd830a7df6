"""The pictures of ``notebooks/1_transfer_learning.py``: arrays in, a picture for the page out.

Each function draws one kind of figure. The heading says the answer to the figure's question; the
alternative text says in words what there is to see. The style is ``lesson.mplstyle``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from app.core.sanitise import shown
from app.report.html import DPI, Picture

Floats = NDArray[np.floating[Any]]

STYLE = Path(__file__).with_name("lesson.mplstyle")
WIDTH = 9.0  # inches: as wide as a cell of a notebook
LETTERS = 80  # of a heading in one line
FRAME = 4.0  # points: the border that has the colour of the class
QUALITY = 88  # of JPEG; the pictures of a notebook take 1 MB, as PNG they took 6
LEGIBLE = 7  # tiles in a row: the numbers on more of them are too small


class PhotoPicture(Picture):
    """A figure with photos in it, as JPEG."""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        file, alt = io.BytesIO(), repr(self)
        self.figure.savefig(file, format="jpeg", dpi=DPI, pil_kwargs={"quality": QUALITY})
        about = {"image/jpeg": {"alt": alt, "width": self.width}}
        return {"image/jpeg": base64.b64encode(file.getvalue()).decode(), "text/plain": alt}, about


def show(
    images: Sequence[ArrayLike],
    titles: Sequence[str] = (),
    *,
    heading: str,
    alt: str,
    labels: Sequence[int] | Floats | None = None,
    columns: int = 6,
) -> Picture:
    """Show pictures at equal size, row by row.

    Args:
        images: of each either pixels, uint8 or 0 to 1, ``(height, width, 3)``, or one map of
            numbers ``(height, width)``: its largest is bright, its smallest dark.
        titles: words above each picture, or none.
        heading: what is to be seen, as a sentence.
        alt: what is to be seen, for those who do not see it.
        labels: the class of each picture; its border has the colour of the class.
        columns: pictures in a row.
    """
    pictures = [np.asarray(image) for image in images]
    rows = -(-len(pictures) // columns)
    with style.context(STYLE):
        high = WIDTH / columns + (0.25 if titles else 0.0)
        figure = _figure(heading, rows * high)
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for place, axes in enumerate(panels):
            if place >= len(pictures):
                axes.set_axis_off()
                continue
            _picture(axes, pictures[place])
            if titles:
                axes.set_title(shown(titles[place]), fontsize=10)
            if labels is not None:
                colour = f"C{int(labels[place])}"
                axes.spines[:].set(visible=True, color=colour, linewidth=FRAME)
    return PhotoPicture(figure, alt)


def curve(
    counts: Sequence[int],
    accuracies: Floats,
    *,
    heading: str,
    alt: str,
    others: Mapping[str, float] | None = None,
) -> Picture:
    """Draw accuracy against the number of photos: the mean as a line, all draws as dots.

    Args:
        counts: photos of each class.
        accuracies: of each draw, ``(draws, counts)``.
        heading: what is to be seen, as a sentence.
        alt: what is to be seen, for those who do not see it.
        others: name → accuracy of other ways, each a dashed line.
    """
    with style.context(STYLE):
        figure = _figure(heading, 3.8)
        axes = figure.subplots()
        for draw in accuracies:
            axes.plot(counts, draw, "o", color="C1", markersize=4, alpha=0.25)
        axes.plot(counts, accuracies.mean(axis=0), "o-", color="C1")
        for count, mean in zip(counts, accuracies.mean(axis=0), strict=True):
            axes.annotate(
                f"{100 * mean:.0f} %",
                (count, mean),
                xytext=(0, 12),
                textcoords="offset points",
                ha="center",
                fontweight="bold",
            )
        for name, accuracy in (others or {}).items():
            axes.axhline(accuracy, color="#595959", linestyle="--", linewidth=1.5)
            axes.text(counts[0], accuracy + 0.012, name, color="#595959")
        axes.set_xscale("log")
        axes.set_xticks(list(counts))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set(xlabel="Photos of each class to learn from", ylabel="Right answers")
        axes.set_ylim(min(0.45, float(accuracies.min()) - 0.05), 1.07)
    return Picture(figure, alt)


def evidence(
    pixels: ArrayLike, tiles: Floats, *, label: int = 0, heading: str, alt: str
) -> Picture:
    """Draw a photo, and beside it what each tile of it says for an answer or against it.

    Args:
        pixels: uint8, ``(height, width, 3)``.
        tiles: what each tile adds to the score, ``(rows, columns)``; they add up to it.
        label: the class that they speak for; its colour says "for", that of another "against".
        heading: what is to be seen, as a sentence.
        alt: what is to be seen, for those who do not see it.
    """
    photo = np.asarray(pixels)
    height, width = photo.shape[:2]
    strongest = float(np.abs(tiles).max()) or 1.0
    with style.context(STYLE):
        figure = _figure(heading, WIDTH / 2)
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            _picture(axes, photo)
        right.images[0].set(data=photo.mean(axis=2) * 0.7 + 60, cmap="gray", clim=(0, 255))
        ends = [f"C{1 if label == 0 else 0}", "white", f"C{label}"]
        colours = LinearSegmentedColormap.from_list("", ends)
        right.imshow(
            tiles,
            cmap=colours,
            alpha=0.5,
            interpolation="nearest",
            vmin=-strongest,
            vmax=strongest,
            extent=(0, width, height, 0),
        )
        if tiles.shape[1] <= LEGIBLE:
            for (row, column), value in np.ndenumerate(tiles):
                x, y = (column + 0.5) * width / tiles.shape[1], (row + 0.5) * height / len(tiles)
                right.text(
                    x, y, f"{round(value, 1) + 0:+.1f}", ha="center", va="center", fontsize=11
                )
    return PhotoPicture(figure, alt)


def _figure(heading: str, height: float) -> Figure:
    words = fill(shown(heading), LETTERS)
    lines = words.count("\n") + 1
    figure = Figure(figsize=(WIDTH, height + 0.3 * lines), layout="constrained")
    figure.suptitle(words, x=0.01, ha="left")
    return figure


def _picture(axes: Axes, pixels: NDArray[Any]) -> None:
    axes.imshow(pixels, cmap="magma")  # which pixels with three colours do not use
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
