"""Figures: what is drawn is what was given, and it is labelled."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.core.run_metrics import HistoryRow
from app.evaluation.metrics import expected_calibration_error, reliability_bins
from app.report import figures as plots
from app.report.html import duration


def epochs(*stages: tuple[str, int]) -> list[HistoryRow]:
    rng = np.random.default_rng(0)
    return [
        HistoryRow(stage, number, *rng.uniform(0.05, 0.95, 4).tolist(), 1e-3, 2.0)
        for stage, count in stages
        for number in range(1, count + 1)
    ]


def answers(n: int, classes: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[targets]
    scores = np.exp(logits)
    return targets, scores / scores.sum(axis=1, keepdims=True)


def brightness(colour: Any) -> float:
    """Return the luma of a colour, 0 to 1 (ITU-R BT.601)."""
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_learning_curves_draw_every_epoch_and_break_between_stages() -> None:
    history = epochs(("head", 4), ("block5", 2))
    figure = plots.learning_curves(history)
    above, below = figure.axes
    for axes, label, field in (
        (above, "training", "loss"),
        (above, "validation", "validation_loss"),
        (below, "validation", "validation_accuracy"),
    ):
        lines = [line for line in axes.lines if line.get_label() == label]
        assert [len(line.get_xdata()) for line in lines] == [4, 2]
        drawn = np.concatenate([line.get_ydata() for line in lines])
        assert drawn.tolist() == [getattr(row, field) for row in history]
        assert np.concatenate([line.get_xdata() for line in lines]).tolist() == [1, 2, 3, 4, 5, 6]
    assert above.get_ylabel() == "Log-loss"
    assert (below.get_xlabel(), below.get_ylabel()) == ("Epoch", "Validation accuracy")
    assert {"head", "block5", "training", "validation"} <= set(words(figure))


def test_labels_of_lines_that_end_together_do_not_touch() -> None:
    history = [HistoryRow("head", 1, 0.3, 0.9, 0.3, 0.9, 1e-3, 1.0)]
    figure = plots.learning_curves(history)
    figure.draw_without_rendering()
    ends = [t for t in figure.axes[0].texts if t.get_text() in ("training", "validation")]
    assert not ends[0].get_window_extent().overlaps(ends[1].get_window_extent())


def test_names_of_short_stages_do_not_touch() -> None:
    figure = plots.learning_curves(epochs(("head", 30), ("block5", 1), ("block4", 1)))
    figure.draw_without_rendering()
    names = [t for t in figure.axes[0].texts if t.get_text() in ("head", "block5", "block4")]
    boxes = [name.get_window_extent() for name in names]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_confusion_shows_counts_and_shares_of_rows() -> None:
    figure = plots.confusion([[1980, 20], [5, 15]], ["cat", "dog"])
    (axes,) = figure.axes
    assert words(figure) == ["1,980\n99.0 %", "20\n1.0 %", "5\n25.0 %", "15\n75.0 %"]
    right, wrong = (np.ma.asarray(mesh.get_array()) for mesh in axes.collections)
    assert right.compressed().tolist() == [0.99, 0.75]
    assert np.square(wrong.compressed()).tolist() == pytest.approx([0.01, 0.25])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Prediction", "Truth")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]


def test_the_axes_of_a_confusion_are_named_beside_long_names() -> None:
    figure = plots.confusion([[13, 2], [4, 11]], ["cat", "dog & <b>wolf</b>"])
    figure.draw_without_rendering()
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert 0 <= label.x0 < label.x1 < figure.bbox.width


def test_confusion_of_a_class_without_photos_has_no_shares() -> None:
    assert words(plots.confusion([[3, 1], [0, 0]], ["cat", "dog"]))[2:] == ["0\n0.0 %", "0\n0.0 %"]


def test_confusion_of_more_classes_leaves_zeros_out_and_names_short() -> None:
    matrix = 7 * np.eye(12, dtype=int)
    matrix[2, 5] = 3
    names = [f"a name that is longer than {k}" for k in range(11)]
    figure = plots.confusion(matrix.tolist(), [*names, "a name that is longer than 10"])
    assert sorted(filter(None, words(figure))) == ["3", *["7"] * 12]
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == "a name th…r than 0"
    assert len(set(ticks)) == 12, "two names are even the same"
    assert max(map(len, ticks)) <= plots.LONGEST_NAME


def test_names_keep_their_ends_and_are_told_apart() -> None:
    assert plots.short_names(["kind 7", "German Shepherd, long-haired, 3"]) == [
        "kind 7",
        "German Sh…aired, 3",
    ]
    assert plots.short_names(["a" * 30, "a" * 31, "b"], 10) == ["aaaa…1…aaa", "aaaa…2…aaa", "b"]


def test_confusion_of_a_hundred_classes_is_the_most_frequent_mistakes() -> None:
    matrix = 50 * np.eye(100, dtype=int)
    matrix[3, 7], matrix[98, 99] = 9, 4
    names = [f"kind {k}" for k in range(100)]
    assert plots.confused_pairs(matrix) == [(3, 7, 9), (98, 99, 4)]
    (axes,) = plots.confusion(matrix.tolist(), names).axes
    assert [bar.get_width() for bar in axes.patches] == [9, 4]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == ["kind 3 as kind 7", "kind 98 as kind 99"]
    assert [text.get_text() for text in axes.texts] == ["9 (15.3 %)", "4 (7.4 %)"]


def test_mistakes_whose_names_are_the_same_when_shortened_have_bars_of_their_own() -> None:
    matrix = np.eye(30, dtype=int)
    matrix[0, 1], matrix[0, 2] = 2, 1
    names = [f"a very long common beginning {k}" for k in range(30)]
    (axes,) = plots.confusion(matrix.tolist(), names).axes
    assert [bar.get_width() for bar in axes.patches] == [2, 1]


def test_reliability_draws_the_bins_of_the_calibration_error() -> None:
    targets, probabilities = answers(500, 2)
    bins = reliability_bins(targets, probabilities)
    above, below = plots.reliability(targets, probabilities).axes
    points = above.containers[0].lines[0]
    assert points.get_xdata().tolist() == [b.confidence for b in bins]
    assert points.get_ydata().tolist() == [b.accuracy for b in bins]
    assert [bar.get_height() for bar in below.patches] == [b.count for b in bins]
    assert sum(b.count for b in bins) == 500
    assert (below.get_xlabel(), below.get_ylabel()) == ("Confidence in the answer", "Photos")
    assert above.get_ylabel() == "Share of right answers"


def test_bins_of_reliability_by_hand() -> None:
    targets = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    bins = reliability_bins(targets, probabilities, bins=2)
    assert [(b.low, b.high, b.count, b.right) for b in bins] == [(0.5, 1.0, 4, 3)]
    assert bins[0].confidence == pytest.approx(0.85)
    assert expected_calibration_error(targets, probabilities, bins=2) == pytest.approx(0.1)
    finer = reliability_bins(targets, probabilities, bins=4)
    assert [(b.low, b.count, b.right) for b in finer] == [(0.5, 1, 0), (0.75, 3, 3)]
    by_hand = 0.25 * 0.7 + 0.75 * (1 - 2.7 / 3)
    assert expected_calibration_error(targets, probabilities, bins=4) == pytest.approx(by_hand)


def test_roc_of_two_classes_by_hand() -> None:
    targets = np.array([0, 0, 1, 1])
    second = np.array([0.1, 0.6, 0.4, 0.8])  # one of four pairs is in the wrong order
    figure = plots.roc(targets, np.stack([1 - second, second], axis=1), ["cat", "dog"])
    (axes,) = figure.axes  # no enlarged corner for so poor a curve
    curve = axes.lines[0]
    assert curve.get_xdata().tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.get_ydata().tolist() == [0, 0.5, 0.5, 1, 1]
    assert words(figure) == ["area 0.7500"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("cat answered as dog", "dog found")


def test_roc_of_a_good_classifier_enlarges_the_corner() -> None:
    targets, probabilities = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])
    (axes,) = plots.roc(targets, probabilities, ["cat", "dog"]).axes
    (corner,) = axes.child_axes
    assert corner.get_xlim() == (0, 0.1)
    assert corner.get_ylim() == (0.9, 1)
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()
    for axis in (corner.xaxis, corner.yaxis):  # labels are rounded, so ticks must be whole
        assert [round(100 * tick, 6) % 1 for tick in axis.get_majorticklocs()] == [0, 0, 0]


def test_roc_of_many_classes_draws_the_worst_and_names_them() -> None:
    targets, probabilities = answers(400, 8)
    names = [f"kind {k}" for k in range(8)]
    figure = plots.roc(targets, probabilities, names)
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(shown) == plots.CURVES_SHOWN
    areas = [float(text.split()[-1]) for text in shown]
    assert areas == sorted(areas)


@pytest.mark.parametrize("classes", [2, 3])
def test_roc_without_photos_of_other_classes_has_no_curve(classes: int) -> None:
    _, probabilities = answers(6, classes)
    figure = plots.roc(np.zeros(6, np.int64), probabilities, ["a", "b", "c"][:classes])
    assert len(figure.axes[0].lines) == 1  # the diagonal


def test_precision_recall_by_hand() -> None:
    targets = np.array([0, 0, 1, 1])
    second = np.array([0.1, 0.6, 0.4, 0.8])
    probabilities = np.stack([1 - second, second], axis=1)
    figure = plots.precision_recall(targets, probabilities, ["cat", "dog"])
    (axes,) = figure.axes
    curve = next(line for line in axes.lines if "dog" in str(line.get_label()))
    points = set(zip(curve.get_xdata().tolist(), curve.get_ydata().tolist(), strict=True))
    # The surest dog is one; the second is a cat; both dogs are found among three, or among all.
    assert points == {(0, 1), (0.5, 1), (0.5, 0.5), (1, 2 / 3), (1, 0.5)}
    areas = plots.precision_areas(targets, probabilities)
    assert areas[1] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "Of the class found (recall)",
        "Right where it is named (precision)",
    )


def test_precision_recall_of_many_classes_draws_the_worst() -> None:
    targets, probabilities = answers(400, 8)
    figure = plots.precision_recall(targets, probabilities, [f"kind {k}" for k in range(8)])
    (legend,) = figure.legends
    areas = [float(text.get_text().split()[-1]) for text in legend.get_texts()]
    assert len(areas) == plots.CURVES_SHOWN
    assert areas == sorted(areas)
    given = plots.precision_areas(targets, probabilities).values()
    assert areas == pytest.approx(list(given), abs=1e-4)


def test_precision_recall_without_photos_of_other_classes_has_no_curve() -> None:
    _, probabilities = answers(6, 2)
    figure = plots.precision_recall(np.zeros(6, np.int64), probabilities, ["a", "b"])
    assert len(figure.axes[0].lines) == 0
    figure.savefig(io.BytesIO())


def test_coverage_by_hand() -> None:
    confidence = np.array([0.9, 0.6, 0.8, 0.9])
    right = np.array([True, False, True, True])
    figure = plots.coverage(confidence, right, total=5, threshold=0.7)  # one of five is neither
    (axes,) = figure.axes
    curve, point = axes.lines
    assert curve.get_xdata().tolist() == [0.4, 0.6, 0.8]  # the two equally sure come together
    assert curve.get_ydata().tolist() == [1, 1, 0.75]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.6, 1)
    (legend,) = figure.legends
    assert "this run: 60.0 % answered, 100.00 % right" in [t.get_text() for t in legend.get_texts()]


def test_coverage_of_answers_that_are_all_equally_sure() -> None:
    figure = plots.coverage(np.ones(3), np.ones(3, bool), 3, threshold=0)
    assert figure.axes[0].get_xlim() == (0.9, 1)


def test_coverage_of_a_run_that_is_always_unsure_has_no_point() -> None:
    figure = plots.coverage(np.array([0.5, 0.6]), np.array([True, False]), 2, threshold=1.5)
    assert len(figure.axes[0].lines) == 1


def test_coverage_ends_where_all_that_are_not_neither_are_answered() -> None:
    generator = np.random.default_rng(0)
    confidence, right = generator.uniform(0.5, 1, 900), generator.random(900) < 0.9
    curve, point = plots.coverage(confidence, right, total=1000, threshold=0).axes[0].lines
    assert curve.get_xdata()[-1] == point.get_xdata()[0] == 0.9
    assert curve.get_ydata()[-1] == point.get_ydata()[0] == pytest.approx(right.mean())
    assert len(curve.get_xdata()) <= plots.POINTS


def test_novelty_draws_shares_and_says_what_lies_beyond() -> None:
    values = {"validation": np.array([0.01, 0.02, 0.03, 0.97]), "test": np.array([0.12, 0.6])}
    (axes,) = plots.novelty(values, 0.5).axes
    drawn = {str(patch.get_label()): patch.get_data() for patch in axes.patches}
    assert set(drawn) == {"validation: 25.0 % beyond", "test: 50.0 % beyond"}
    shares = drawn["validation: 25.0 % beyond"].values
    assert (shares[0], shares[-1], shares.sum()) == (0.75, 0.25, 1)
    (line,) = axes.lines
    assert line.get_xdata() == [0.5, 0.5]


def test_memory_by_phase_draws_what_was_measured() -> None:
    (axes,) = plots.memory_by_phase({"audit": 300_000_000, "training": 5_400_000_000}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.3, 5.4]
    assert [text.get_text() for text in axes.texts] == ["300.0 MB", "5.4 GB"]
    assert axes.get_xlabel() == "GB"


@pytest.mark.parametrize("draw", ["roc", "precision_recall", "coverage", "novelty"])
def test_lines_are_told_apart_in_grey(draw: str) -> None:
    """What differs in colour differs in dash or marker as well, or in brightness."""
    targets, probabilities = answers(120, 6)
    figure = {
        "roc": lambda: plots.roc(targets, probabilities, list("abcdef")),
        "precision_recall": lambda: plots.precision_recall(targets, probabilities, list("abcdef")),
        "coverage": lambda: plots.coverage(
            probabilities.max(axis=1), probabilities.argmax(axis=1) == targets, 120, 0.5
        ),
        "novelty": lambda: plots.novelty({"validation": targets / 6, "test": targets / 7}, 0.5),
    }[draw]()
    tta_views = [
        (str(line.get_linestyle()), str(line.get_marker()), round(brightness(line.get_color()), 1))
        for line in figure.axes[0].lines
        if not str(line.get_label()).startswith("_")  # the diagonal is told by its place
    ] + [
        (str(patch.get_linestyle()), "", round(brightness(patch.get_edgecolor()), 1))
        for patch in figure.axes[0].patches
    ]
    assert len(tta_views) == len(set(tta_views)) > 1


def test_time_by_phase_adds_what_the_phases_left_over() -> None:
    figure = plots.time_by_phase({"audit": 5.0, "training": 90.0, "total": 100.0})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [5, 90, 5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["audit", "training", "other"]
    assert words(figure) == ["5.0 s (5 %)", "1 min 30 s (90 %)", "5.0 s (5 %)"]
    assert axes.get_xlabel() == "Seconds"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (3661, "1 h 1 min")],
)
def test_times_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("number", [2, 3])
def test_names_of_classes_are_no_formulas(number: int) -> None:
    names = [r"$\frac$", "$", "a_$b^$"][:number]
    targets, probabilities = answers(60, number)
    confusion = np.full((number, number), 5).tolist()
    many = [*names, *(f"$^{k}$" for k in range(30))]
    for figure in (
        plots.confusion(confusion, names),
        plots.roc(targets, probabilities, names),
        plots.precision_recall(targets, probabilities, names),
        plots.confusion(np.ones((len(many), len(many)), int).tolist(), many),
    ):
        figure.savefig(io.BytesIO())


def test_a_class_that_begins_with_an_underscore_is_in_the_legend() -> None:
    targets, probabilities = answers(60, 3)
    for draw in (plots.roc, plots.precision_recall):
        figure = draw(targets, probabilities, ["_bg", "cat", "dog"])
        texts = [text.get_text().lstrip("\u200b") for text in figure.legends[0].get_texts()]
        assert sorted(text.partition(":")[0] for text in texts) == ["_bg", "cat", "dog"]


@pytest.mark.parametrize("number", [2, 3])
def test_names_of_classes_are_written_as_they_are(number: int) -> None:
    names = [r"$\frac$", "$", "a_$b^$"][:number]
    confusion = np.full((number, number), 5).tolist()
    ticks = plots.confusion(confusion, names).axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == names
