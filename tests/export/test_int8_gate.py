"""The gate of the int8 model, by hand."""

import numpy as np
import pytest

from app.evaluation.decision import Thresholds
from app.evaluation.prediction_set import PredictionSet
from app.export.int8_gate import (
    Int8Gate,
    changed_far_from_lines,
    in_doubt,
    int8_gate,
)

N = 1000


def predicted(probabilities, novelty, targets=None) -> PredictionSet:
    n = len(probabilities)
    targets = np.zeros(n, np.int32) if targets is None else targets
    names = tuple(f"{number}.jpg" for number in range(n))
    return PredictionSet(names, targets, np.asarray(probabilities), np.asarray(novelty))


def said(sure: float = 0.999, novelty: float = 0.05, n: int = N) -> PredictionSet:
    return predicted(np.tile([sure, 1 - sure], (n, 1)), np.full(n, novelty))


def compared(int8: PredictionSet, float32: PredictionSet, min_confidence=0.0) -> Int8Gate:
    """Compare as ``app.export.int8_export`` does."""
    thresholds = Thresholds(min_confidence)
    asked = in_doubt(int8, thresholds)
    known = int8.replaced(asked, float32.chosen(asked))
    if changed_far_from_lines(int8, known, thresholds):
        asked, known = np.arange(len(int8.names)), float32
    return int8_gate(int8, known, len(asked), thresholds)


@pytest.mark.parametrize(
    ("wrong", "strange", "fault"),
    [
        (0, 0, ""),
        (2, 0, ""),  # of 1,000: at the bar
        (3, 0, "accuracy lost: 0.0030"),
        (0, 5, ""),
        (0, 6, "labels changed: 0.0060"),
    ],
)
def test_each_bar(wrong, strange, fault):
    int8, float32 = said(), said()
    float32.probabilities[:20] = int8.probabilities[:20] = [0.6, 0.4]
    int8.probabilities[:wrong] = [0.45, 0.55]
    int8.novelty[20 : 20 + strange] = 0.51
    float32.novelty[20 : 20 + strange] = 0.49
    gate = compared(int8, float32)
    assert gate.asked == 20 + strange
    assert gate.labels_changed == pytest.approx((wrong + strange) / N)
    assert gate.fault().startswith(fault)
    assert bool(gate.fault()) == bool(fault)


def test_the_bound_of_changed_answers_is_stated():
    """No change among 600: 3 of 600 at most ("rule of three"); among 20 it says next to nothing."""
    bounds = [compared(said(n=n), said(n=n)).changed_at_most for n in (20, 600)]
    np.testing.assert_allclose(bounds, [0.139, 0.005], atol=5e-4)


def test_refusals_may_not_be_others():
    """As many as before, but not the same photos."""
    int8, float32 = said(), said()
    int8.novelty[:6] = float32.novelty[6:12] = 0.51
    float32.novelty[:6] = int8.novelty[6:12] = 0.49
    gate = compared(int8, float32)
    assert gate.refusals_changed == 0
    assert gate.fault() == "labels changed: 0.0120 of 1000 photos, more than 0.005"


def test_unsure_is_a_label_too():
    int8, float32 = said(0.97), said(0.96)
    gate = compared(int8, float32, min_confidence=0.965)
    assert gate.asked == N
    assert "labels changed: 1.0000" in gate.fault()
    assert compared(int8, float32).asked == 0


def test_a_change_far_from_every_line_has_float32_asked_about_all():
    int8, float32 = said(), said()
    int8.probabilities[0] = [0.85, 0.15]  # 1.7 from the line, of 2
    float32.probabilities[0] = [0.4, 0.6]
    float32.probabilities[500] = [0.3, 0.7]  # which int8 was sure of
    gate = compared(int8, float32)
    assert (gate.asked, gate.labels_changed) == (N, 0.002)
    assert gate.measured


def test_lost_calibration_is_found():
    targets = np.arange(N, dtype=np.int32) % 2
    sure = np.where(targets[:, None] == [0, 1], 0.7, 0.3)
    sure[:300] = sure[:300, ::-1]  # right as often as it says
    int8 = predicted(0.5 + 0.9 * (sure - 0.5), np.zeros(N), targets)
    float32 = predicted(sure, np.zeros(N), targets)
    assert "calibration error added: 0.02" in compared(int8, float32).fault()


def test_numbers_that_are_none_and_too_few_photos_do_not_pass():
    for broken in (said(novelty=np.nan), said(np.nan)):
        gate = compared(broken, said())
        assert "accuracy lost: nan" in gate.fault()
        assert not gate.measured  # else metrics.json could not be written
    broken = said(0.6)  # all in doubt, and float32 is broken
    assert compared(broken, said(0.6, np.nan)).fault()
    few = said(0.6, 0.0, n=4)
    gate = compared(few, few)
    assert gate.fault() == "4 photos are too few to tell, 20 are needed"
