import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest

from app.config import STAGES, Stage
from app.photos import Photo
from app.training import ViewBatches, logits_of, targets_of, train_stage

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
    keras.utils.set_random_seed(0)
    frozen = keras.layers.Dense(2, trainable=False, name="frozen")
    return keras.Sequential([keras.Input((2,)), frozen, keras.layers.Dense(2, name="dense")])


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
    for _ in range(3):
        start = len(seen)
        for number in range(len(sequence)):
            sequence[number]
        assert sorted(name for name, _ in seen[start:]) == sorted(p.name for p in PHOTOS)
        sequence.on_epoch_end()
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
    for _ in range(5):
        sequence[0]
        sequence.on_epoch_end()
    assert len(set(seen)) == 10


def test_unshuffled_batches_are_the_photos_themselves_in_order():
    sequence = batches(shuffle=False, batch_size=16)
    sequence.on_epoch_end()
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


def test_the_best_weights_are_kept_not_the_last():
    """With wrong labels in training every epoch makes validation worse: nothing may change."""
    wrong = [replace(photo, target=1 - photo.target) for photo in PHOTOS]
    model = network()
    train_stage(model, STAGE, batches(), batches(shuffle=False))
    good = [w.copy() for w in model.get_weights()]
    result = train_stage(model, STAGE, batches(wrong), batches(shuffle=False))
    assert result.kept_epoch == 0
    assert result.epochs == STAGE.patience + 1  # the first, and those without a better one
    for old, new in zip(good, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_same_seed_gives_the_same_weights():
    short = replace(STAGE, epochs=2)
    trained = []
    for _ in range(2):
        model = network()
        train_stage(model, short, batches(), batches(shuffle=False))
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stages_open_ever_more_at_ever_lower_rates():
    stages = list(STAGES.values())
    for upper, lower in itertools.pairwise(stages):
        assert set(upper.opens) < set(lower.opens)
        assert upper.learning_rate > lower.learning_rate
