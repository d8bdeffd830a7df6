"""How far fine-tuning goes: on from what paid, back to where it did not, within a budget of time.

A stage begins at a low rate, which harms nothing. Where it pays, it is trained again from there at
three times the rate, and so on (warm restarts: Loshchilov & Hutter 2017, here with a rising rate).
It pays if the log-loss on validation falls by more than chance explains, photo by photo. Lower
blocks are opened only where the blocks above them paid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from app.core.config import Stage
from app.core.console import say
from app.training.stage_result import StageResult

GROWTH = 3.0  # of the rate, from one round to the next
HIGHEST_RATE = 3e-4  # a block's weights are lost beyond it


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
        results: of these.
        budget: minutes for all of fine-tuning; None: no limit.

    Returns:
        None at the end.
    """
    if not trained:
        return plan[0]
    last = trained[-1]
    deeper = plan[[stage.name for stage in plan].index(_planned(last.name)) + 1 :]
    rounds = [each for each in results if last.opens and _planned(each.name) == _planned(last.name)]
    rate = GROWTH * last.learning_rate
    stage = deeper[0] if deeper else None
    if rounds and pays(rounds[-1]) and rate <= HIGHEST_RATE:
        name = f"{_planned(last.name)}-{len(rounds) + 1}"
        stage = dataclasses.replace(last, name=name, learning_rate=rate)
    elif stage and rounds and not any(map(pays, rounds)):
        say(f"stage {stage.name} is not tried: what stage {last.name} brought may be chance")
        return None
    if stage and seconds_left(results, budget) <= 0:
        say(f"stage {stage.name} is not tried: the --budget of {budget:g} minutes is spent")
        return None
    return stage


def _planned(name: str) -> str:
    """Return the name that a stage has in the plan."""
    return name.partition("-")[0]


def pays(result: StageResult) -> bool:
    """Say whether a stage lowered the log-loss on validation by more than chance explains."""
    return result.gain is not None and result.gain.pays


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
