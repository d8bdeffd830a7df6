"""The records of a run's numbers: ``metrics.json``, and a row per epoch in ``history.csv``.

Names that a file has besides are ignored; those with a default may be missing, as in older runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from app.core.atomic_files import read_rows, write_rows


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How good answers on ``n`` photos are.

    Attributes:
        n: number of photos.
        accuracy: share of right answers.
        accuracy_interval_95: Wilson's interval of that share (Wilson 1927).
        log_loss: mean of -ln(probability of the true class), natural logarithm.
        brier: mean squared error of the probabilities, 0 to 1 (Brier 1950; summed over classes,
            halved for two of them).
        ece: expected calibration error, ``app.evaluation.metrics.expected_calibration_error``.
        ece_bias: what that estimate would show on average if the answers were calibrated perfectly
            (``app.evaluation.metrics.calibration_bias``).
        roc_auc: area under the ROC curve; for more than two classes the mean over each class
            against the rest. None when a class has no photo here.
        confusion: ``confusion[i][j]`` photos of class i were answered with class j.
    """

    n: int
    accuracy: float
    accuracy_interval_95: tuple[float, float]
    log_loss: float
    brier: float
    ece: float
    ece_bias: float | None = None
    roc_auc: float | None
    confusion: list[list[int]]


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose confidence lies from ``low`` to below ``high``; never an empty bin.

    Attributes:
        low: lower edge; confidence is the probability of the answer given.
        high: upper edge; the last bin, which ends at 1, includes it.
        count: number of answers.
        confidence: their mean.
        right: how many of them are right.
    """

    low: float
    high: float
    count: int
    confidence: float
    right: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.count


@dataclass(frozen=True)
class AnswerCounts:
    """How many photos got which answer: the right class, a wrong one, ``neither``, ``unsure``."""

    right: int
    wrong: int
    neither: int
    unsure: int

    @property
    def given(self) -> int:
        """How many photos got a class."""
        return self.right + self.wrong


@dataclass(frozen=True, kw_only=True)
class SplitMetrics(Scores):
    """How photos of a split were answered, the scores of the likeliest class, and their bins.

    Attributes:
        counts: of the answers that a user reads.
        reliability: bins of confidence, for the likeliest class.
    """

    counts: AnswerCounts
    reliability: tuple[ReliabilityBin, ...] = ()


@dataclass(frozen=True)
class AnsweredBy:
    """The model that answered: its file in the bundle, its arithmetic, and what ran it."""

    file: str
    precision: str
    engine: str = "onnxruntime"


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold answers to all training and validation photos: none was learned from.

    Attributes:
        photos: how many were answered.
        right: how many of them rightly, by the likeliest class.
        accuracy: the share of these.
        log_loss: mean of -ln(probability of the true class), natural logarithm.
    """

    photos: int
    right: int
    accuracy: float
    log_loss: float


@dataclass(frozen=True)
class Promise:
    """At most ``max_wrong`` of the answers that are given are wrong, with ``confidence``.

    Attributes:
        max_wrong: a share, 0 to 1.
        confidence: the share of runs in which the promise holds, at least.
        photos: that were answered to find this out.
        given: how many of them got a class at the limit.
        wrong: how many of these answers were wrong.
        bound: the Clopper-Pearson upper bound of the share of wrong ones; at most ``max_wrong``.
    """

    max_wrong: float
    confidence: float
    photos: int
    given: int
    wrong: int
    bound: float


@dataclass(frozen=True)
class ConfidenceLimit:
    """The confidence below which an answer is unsure, and what that promises; None: nothing."""

    value: float
    promise: Promise | None


@dataclass(frozen=True)
class StageGain:
    """What a stage brought on validation, photo by photo, less what was there before it.

    Attributes:
        accuracy: how much higher it is.
        accuracy_interval_95: of that difference (``app.evaluation.paired_tests.paired_interval``).
        log_loss: how much lower it is: above 0 is better, as for ``accuracy``.
        log_loss_interval_95: of that difference (the paired bootstrap).
    """

    accuracy: float
    accuracy_interval_95: tuple[float, float]
    log_loss: float
    log_loss_interval_95: tuple[float, float]

    @property
    def pays(self) -> bool:
        """Say whether the log-loss fell by more than chance explains."""
        return self.log_loss_interval_95[0] > 0


@dataclass(frozen=True, kw_only=True)
class StageMetrics:
    """What a stage did.

    Attributes:
        name: of the stage.
        trainable_parameters: how many numbers it trained.
        epochs: run; of the linear probe, strengths of regularisation tried.
        kept_epoch: the one whose weights were kept, from 1; 0: the weights as they were before.
        seconds: that it took.
        validation: scores with the weights that were kept.
        temperature: that the solved head was divided by; 1 for other stages.
        cross_validated: of the head; None for other stages, and where a class has too few photos
            for folds.
        gain: of the other stages; None for the head, and in older runs.
    """

    name: str
    trainable_parameters: int
    epochs: int
    kept_epoch: int
    seconds: float
    validation: Scores
    temperature: float = 1.0
    cross_validated: CrossValidated | None = None
    gain: StageGain | None = None


@dataclass(frozen=True)
class PairedGain:
    """The same validation photos before corrections and after, judged by the corrected labels.

    Attributes:
        before: the name of the run that is compared with.
        photos: how many validation photos both runs have.
        right_before: how many of them it answers rightly, by the likeliest class.
        right_after: how many this run does.
        gain: the difference photo by photo; above 0 is better.
    """

    before: str
    photos: int
    right_before: int
    right_after: int
    gain: StageGain


@dataclass(frozen=True, kw_only=True)
class CorrectionMetrics:
    """What a person had corrected (``--corrections``), and what it changed.

    Attributes:
        relabelled: photos that were of training or validation and got another class.
        neither: those that became photos of none of the classes.
        left_out: those that were left out.
        right: those whose label was confirmed.
        test: test photos that were marked; their labels stay.
        others: decisions that do not count, since their files are gone, renamed or changed.
        validation: what the corrections changed there; None where there is no run to compare with,
            or it has other classes.
    """

    relabelled: int
    neither: int
    left_out: int
    right: int
    test: int
    others: int
    validation: PairedGain | None = None


@dataclass(frozen=True)
class NeitherMetrics:
    """Photos of one kind that show none of the classes.

    Attributes:
        learned: training photos, from which the model has learned.
        held_out: photos of validation and test, from which it has not.
        refused: how many of those held out are answered ``neither`` by the exported model.
    """

    learned: int
    held_out: int
    refused: int


@dataclass(frozen=True, kw_only=True)
class Int8Metrics:
    """Why there is no int8 model (empty: there is one), and what ``Int8Gate`` measured, if it did.

    The figures are those of ``app.export.int8_gate.Int8Gate``.
    """

    why_not: str
    photos: int | None = None
    asked: int | None = None
    accuracy_lost: float | None = None
    labels_changed: float | None = None
    calibration_lost: float | None = None
    refusals_changed: float | None = None
    changed_at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The contents of ``metrics.json``.

    Attributes:
        classes: names in the order of the probabilities.
        photos: number of used photos by split.
        class_weights: what a training photo of each class counted; None where all count alike.
        stages: what each stage did, in their order.
        validation: scores of the split that choices were made on, as training computed them.
        test: scores of the split that was answered once, at the end, by the exported model.
        test_without_excluded: the same without the test photos that ``--exclude-from-test``
            excludes; None where there are none.
        test_corrected: the same with the labels that corrections give, without the test photos that
            they leave out or call neither; None where they change none.
        corrections: what was corrected; None where nothing was.
        answered_by: the model that answered test; None in older runs.
        neither: photos that show none of the classes, by kind (the name of the first folder below
            ``neither/``, or empty); empty where none were given.
        temperature: which the logits were divided by.
        min_confidence: the probability below which an answer is unsure.
        promise: what holds of the answers given from there on; None where nothing is promised,
            and in older runs.
        parity: what the export's gate measured (``app.export.bundle_writer.Parity``).
        int8: of the int8 model; None in older runs.
        seconds: by phase, and ``total``.
        memory: bytes by phase (``app.core.profiling.Clock``).
        device: that trained.
        backend: of Keras.
        precision: arithmetic of trained layers.
        frozen_precision: arithmetic of frozen layers.
        frozen_engine: what computed them (``app.features.extractor.engine``); empty in older runs.
        cache: ``disk`` or ``off``.
        views: of each training photo; None: a fresh one in every epoch.
        versions: of Python and libraries.
        finished: the time (UTC) in ISO 8601.
    """

    classes: tuple[str, ...]
    photos: dict[str, int]
    class_weights: dict[str, float] | None = None
    stages: tuple[StageMetrics, ...]
    validation: SplitMetrics
    test: SplitMetrics
    test_without_excluded: SplitMetrics | None = None
    test_corrected: SplitMetrics | None = None
    corrections: CorrectionMetrics | None = None
    answered_by: AnsweredBy | None = None
    neither: dict[str, NeitherMetrics] = field(default_factory=dict)
    temperature: float
    min_confidence: float
    promise: Promise | None = None
    parity: Mapping[str, float] = field(default_factory=dict)
    int8: Int8Metrics | None = None
    seconds: dict[str, float]
    memory: dict[str, int] = field(default_factory=dict)
    device: str
    backend: str
    precision: str
    frozen_precision: str = ""
    frozen_engine: str = ""
    cache: str
    views: int | None = None
    versions: dict[str, str]
    finished: str

    @property
    def cross_validated(self) -> CrossValidated | None:
        """The head's out-of-fold answers."""
        return self.stages[0].cross_validated if self.stages else None


@dataclass(frozen=True)
class MadeWith:
    """The part of ``metrics.json`` that says when and with what a run was made."""

    backend: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    finished: str = ""


@dataclass(frozen=True)
class HistoryRow:
    """One epoch; of the solved head, one strength of regularisation.

    Attributes:
        stage: the name of its stage.
        epoch: its number in the stage, from 1.
        loss: log-loss (natural logarithm) on the training photos, while it trains.
        accuracy: on the training photos, likewise.
        validation_loss: log-loss on the validation photos, of the head at its temperature, of other
            stages before calibration. Of the head, where validation is small, it is that of
            the out-of-fold answers by which the strength is chosen.
        validation_accuracy: likewise.
        learning_rate: the last of the epoch; 0 for the head.
        seconds: that it took.
    """

    stage: str
    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


def write_history(rows: Iterable[HistoryRow], path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    write_rows(map(asdict, rows), [field.name for field in fields(HistoryRow)], path)


def read_history(path: Path) -> list[HistoryRow]:
    """Read what ``write_history`` wrote; raise ``ValueError`` for anything else."""
    import msgspec

    return msgspec.convert(read_rows(path), list[HistoryRow], strict=False)  # numbers from text
