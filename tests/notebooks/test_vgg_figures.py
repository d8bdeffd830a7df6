"""The figures about VGG16: what is drawn is what was given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import vgg_figures as figures
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def outside(figure: Figure) -> list[str]:
    """Return the words that leave the figure."""
    figure.draw_without_rendering()
    frame = figure.bbox
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title)]
    return [
        text.get_text()
        for text in texts
        if text.get_text()
        and not (
            frame.x0 <= text.get_window_extent().x0 and text.get_window_extent().x1 <= frame.x1
        )
    ]


def test_shares_add_up_to_all() -> None:
    figure = figures.shares(["a", "b"], {"Weights": [1, 3], "Work": [0, 7]})
    weights, work = figure.axes
    assert words(weights) == ["25 %", "75 %"]
    assert words(work) == ["0 %", "100 %"]
    assert [bar.get_width() for bar in weights.patches] == [0.25, 0.75]
    assert outside(figure) == []


def test_gradients_are_drawn_by_their_size_whatever_the_sign() -> None:
    figure = figures.gradients([np.array([[0.0, -4.0], [1.0, 0.0]])], ["one"])
    (axes,) = figure.axes
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0, 2], [1, 0]]
    assert axes.get_title() == "one"


def test_windows_show_where_each_answer_stands() -> None:
    figure = figures.windows(np.zeros((320, 416, 3), np.uint8), 224, 32)
    (axes,) = figure.axes
    dots = np.asarray(axes.collections[-1].get_offsets())
    assert len(dots) == 4 * 7
    assert dots.min(axis=0).tolist() == [112, 112]
    assert dots.max(axis=0).tolist() == [6 * 32 + 112, 3 * 32 + 112]
    corners = {patch.get_xy() for patch in axes.patches}
    assert corners == {(0, 0), (192, 96)}
    assert outside(figure) == []


def test_lines_of_spreads_are_told_apart_in_grey() -> None:
    spreads = {name: [1.0, 0.1 * number] for number, name in enumerate("abcd", start=1)}
    figure = figures.spread_by_layer(["1", "2"], spreads)
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == list(spreads.values())
    assert axes.get_yscale() == "log"
    tta_views = [(line.get_marker(), line.get_linestyle()) for line in axes.lines]
    assert len(set(tta_views)) == len(tta_views)
    brightness = sorted(np.dot(to_rgb(line.get_color()), (0.3, 0.6, 0.1)) for line in axes.lines)
    assert all(b - a > 0.02 for a, b in pairwise(brightness))


def test_each_network_has_a_panel_with_every_step_and_its_means() -> None:
    losses = {name: [1.0, 3.0, 2.0, 4.0, 9.0] for name in ("a", "b", "c")}
    figure = figures.loss_curves(losses, steps=2, guessing=0.7, top=5)
    *panels, empty = figure.axes
    assert [axes.get_title() for axes in panels] == ["a", "b", "c"]
    for axes in panels:
        guess, steps, means = axes.lines
        assert set(guess.get_ydata()) == {0.7}
        assert list(steps.get_ydata()) == losses["a"]
        assert list(steps.get_xdata()) == [1, 2, 3, 4, 5]
        assert list(means.get_ydata()) == [2, 3]
        assert list(means.get_xdata()) == [1, 3]
    assert not empty.axison
    assert outside(figure) == []


def test_photos_are_points_by_class() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    figure = figures.feature_maps(
        {"left": points, "right": -points}, np.array([0, 1, 1]), ["cat", "dog"]
    )
    left, right = figure.axes
    cats, dogs = left.collections
    assert np.asarray(cats.get_offsets()).tolist() == [[0, 0]]
    assert np.asarray(dogs.get_offsets()).tolist() == [[1, 1], [2, 2]]
    assert np.asarray(right.collections[1].get_offsets()).tolist() == [[-1, -1], [-2, -2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "dog"]


def test_accuracies_stand_within_their_intervals() -> None:
    figure = figures.accuracies({"right": 0.97, "wrong": 0.88}, 400)
    (axes,) = figure.axes
    assert words(axes) == ["97.0 %", "88.0 %"]
    intervals = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2][:2]
    # Wilson's, by hand for 388 of 400: centre (0.97 + 1.92/400) / (1 + 3.84/400), ± 0.0170
    low, high = intervals[0]
    assert (round(low, 3), round(high, 3)) == (0.948, 0.983)
    assert axes.get_xlabel() == "Accuracy on 400 validation photos"
    assert outside(figure) == []
