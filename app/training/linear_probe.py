"""Stage head: softmax regression on second-order features, a convex problem: solved, not trained.

The features are computed in ``app.network.bilinear_pooling``. The head is solved in the space that
``app.training.nystroem`` spans.

No rate, no epochs, no noise: one strength of regularisation after the other, from strong to weak,
until validation says that it is enough. The same features give the same head, whatever the seed.
Of more than 64 classes it is solved in the 64 directions in which the features vary most.

A small validation set tells too little. Strength, temperature and the limit for ``unsure`` are then
chosen by out-of-fold answers to the training and validation photos together: each photo is answered
by a head that did not learn from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.core.config import Stage
from app.core.console import progress_bar, say
from app.core.run_metrics import HistoryRow, Scores
from app.evaluation.calibration import SMALL_VALIDATION, fit_min_confidence, fit_temperature
from app.evaluation.cross_validation import (
    Fold,
    coefficients_of,
    cross_validated,
    make_folds,
    out_of_fold,
)
from app.evaluation.metrics import Floats, Ints, probabilities_of, score
from app.evaluation.ood import embeddings_of
from app.features.batches import BATCH, Float32s, LabelledMaps, numbered
from app.features.extractor import FeatureExtractor
from app.network.classifier import (
    MOST_FULL_CLASSES,
    has_projection,
    head_layers,
    pooling_part,
    set_head,
)
from app.network.whole_batches import compute_of
from app.training.nystroem import (
    LEADING,
    NystroemFeatures,
    choose_landmarks,
    each_pair_once,
    fit_nystroem,
)
from app.training.stage_result import StageResult

# scikit-learn's C, the inverse of the strength: the loss is a sum over photos, and coordinates have
# a mean squared length of 1. On 2,000 photos 10 to 100 did equally well (docs/experiments.md).
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-2, 8))
NO_LANDMARKS = np.empty(0, np.int64)
Count = Callable[[int], None]  # is told how many more photos are done
PROJECTED = 256  # photos are projected together: this halves the time
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class Projection:
    """Photos as the head and the OOD detector see them.

    Attributes:
        coordinates: ``(n, rank)``, in the space in which the head was solved.
        embeddings: float32 ``(n, channels)`` (``app.evaluation.ood``).
    """

    coordinates: Floats
    embeddings: Float32s


@dataclass(frozen=True)
class StrengthTrial:
    """One strength of regularisation: the answer ``x @ coefficients + intercept``, and its scores.

    Attributes:
        strength: scikit-learn's C.
        coefficients: ``(rank, classes)``, divided by ``temperature``.
        intercept: ``(classes,)``, likewise.
        temperature: fitted on the answers that it is judged by.
        train: scores on the training photos.
        judged: scores by which it is chosen: on the validation photos, or out-of-fold.
        out_of_fold: logits of the training and validation photos, divided by ``temperature``;
            None where the validation photos judge.
        seconds: that solving took.
    """

    strength: float
    coefficients: Floats
    intercept: Floats
    temperature: float
    train: Scores
    judged: Scores
    out_of_fold: Floats | None
    seconds: float


@dataclass(frozen=True)
class LinearProbe:
    """The solved head, and the photos as it was solved on them.

    Attributes:
        result: scores and history of the stage.
        out_of_fold: probabilities of the training photos, then of the validation photos, by heads
            of the chosen strength that did not learn from them; None where a class has too few
            photos for folds.
        train: the training photos.
        validation: the validation photos.
        basis: the space that the coordinates lie in.
        extractor: block5's maps → features.
    """

    result: StageResult
    out_of_fold: Floats | None
    train: Projection
    validation: Projection
    basis: NystroemFeatures
    extractor: FeatureExtractor

    def project(self, photos: LabelledMaps) -> Projection:
        """Return other photos in the same space."""
        return _project(self.basis, self.extractor, photos)


def fit_linear_probe(
    model: keras.Model,
    stage: Stage,
    train: LabelledMaps,
    validation: LabelledMaps,
    strengths: Sequence[float] = STRENGTHS,
    class_weight: dict[int, float] | None = None,
    *,
    cross_validate: bool = True,
) -> LinearProbe:
    """Set the dense layer of ``model`` to the solution that validates best.

    Method: L2-regularised multinomial logistic regression by L-BFGS (scikit-learn), its logits
    divided by a temperature: a strongly regularised head is often right, but its probabilities are
    too low, and the next stages should begin from calibrated ones. Strength and temperature are
    fitted on validation, or out-of-fold where validation has fewer than 230 photos.

    Args:
        model: a classifier; its backbone is not changed.
        stage: its ``patience`` ends the search, counted in strengths.
        train: the training photos themselves; random views of them hardly helped
            (docs/experiments.md).
        validation: the validation photos.
        strengths: to be tried, ascending.
        class_weight: the weight of each class in the training loss, by the class's number; all
            scores are without weights.
        cross_validate: whether photos are answered out of fold too. Not where blocks were trained
            on them: no fold is then new to the features.

    Returns:
        The scores, and what they were found with.
    """
    started = time.monotonic()
    part = pooling_part(model)
    channels = part.input.shape[-1]
    compute = compute_of(part)
    extractor = FeatureExtractor(lambda maps: [compute(maps)], BATCH, "the head's features")
    landmarks = choose_landmarks(train.targets)
    with progress_bar() as bar:
        total = len(train.targets) + len(validation.targets)
        task = bar.add_task("Second-order features", total=total)
        done = partial(bar.advance, task)
        features, embeddings = _features_and_embeddings(extractor, train, landmarks, channels, done)
        basis = fit_nystroem(features)
        if has_projection(model):
            basis = basis.leading(MOST_FULL_CLASSES)
        elif len(landmarks) < len(train.targets):
            basis = basis.leading(LEADING)
        del features  # 1.1 GB, unless they are the basis
        known = Projection(basis.landmark_coordinates, embeddings)
        x = _project(basis, extractor, train, landmarks, known, done)
        x_validation = _project(basis, extractor, validation, done=done)
    both = (
        np.concatenate([x.coordinates, x_validation.coordinates]),
        np.concatenate([train.targets, validation.targets]),
    )
    folds = make_folds(both[1], numbered(train, validation)) if cross_validate else []
    small = bool(folds) and len(validation.targets) < SMALL_VALIDATION
    search = Search(
        (x.coordinates, train.targets),
        (x_validation.coordinates, validation.targets),
        both,
        folds if small else [],
        class_weight,
    )
    trials: list[StrengthTrial] = []
    with progress_bar() as bar:
        task = bar.add_task("Stage head", total=len(strengths))
        for trial in search.solve(strengths):
            trials.append(trial)
            bar.advance(task)
            if len(trials) - _best(trials) >= stage.patience:
                break
        bar.update(task, completed=len(strengths))
    best = trials[_best(trials) - 1]
    _set_head(model, basis, best)
    logits = best.out_of_fold
    if logits is None and folds:
        solvers = [head_solver(best.strength, class_weight) for _ in folds]
        logits = out_of_fold(solvers, *both, folds) / best.temperature
    answers = None if logits is None else probabilities_of(logits)
    answered = probabilities_of(x_validation.coordinates @ best.coefficients + best.intercept)
    result = StageResult(
        name=stage.name,
        trainable_parameters=sum(layer.count_params() for layer in head_layers(model)),
        epochs=len(trials),
        kept_epoch=_best(trials),
        seconds=time.monotonic() - started,
        validation=score(validation.targets, answered),
        history=_history(stage.name, trials),
        temperature=best.temperature,
        cross_validated=None if answers is None else cross_validated(both[1], answers),
        limit=fit_min_confidence(answers, both[1]) if small and answers is not None else None,
        confidence=float(answered.max(axis=1).mean()),
    )
    return LinearProbe(result, answers, x, x_validation, basis, extractor)


def _set_head(model: keras.Model, basis: NystroemFeatures, trial: StrengthTrial) -> None:
    """Set the layers from the features to the logits to what was solved."""
    if not has_projection(model):
        set_head(model, *basis.dense(trial.coefficients, trial.intercept))
        return
    # The coordinates themselves become a layer. There are 64 of them, of few photos less.
    rank = len(trial.coefficients)
    chosen = np.eye(rank, MOST_FULL_CLASSES)
    projection, bias = basis.dense(chosen, np.zeros(MOST_FULL_CLASSES))
    kernel = chosen.T @ trial.coefficients
    set_head(model, kernel, trial.intercept + bias @ kernel, projection)


def head_solver(
    strength: float, class_weight: dict[int, float] | None = None
) -> LogisticRegression:
    """Return what solves the head for one strength; also for ``benchmarks.labelling``.

    Args:
        strength: scikit-learn's C.
        class_weight: by the class's number.
    """
    return LogisticRegression(
        C=strength,
        class_weight=class_weight,
        tol=TOLERANCE,
        max_iter=ITERATIONS,
        warm_start=True,
    )


def _batches(
    extractor: FeatureExtractor, photos: LabelledMaps, numbers: NDArray[np.int64]
) -> Iterator[tuple[Float32s, Float32s]]:
    """Yield what the head sees of photos ``(≤ BATCH, side²)`` and their embeddings."""
    for maps in photos.maps(numbers.tolist()):
        for start in range(0, len(maps), BATCH):
            some = maps[start : start + BATCH]
            yield np.asarray(extractor(some)[0], np.float32), embeddings_of(some)


def _features_and_embeddings(
    extractor: FeatureExtractor,
    photos: LabelledMaps,
    landmarks: NDArray[np.int64],
    channels: int,
    count: Count,
) -> tuple[Float32s, Float32s]:
    """Return the landmarks' features, each pair once, and their embeddings."""
    # One array from the start: to join batches would take as much again.
    features = np.empty((len(landmarks), channels * (channels + 1) // 2), np.float32)
    embeddings = np.empty((len(landmarks), channels), np.float32)
    done = 0
    for some_features, some_embeddings in _batches(extractor, photos, landmarks):
        rows = slice(done, done + len(some_features))
        each_pair_once(some_features, features[rows])
        embeddings[rows] = some_embeddings
        done += len(some_features)
        count(len(some_features))
    return features, embeddings


def _project(
    basis: NystroemFeatures,
    extractor: FeatureExtractor,
    photos: LabelledMaps,
    landmarks: NDArray[np.int64] = NO_LANDMARKS,
    known: Projection | None = None,
    done: Count | None = None,
) -> Projection:
    """Return all photos in the space of ``basis``; what is ``known`` of landmarks is copied.

    256 photos are projected together: with smaller groups the landmarks are read more often.
    """
    count = len(photos.targets)
    coordinates = np.empty((count, basis.landmark_coordinates.shape[1]))
    embeddings = np.empty((count, basis.side), np.float32)
    if known is not None:
        coordinates[landmarks], embeddings[landmarks] = known.coordinates, known.embeddings
    others = np.setdiff1d(np.arange(count), landmarks)
    # One room for all: fresh memory for each group would take longer than to compute it.
    room = np.empty((min(PROJECTED, len(others)), basis.landmarks.shape[1]), np.float32)
    start = filled = 0
    for features, some_embeddings in _batches(extractor, photos, others):
        end = filled + len(features)
        embeddings[others[start + filled : start + end]] = some_embeddings
        each_pair_once(features, room[filled:end])
        filled = end
        if filled + BATCH > PROJECTED or start + filled == len(others):
            coordinates[others[start : start + filled]] = basis.coordinates_of_pairs(room[:filled])
            if done is not None:
                done(filled)
            start, filled = start + filled, 0
    return Projection(coordinates, embeddings)


@dataclass(frozen=True)
class Search:
    """What the search for the strength learns from, and is judged by.

    Attributes:
        train: coordinates ``(n, rank)`` and class numbers ``(n,)`` of the training photos.
        validation: the same of the validation photos.
        both: the same of both, one after the other.
        folds: of ``both``; empty where the validation photos judge.
        class_weight: by the class's number.
    """

    train: tuple[Floats, Ints]
    validation: tuple[Floats, Ints]
    both: tuple[Floats, Ints]
    folds: Sequence[Fold]
    class_weight: dict[int, float] | None

    def solve(self, strengths: Sequence[float]) -> Iterator[StrengthTrial]:
        """Yield the solutions for ascending strengths."""
        (x, targets), (x_validation, judged_targets) = self.train, self.validation
        # One for each fold: each begins from its own solution, never from that of another fold.
        solver, *others = (
            head_solver(strengths[0], self.class_weight) for _ in range(1 + len(self.folds))
        )
        for strength in strengths:
            started = time.monotonic()
            for each in (solver, *others):
                each.set_params(C=strength)
            coefficients, intercept = coefficients_of(solver.fit(x, targets))
            if self.folds:
                logits = out_of_fold(others, *self.both, self.folds)
                judged_targets = self.both[1]
            else:
                logits = x_validation @ coefficients + intercept
            temperature = fit_temperature(logits, judged_targets)
            logits = logits / temperature
            coefficients, intercept = coefficients / temperature, intercept / temperature
            trial = StrengthTrial(
                strength,
                coefficients,
                intercept,
                temperature,
                score(targets, probabilities_of(x @ coefficients + intercept)),
                score(judged_targets, probabilities_of(logits)),
                logits if self.folds else None,
                time.monotonic() - started,
            )
            judge = "out-of-fold" if self.folds else "validation"
            say(
                f"head, C {strength:.2g}: loss {trial.train.log_loss:.4f}, {judge} log-loss "
                f"{trial.judged.log_loss:.4f}, accuracy {trial.judged.accuracy:.4f}"
            )
            yield trial


def _best(trials: Sequence[StrengthTrial]) -> int:
    """Return the number (from 1) of the trial with the lowest log-loss."""
    return 1 + int(np.argmin([trial.judged.log_loss for trial in trials]))


def _history(stage: str, trials: Sequence[StrengthTrial]) -> tuple[HistoryRow, ...]:
    """Return the trials as rows of ``history.csv``: their number stands in the column ``epoch``."""
    return tuple(
        HistoryRow(
            stage=stage,
            epoch=number,
            loss=trial.train.log_loss,
            accuracy=trial.train.accuracy,
            validation_loss=trial.judged.log_loss,
            validation_accuracy=trial.judged.accuracy,
            learning_rate=0.0,
            seconds=trial.seconds,
        )
        for number, trial in enumerate(trials, start=1)
    )
