"""How far fine-tuning goes: on from what paid, back to where it did not, within a budget of time.

A stage begins at a low rate below the solved head, which harms nothing. It pays if the log-loss on
validation falls by more than chance explains, photo by photo. Where it pays, a second, thorough
round follows (``app.training.second_round``), unless the log-loss on validation is already so low
that little is left to gain. Lower blocks are opened only where the blocks above them paid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from app.core.config import (
    SECOND_ROUND_EPOCHS,
    SECOND_ROUND_FROM,
    SECOND_ROUND_RATE,
    Stage,
)
from app.core.console import say
from app.evaluation.calibration import SMALL_VALIDATION
from app.training.stage_result import StageResult

SECOND = "-2"  # ends the name of a second round


def is_second(stage: Stage) -> bool:
    """Say whether a stage is a second round."""
    return stage.name.endswith(SECOND)


def next_stage(
    plan: Sequence[Stage],
    trained: Sequence[Stage],
    results: Sequence[StageResult],
    budget: float | None = None,
) -> Stage | None:
    """Return the stage that is trained next: one of the plan, or the last one again.

    Args:
        plan: the stages of the settings, the head first.
        trained: the stages so far.
        results: of these, in the same order.
        budget: minutes for all of fine-tuning; None: no limit.

    Returns:
        None at the end.
    """
    if not trained:
        return plan[0]
    last = trained[-1]
    first = last.name.removesuffix(SECOND)
    deeper = plan[[stage.name for stage in plan].index(first) + 1 :]
    stage = deeper[0] if deeper else None
    if last.opens and not is_second(last):
        if pays(results[-1]) and leaves_enough(results[-1]):
            stage = dataclasses.replace(
                last,
                name=last.name + SECOND,
                learning_rate=min(SECOND_ROUND_RATE * last.learning_rate, 1.0),
                epochs=SECOND_ROUND_EPOCHS * last.epochs,
            )
        elif stage and not pays(results[-1]):
            say(f"stage {stage.name} is not tried: what stage {last.name} brought may be chance")
            return None
    if stage and seconds_left(results, budget) <= 0:
        say(f"stage {stage.name} is not tried: the --budget of {budget:g} minutes is spent")
        return None
    return stage


def pays(result: StageResult) -> bool:
    """Say whether a stage lowered the log-loss on validation by more than chance explains."""
    return result.gain is not None and result.gain.pays


def leaves_enough(result: StageResult) -> bool:
    """Say whether a second round of a stage may gain something, and show it; say it if not."""
    if result.validation.n < SMALL_VALIDATION:
        return False
    if result.validation.log_loss < SECOND_ROUND_FROM:
        say(
            f"stage {result.name} has no second round: a validation log-loss of "
            f"{result.validation.log_loss:.4f}, below {SECOND_ROUND_FROM:g}, leaves little to gain"
        )
        return False
    return True


def seconds_left(results: Sequence[StageResult], budget: float | None) -> float:
    """Return the seconds that fine-tuning may still take; the head does not count."""
    spent = sum(result.seconds for result in results[1:])
    return float("inf") if budget is None else 60 * budget - spent


def report_gains(results: Sequence[StageResult]) -> None:
    """Say what fine-tuning brought, and whether the head alone would have done."""
    tuned = results[1:]
    if tuned and not any(map(pays, tuned)):
        seconds = sum(result.seconds for result in tuned)
        say(
            "the head alone would have done: what fine-tuning brought on validation may be chance; "
            f"--stages head saves {seconds:.0f} s of training and the features for it"
        )
