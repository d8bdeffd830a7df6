"""The stages of a run, one after the other, each kept when it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import keras

from app.core.config import Stage, TrainConfig
from app.core.console import say
from app.features.dataset import FeatureDataset
from app.network.classifier import open_layers
from app.training.checkpoint import KEEP_NOTHING, Checkpoint
from app.training.finetune import StageResult, train_stage
from app.training.linear_probe import STRENGTHS, LinearProbe, fit_linear_probe
from app.training.resume_callback import assign, copies_of, epochs_record
from app.training.tracking import Tracking

# What the head was solved with, and where the photos' features come from → nothing; once a run.
Review = Callable[[LinearProbe, FeatureDataset], None]


def no_review(*_: object) -> None:
    """Look at no photo."""


@dataclass(frozen=True)
class StageSchedule:
    """All that the stages of a run share.

    Attributes:
        config: of the run.
        model: the classifier, its backbone's weights set.
        source: of the stages' input.
        class_weight: what a training photo counts, by the number of its class.
        review: looks at all photos once the head is solved.
        checkpoint: keeps each stage's end; a stage that it holds is put back, not trained again.
        tracking: logs each stage when it has ended.
    """

    config: TrainConfig
    model: keras.Model
    source: FeatureDataset
    class_weight: dict[int, float] | None = None
    review: Review = no_review
    checkpoint: Checkpoint = KEEP_NOTHING
    tracking: Tracking | None = None

    def run(self) -> list[StageResult]:
        """Train all stages; ``model`` ends with the best weights of the last."""
        results = []
        for stage in self.config.stage_plan():
            results.append(self._ended(stage))
            if self.tracking:
                self.tracking.stage(stage.name, results[-1].history)
        return results

    def _ended(self, stage: Stage) -> StageResult:
        """Return a stage's result, and leave its layers open."""
        open_layers(self.model, stage)
        if kept := self.checkpoint.load(stage.name):
            assign(self.model.trainable_variables, kept.arrays)
            say(f"stage {stage.name} was trained before")
            return StageResult.of_values(kept.values)
        result = self._train(stage) if stage.opens else self._solve(stage)
        weights = copies_of(self.model.trainable_variables)
        self.checkpoint.save(stage.name, dataclasses.asdict(result), weights)
        self.checkpoint.remove(epochs_record(stage.name))
        return result

    def _train(self, stage: Stage) -> StageResult:
        return train_stage(
            self.source.part(stage),
            stage,
            self.source.batches(stage, "train", shuffle=True),
            self.source.batches(stage, "validation"),
            self.checkpoint,
            self.class_weight,
        )

    def _solve(self, stage: Stage) -> StageResult:
        """Solve the head, then look at all photos with what it was solved with."""
        strength = self.config.head_strength
        head = fit_linear_probe(
            self.model,
            stage,
            self.source.labelled("train"),
            self.source.labelled("validation"),
            STRENGTHS if strength is None else (strength,),
            self.class_weight,
        )
        self.review(head, self.source)
        return head.result
