import itertools
import json
from dataclasses import asdict, replace
from typing import ClassVar

import keras
import msgspec
import numpy as np
import pytest

from app.core.config import STAGES, Stage
from app.core.errors import AppError
from app.core.run_metrics import ConfidenceLimit, CrossValidated, Promise
from app.data.manifest import Photo
from app.evaluation.calibration import DEFAULT_MIN_CONFIDENCE
from app.evaluation.metrics import probabilities_of, score
from app.features.batches import ViewBatches, targets_of
from app.training.checkpoint import Checkpoint
from app.training.finetune import improved, logits_of, train_stage
from app.training.fit_decision import FittedDecision, fit_decision
from app.training.stage_result import StageResult

PHOTOS = [Photo(None, f"{n}", f"{n:064x}", n % 2) for n in range(40)]  # type: ignore[arg-type]
STAGE = Stage(epochs=8, batch_size=8, learning_rate=0.3)


def fetch(views):
    """Two numbers a view: what the photo shows, and noise."""
    rows = []
    for view in views:
        noise = np.random.default_rng([int(view.photo.content, 16), view.number]).normal(size=2)
        rows.append([2 * (int(view.photo.content, 16) % 2) - 1 + 0.3 * noise[0], noise[1]])
    return np.array(rows, np.float32)


def batches(photos=PHOTOS, **options):
    options = {"views": 3, "batch_size": 8, "seed": 0, "shuffle": True, **options}
    return ViewBatches(photos, fetch, **options)


def network() -> keras.Model:
    """A head on a frozen layer that mixes its two inputs a little."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, trainable=False, name="frozen"),
            keras.layers.Dense(2, kernel_initializer="zeros", name="dense"),  # as in any backend
        ]
    )
    model.get_layer("frozen").set_weights([np.array([[1, 0.2], [0.1, 1]]), np.zeros(2)])
    return model


def test_an_epoch_shows_every_photo_once_and_all_views_come_in_turn():
    seen = []
    sequence = ViewBatches(
        PHOTOS,
        lambda views: seen.extend((v.photo.name, v.number) for v in views) or np.zeros(len(views)),
        views=3,
        batch_size=7,
        seed=0,
        shuffle=True,
    )
    for epoch in range(3):
        sequence.begin_epoch(epoch)
        start = len(seen)
        for number in range(len(sequence)):
            sequence[number]
        assert sorted(name for name, _ in seen[start:]) == sorted(p.name for p in PHOTOS)
    assert len(set(seen)) == 3 * len(PHOTOS)


def test_fresh_views_never_repeat():
    seen = []
    sequence = ViewBatches(
        PHOTOS[:2],
        lambda views: seen.extend((v.photo.name, v.number) for v in views) or np.zeros(len(views)),
        views=None,
        batch_size=2,
        seed=0,
        shuffle=True,
    )
    for epoch in range(5):
        sequence.begin_epoch(epoch)
        sequence[0]
    assert len(set(seen)) == 10


@pytest.mark.slow
def test_a_real_fit_asks_for_another_view_of_each_photo_in_each_epoch(uninterrupted):
    """Augmentation that freezes at the first epoch's views looks like training, and is worse."""
    cached: dict[int, set[tuple[str, int]]] = {}

    def recording(wanted):
        # Keras looks at some batches before the first epoch; asking twice is no matter here.
        cached.setdefault(train.epoch, set()).update((v.photo.name, v.number) for v in wanted)
        return fetch(wanted)

    train = ViewBatches(PHOTOS, recording, views=3, batch_size=8, seed=0, shuffle=True)
    stage = replace(STAGE, epochs=3, patience=3)
    assert train_stage(network(), stage, train, batches(shuffle=False)).epochs == 3
    fresh, result = uninterrupted[0].shown, uninterrupted[1]
    for shown, epochs in ((cached, 3), (fresh, result.epochs)):
        assert sorted(shown) == list(range(epochs))
        for photo in PHOTOS:
            numbers = [n for asked in shown.values() for name, n in asked if name == photo.name]
            assert sorted(numbers) == list(range(epochs))


def test_unshuffled_batches_are_the_photos_themselves_in_order():
    sequence = batches(shuffle=False, batch_size=16)
    sequence.begin_epoch(1)
    targets = np.concatenate([sequence[n][1] for n in range(len(sequence))])
    np.testing.assert_array_equal(targets, targets_of(PHOTOS))
    assert sequence._view_of(3) == 0


def test_a_stage_learns_and_reports_the_scores_of_the_weights_it_keeps():
    model = network()
    before = model.get_layer("frozen").get_weights()
    result = train_stage(model, STAGE, batches(), batches(shuffle=False))
    assert result.validation.accuracy == 1.0
    assert result.trainable_parameters == 6
    assert [row.epoch for row in result.history] == list(range(1, result.epochs + 1))
    best = min(row.validation_loss for row in result.history)
    assert best < result.history[0].validation_loss
    assert result.validation.log_loss == pytest.approx(best, rel=1e-4)
    assert logits_of(model, batches(shuffle=False)).shape == (40, 2)
    # What is frozen stays bit for bit.
    for old, new in zip(before, model.get_layer("frozen").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_best_epoch_lies_in_the_middle():
    """After a few epochs the fresh views say the opposite: what was learned is unlearned."""

    def turning(views):
        return fetch(views) * np.array([[-1 if view.number > 3 else 1] for view in views])

    train = ViewBatches(PHOTOS, turning, views=None, batch_size=8, seed=0, shuffle=True)
    model = network()
    result = train_stage(model, replace(STAGE, epochs=9, patience=9), train, batches(shuffle=False))
    assert result.epochs == 9, "it ran to the end"
    assert_the_best_is_kept(model, result)


def test_the_best_epoch_is_kept_where_training_stops_early(uninterrupted):
    network, result = uninterrupted
    assert result.epochs == result.kept_epoch + Network.stage.patience < Network.stage.epochs
    assert_the_best_is_kept(network.model, result)


def assert_the_best_is_kept(model, result):
    losses = [row.validation_loss for row in result.history]
    kept = result.kept_epoch
    assert 1 < kept < result.epochs
    assert losses[-1] > 1.5 * losses[kept - 1]
    held = score(targets_of(PHOTOS), probabilities_of(logits_of(model, batches(shuffle=False))))
    assert held.log_loss == pytest.approx(losses[kept - 1], rel=1e-4) == min(losses)
    assert result.validation == held


def test_a_stage_that_only_harms_changes_nothing():
    """With wrong labels in training every epoch makes validation worse: nothing may change."""
    wrong = [replace(photo, target=1 - photo.target) for photo in PHOTOS]
    model = network()
    model.get_layer("dense").set_weights([np.array([[-3.0, 3.0], [0.0, 0.0]]), np.zeros(2)])
    good = [w.copy() for w in model.get_weights()]
    result = train_stage(model, STAGE, batches(wrong), batches(shuffle=False))
    assert result.kept_epoch == 0
    assert result.epochs == STAGE.patience + 1  # the first, and those without a better one
    for old, new in zip(good, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_second_round_ends_after_a_first_epoch_that_brought_nothing(capsys):
    """Labels of validation turned round: what is learned harms at once."""
    turned = [replace(photo, target=1 - photo.target) for photo in PHOTOS]
    seen = {}
    for second_round in (False, True):
        result = train_stage(
            network(),
            STAGE,
            batches(),
            batches(turned, shuffle=False),
            second_round=second_round,
        )
        seen[second_round] = result.epochs
        assert result.kept_epoch == 0
    assert seen == {False: STAGE.patience + 1, True: 1}
    told = capsys.readouterr().err
    assert told.count("ends: its first epoch brought nothing") == 1
    good = train_stage(network(), STAGE, batches(), batches(shuffle=False), second_round=True)
    assert good.epochs > 1


def test_stages_open_ever_more_at_ever_lower_rates():
    stages = [stage for stage in STAGES.values() if stage.opens]
    for upper, lower in itertools.pairwise(stages):
        assert set(upper.opens) < set(lower.opens)
        assert upper.learning_rate > lower.learning_rate


class Sure:
    """A source of logits: 2 for the class that a photo shows, -2 for the other."""

    mistakes: ClassVar[dict[str, int]] = {"train": 10, "validation": 10}

    def part_with_embeddings(self, stage):
        logits = keras.Input((2,))
        return keras.Model(logits, [logits, keras.ops.abs(logits)])

    def batches(self, stage, split, *, view=0):
        wrong = self.mistakes[split]
        return ViewBatches(
            [
                replace(p, target=1 - p.target if n < wrong else p.target)
                for n, p in enumerate(PHOTOS)
            ],
            lambda views: np.array(
                [[-2, 2] if int(v.photo.content, 16) % 2 else [2, -2] for v in views],
                np.float32,
            ),
            views=1,
            batch_size=16,
            seed=0,
            shuffle=False,
        )


def decided(*results: StageResult, mirror: bool = False) -> FittedDecision:
    return fit_decision(Sure(), STAGE, results, mirror=mirror)  # type: ignore[arg-type]


def result_of(name: str, **values) -> StageResult:
    """Return the result of a stage that made no mistake on two photos."""
    scores = score(np.array([0, 1]), np.eye(2))
    usual = {"trainable_parameters": 6, "epochs": 1, "kept_epoch": 1, "seconds": 1.0}
    return StageResult(**{"name": name, "validation": scores, "history": (), **usual, **values})


def test_the_temperature_is_fitted_on_validation_and_test_is_not_asked_for():
    """Contract 7: equally sure logits, 10 of 40 mistakes."""
    decision = decided(result_of("head"))
    # A share of mistakes m is said truly by a difference of ln((1 - m) / m) between the logits.
    # The prior of fit_temperature draws it a little towards 1.
    assert decision.temperature == pytest.approx(4 / np.log(30 / 10), rel=0.12)
    np.testing.assert_allclose(decision.validation.confidence, 0.75, atol=0.03)
    assert decision.promise is None
    assert decision.thresholds.confidence == DEFAULT_MIN_CONFIDENCE


def test_the_priors_of_all_stages_count_once():
    """The head's temperature counts in the default run too, where the last stage has none."""
    alone = decided(result_of("head", temperature=0.1))
    tuned = decided(result_of("head", temperature=0.1), result_of("block5"))
    assert tuned.temperature == alone.temperature > decided(result_of("head")).temperature + 0.1


def test_where_validation_is_small_the_heads_answers_decide():
    """A network that changed since is as sure as the head was; nothing is promised of it."""
    promise = Promise(0.01, 0.9, 900, 900, 4, 0.0089)
    head = result_of("head", limit=ConfidenceLimit(0.0, promise), confidence=0.9)
    unchanged = result_of("block5", kept_epoch=0)
    for decision in (decided(head), decided(head, unchanged)):
        assert (decision.thresholds.confidence, decision.promise) == (0.0, promise)
        assert decision.temperature == 1  # the head was divided by its own
    for decision in (decided(head, result_of("block5")), decided(head, mirror=True)):
        assert decision.promise is None
        assert decision.thresholds.confidence == DEFAULT_MIN_CONFIDENCE
    np.testing.assert_allclose(decision.validation.confidence, 0.9, atol=1e-4)


def test_better_is_more_than_surer_and_more_than_chance():
    targets = np.arange(40) % 2
    generator = np.random.default_rng(0)
    logits = 2.0 * np.eye(2)[targets] + generator.normal(size=(40, 2))
    better = logits + 0.5 * np.eye(2)[targets]
    assert improved(logits, better, targets)
    assert not improved(logits, 3 * logits, targets)
    assert not improved(logits[:1], better[:1], targets[:1])
    chance = [
        improved(logits, logits + generator.normal(0, 0.1, (40, 2)), targets) for _ in range(100)
    ]
    assert np.mean(chance) < 0.15


def test_a_small_gain_on_few_validation_photos_changes_nothing(capsys):
    """Noise at a rate that moves next to nothing: of 240 photos such a gain is believed."""
    kept = {}
    for count in (40, 240):
        photos = (PHOTOS * 6)[:count]
        model = network()
        model.get_layer("dense").set_weights([np.array([[-2.0, 2.0], [0.5, -0.5]]), np.zeros(2)])
        stage = replace(STAGE, learning_rate=1e-4, epochs=1)
        result = train_stage(model, stage, batches(), batches(photos, shuffle=False))
        kept[count] = result.kept_epoch
    assert kept == {40: 0, 240: 1}
    assert "what it gains on 40 validation photos may be chance" in capsys.readouterr().err


def test_lower_blocks_move_at_a_lower_rate():
    """Adam's first step is as long as the rate, whatever the gradient."""
    keras.utils.set_random_seed(0)
    names = ("block4_conv1", "block5_conv1", "dense")
    layers = [keras.layers.Dense(2, name=name) for name in names]
    model = keras.Sequential([keras.Input((2,)), *layers])
    before = [layer.get_weights()[0] for layer in layers]
    stage = replace(
        STAGES["block4"], learning_rate=1e-2, lower_rate=0.1, batch_size=40, epochs=1, averaging=0
    )
    enough = batches(PHOTOS * 6, shuffle=False)  # of fewer such a small gain may be chance
    assert train_stage(model, stage, batches(batch_size=40), enough).kept_epoch == 1
    lower, top, head = (
        np.abs(layer.get_weights()[0] - old).mean()
        for layer, old in zip(layers, before, strict=True)
    )
    assert head == pytest.approx(top, rel=0.1) == pytest.approx(1e-2, rel=0.1)
    assert lower == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("averaging", [0.0, 2.0])
def test_what_is_kept_is_the_running_average_of_the_weights(averaging):
    """Five epochs of one step: within an epoch, JAX's weights cannot be looked at."""
    stage = replace(STAGE, epochs=5, averaging=averaging, learning_rate=0.02)
    model, passed = network(), []

    step = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: passed.append(model.get_layer("dense").get_weights())
    )
    fit = model.fit
    model.fit = lambda *args, callbacks, **options: fit(
        *args, callbacks=[step, *callbacks], **options
    )
    result = train_stage(model, stage, batches(batch_size=40), batches(shuffle=False))
    assert result.kept_epoch == len(passed) == 5
    average, momentum = passed[0], 1 - 1 / (1 + averaging)
    for weights in passed[1:]:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
    for kept, expected in zip(model.get_layer("dense").get_weights(), average, strict=True):
        np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)


def test_a_stage_that_diverges_changes_nothing_and_says_so(capsys):
    """NaN compares false with everything: the kept epoch must not be read off it."""

    def spoilt(views):
        return fetch(views) * (np.nan if spoiling.epoch else 1)

    model = network()
    before = [w.copy() for w in model.get_weights()]
    spoiling = ViewBatches(PHOTOS, spoilt, views=3, batch_size=8, seed=0, shuffle=True)
    result = train_stage(model, replace(STAGE, epochs=3), spoiling, batches(shuffle=False))
    assert result.kept_epoch == 0
    assert "changes nothing" in capsys.readouterr().err
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# ---- broken off and gone on with ----


class Network:
    """Two blocks at different rates, and a head: each with an optimiser of its own."""

    stage = replace(
        STAGES["block4"], epochs=9, batch_size=8, learning_rate=0.1, lower_rate=0.5, patience=2
    )

    def __init__(self, broken_off_in: int | None = None) -> None:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(3, name=n) for n in ("block4_conv1", "block5_conv1", "dense")]
        self.model = keras.Sequential([keras.Input((2,)), *layers])
        self.broken_off_in = broken_off_in
        self.shown: dict[int, set[tuple[str, int]]] = {}
        self.batches = ViewBatches(
            PHOTOS, self.fetch, views=None, batch_size=8, seed=0, shuffle=True
        )

    def fetch(self, views):
        """Views that unlearn what was learned, from the fifth epoch on."""
        if self.batches.epoch == self.broken_off_in:
            raise AppError("broken off")
        seen = self.shown.setdefault(self.batches.epoch, set())
        seen.update((view.photo.name, view.number) for view in views)
        return fetch(views) * np.array([[-1 if view.number > 3 else 1] for view in views])

    def train(self, folder) -> StageResult:
        validation = batches(shuffle=False)
        return train_stage(self.model, self.stage, self.batches, validation, Checkpoint(folder))


def without_seconds(result: StageResult) -> StageResult:
    rows = tuple(replace(row, seconds=0) for row in result.history)
    return replace(result, seconds=0, history=rows)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Network, StageResult]:
    network = Network()
    result = network.train(tmp_path_factory.mktemp("run") / "unfinished")
    assert 1 < result.kept_epoch < result.epochs < Network.stage.epochs, "early stopping counts"
    return network, result


SLOWLY = [pytest.param(epochs, marks=pytest.mark.slow) for epochs in [(0,), (1,), (3,), (4, 4, 5)]]


@pytest.mark.parametrize("epochs", [(1, 2), *SLOWLY])
def test_a_stage_goes_on_as_if_nothing_had_come_between(epochs, uninterrupted, tmp_path):
    """Contract 13: the same weights bit for bit, and the same figures, wherever it broke off."""
    for epoch in epochs:
        with pytest.raises(AppError, match="broken off"):
            Network(epoch).train(tmp_path)
    resumed = Network()
    result = resumed.train(tmp_path)
    # Keras looks at a batch before the first epoch.
    assert sorted(set(resumed.shown) - {0}) == list(range(max(epochs[-1], 1), result.epochs))
    assert without_seconds(result) == without_seconds(uninterrupted[1])
    expected = uninterrupted[0].model.get_weights()
    for weights, others in zip(resumed.model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weights, others)


def test_a_stage_that_had_ended_trains_no_more(uninterrupted, tmp_path):
    """Killed after the last epoch and before the result was kept.

    The same seed gives the same weights in the first place.
    """
    same = Network()
    assert without_seconds(same.train(tmp_path)) == without_seconds(uninterrupted[1])
    for weights, others in zip(
        same.model.get_weights(), uninterrupted[0].model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weights, others)
    again = Network(broken_off_in=1)
    result = again.train(tmp_path)
    assert without_seconds(result) == without_seconds(uninterrupted[1])
    expected = uninterrupted[0].model.get_weights()
    for weights, others in zip(again.model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weights, others)


@pytest.mark.slow
def test_the_state_of_another_batch_size_is_of_no_use(tmp_path):
    """Memory that does not suffice any more: the stage begins again, as it does without a state."""
    with pytest.raises(AppError, match="broken off"):
        Network(2).train(tmp_path)
    short, direct = Network(), Network()
    get = short.batches.fetch

    def with_room_for_four(views):
        if len(views) > 4:
            raise MemoryError
        return get(views)

    short.batches.fetch = with_room_for_four
    direct.batches.batch_size = 4
    results = [short.train(tmp_path), direct.train(tmp_path / "other")]
    assert without_seconds(results[0]) == without_seconds(results[1])


def test_a_result_comes_back_from_json(uninterrupted):
    limit = ConfidenceLimit(0.9, Promise(0.01, 0.9, 900, 800, 3, 0.0083))
    head = result_of("head", limit=limit, cross_validated=CrossValidated(9, 8, 8 / 9, 0.2))
    for result in (uninterrupted[1], head):
        assert msgspec.convert(json.loads(json.dumps(asdict(result))), StageResult) == result


def test_class_weights_weigh_training_and_not_validation():
    """One step from weights of 0: its loss is ln 2 times the mean weight of the batch's photos."""
    photos = [photo for photo in PHOTOS if photo.target == 0 or int(photo.name) % 8 == 1]
    weights = {0: 0.625, 1: 2.5}
    assert (len(photos), sum(photo.target for photo in photos)) == (25, 5)
    stage = replace(STAGE, epochs=1, learning_rate=1e-6)
    kinds = {0: photos[:1], 1: photos[1:2]}
    assert [kind[0].target for kind in kinds.values()] == [0, 1]
    for target, kind in kinds.items():
        validation = batches(photos, shuffle=False)
        result = train_stage(network(), stage, batches(kind), validation, class_weight=weights)
        assert result.history[0].loss == pytest.approx(weights[target] * np.log(2), rel=1e-4)
        assert result.history[0].validation_loss == pytest.approx(np.log(2), rel=1e-4)


@pytest.mark.slow
def test_class_weights_move_the_answers_towards_the_rare_class():
    """Photos that show nothing: the answer is how often a class comes, and how much it counts."""
    photos = [photo for photo in PHOTOS if photo.target == 0 or int(photo.name) % 8 == 1]

    def blank(views):
        return np.zeros((len(views), 2), np.float32)

    def probability(class_weight):
        model = network()
        logits = np.log(np.array([0.8, 0.2]))
        model.get_layer("dense").set_weights([np.zeros((2, 2)), logits])
        train = ViewBatches(photos, blank, views=1, batch_size=5, seed=0, shuffle=True)
        even = ViewBatches(PHOTOS, blank, views=1, batch_size=5, seed=0, shuffle=False)
        train_stage(
            model, replace(STAGE, learning_rate=0.1), train, even, class_weight=class_weight
        )
        return probabilities_of(logits_of(model, even))[0, 1]

    assert probability(None) == pytest.approx(0.2, abs=0.03)
    assert probability({0: 0.625, 1: 2.5}) == pytest.approx(0.5, abs=0.03)
