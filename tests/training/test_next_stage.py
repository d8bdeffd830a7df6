"""How far fine-tuning goes: on from what paid, no further than the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.core.config import SECOND_ROUND_FROM, STAGES, Stage
from app.core.run_metrics import StageGain
from app.evaluation.metrics import score
from app.evaluation.paired_tests import stage_gain
from app.training.schedule import next_stage, report_gains
from app.training.stage_result import StageResult

PLAN = tuple(STAGES.values())


def walk(paying: set[str], plan: tuple[Stage, ...] = PLAN, **options: float) -> list[Stage]:
    """Return the stages of a run in which those named pay; each takes a minute."""
    trained: list[Stage] = []
    results: list[StageResult] = []
    while stage := next_stage(plan, trained, results, **options):
        trained.append(stage)
        results.append(result_of(stage.name, 0.01 if stage.name in paying else -0.01))
    report_gains(results)
    return trained


def result_of(name: str, low: float, photos: int = 419, log_loss: float = 0.5) -> StageResult:
    scores = replace(score(np.array([0, 1]), np.eye(2)), n=photos, log_loss=log_loss)
    gain = None if name == "head" else StageGain(0.0, (-0.1, 0.1), 0.02, (low, 0.03))
    return StageResult(
        name=name,
        trainable_parameters=6,
        epochs=2,
        kept_epoch=1,
        seconds=60.0,
        validation=scores,
        history=(),
        gain=gain,
    )


def names(*paying: str, **options: float) -> list[str]:
    return [stage.name for stage in walk(set(paying), **options)]


def test_a_stage_that_pays_has_a_second_round_at_a_higher_rate() -> None:
    _, first, second = walk({"block5", "block5-2"}, PLAN[:2])
    assert [first.name, second.name] == ["block5", "block5-2"]
    assert second.learning_rate == pytest.approx(6 * first.learning_rate)
    assert second.epochs == 2 * first.epochs
    same = {"name": "block5", "learning_rate": first.learning_rate, "epochs": first.epochs}
    assert replace(second, **same) == first == STAGES["block5"]  # type: ignore[arg-type]


def test_few_validation_photos_do_not_ask_for_a_second_round() -> None:
    results = [result_of("head", 0.0, 100), result_of("block5", 0.01, 100)]
    assert next_stage(PLAN[:2], PLAN[:2], results) is None


def test_no_second_round_where_little_is_left_to_gain(capsys) -> None:
    def after(log_loss: float, plan: tuple[Stage, ...] = PLAN[:2]) -> Stage | None:
        results = [result_of("head", 0.0), result_of("block5", 0.01, log_loss=log_loss)]
        return next_stage(plan, PLAN[:2], results)

    second = after(SECOND_ROUND_FROM)
    assert second is not None
    assert second.name == "block5-2"
    assert capsys.readouterr().err == ""
    assert after(SECOND_ROUND_FROM - 1e-6) is None
    assert "stage block5 has no second round: a validation log-loss of" in capsys.readouterr().err
    assert after(0.015, PLAN) == STAGES["block4"]  # what paid may pay deeper down


def test_lower_blocks_are_opened_only_where_those_above_paid(capsys) -> None:
    assert names() == ["head", "block5"]
    told = capsys.readouterr().err
    assert "stage block4 is not tried" in told
    assert "the head alone would have done" in told
    assert names("block5") == ["head", "block5", "block5-2", "block4"]
    assert names("block5", "block4") == ["head", "block5", "block5-2", "block4", "block4-2"]
    assert "the head alone" not in capsys.readouterr().err


def test_the_head_alone_needs_no_words(capsys) -> None:
    assert [stage.name for stage in walk(set(), PLAN[:1])] == ["head"]
    assert capsys.readouterr().err == ""


def test_the_budget_ends_it(capsys) -> None:
    assert names("block5", budget=1.5) == ["head", "block5", "block5-2"]
    assert "stage block4 is not tried: the --budget of 1.5 minutes is spent" in (
        capsys.readouterr().err
    )


def test_what_a_stage_brought_is_compared_photo_by_photo() -> None:
    targets = np.arange(200) % 2
    right = np.eye(2)[targets]
    before = 0.5 + 0.2 * (right - 0.5)
    gain = stage_gain(before, 0.5 + 0.4 * (right - 0.5), targets)
    assert gain.pays
    assert gain.log_loss == pytest.approx(np.log(0.7 / 0.6))
    assert gain.accuracy == 0
    low, high = gain.accuracy_interval_95
    assert low < 0 < high
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, (200, 1)) * [1, -1]
    assert not stage_gain(before, before + noise, targets).pays
    assert not stage_gain(before, before, targets).pays
