"""Cached or fresh input: how it is chosen, and that what is lost on the way is computed again."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from photos import as_photo, make_photo
from rich.console import Console

import app.core.console
import app.features.dataset
from app.core.config import STAGES, TrainConfig
from app.core.console import progress_bar
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import MIRROR, View, load_views
from app.data.photo import Photos
from app.features.cache import BLOCK_ROWS, CacheTimes, FeatureStore
from app.features.dataset import CachedDataset, FeatureDataset, open_dataset
from app.features.extractor import frozen_prefix
from app.features.policy import Space
from app.features.shards import BLOCK_BYTES, Block
from app.features.store import FEATURES_FOLDER, Quota, clear, list_stores, space

SIZE = 32
HEAD = ("head",)
ROW = 2 * (4 * 4 * 4) + 2 * 12 + 2 * 100  # block4_pool, block5_pool, and a key in each index
BLOCKS = 2 * BLOCK_BYTES  # one in each store
ONE_RUN = 16 * ROW + BLOCKS  # two views for training, one of the others


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A network with the names that the cuts go by, and few numbers."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="block4_conv1")(image)
    x = layers.MaxPooling2D(8, name="block4_pool")(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="block5_conv1")(x)
    x = layers.MaxPooling2D(4, name="block5_pool")(x)
    return keras.Model(image, layers.Dense(2, name="dense")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    every = [as_photo(make_photo(folder / f"{n}.png", n), n % 2) for n in range(10)]
    return {"train": every[:6], "validation": every[6:8], "test": every[8:]}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(runs=tmp_path / "runs", image_size=SIZE, precision="float32", mirror=False)


def blocks_of(config: TrainConfig) -> list[Path]:
    return sorted((config.runs / FEATURES_FOLDER).rglob("*.npy"))


def give_room(monkeypatch: pytest.MonkeyPatch, **room: int) -> None:
    given = Space(**{"free": 10**12, "used": 0, "limit": 10**12, **room})
    monkeypatch.setattr(app.features.dataset, "space", lambda *_: given)


def used(config: TrainConfig) -> int:
    return space(config.runs / FEATURES_FOLDER, 0).used


def never(*_: object) -> None:
    raise AssertionError("this was not to be done")


def gathered(source: CachedDataset, photos: Photos, cut: str = "block5_pool") -> np.ndarray:
    stage = next(stage for stage in STAGES.values() if stage.cut == cut)
    return source.batches(dataclasses.replace(stage, batch_size=99), "train")[0][0]


def labelled_maps(source: FeatureDataset) -> np.ndarray:
    return np.concatenate(list(source.labelled("train").maps(range(6))))


def expected(model: keras.Model, photos: Photos, cut: str = "block5_pool") -> np.ndarray:
    images = load_views([View(photo, 0, 0) for photo in photos["train"]], SIZE)
    return frozen_prefix(model, [cut], "float32")(images)[0]


def test_rows_are_those_of_the_prefix(config, model, photos, capsys):
    source = open_dataset(config, model, "w", photos)
    assert (source.name, source.views) == ("disk", 2)
    for cut in ("block5_pool", "block4_pool"):
        np.testing.assert_allclose(
            gathered(source, photos, cut), expected(model, photos, cut), rtol=1e-2, atol=1e-2
        )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cache on disk: 0 of 16 views are there, 16 to be computed (6.2 kB)")
    assert ONE_RUN == 6232


def test_what_is_written_is_what_was_foreseen(config, model, photos):
    open_dataset(config, model, "w", photos)
    assert 0.8 * 16 * ROW < used(config) <= ONE_RUN


def test_a_second_run_computes_nothing(config, model, photos, monkeypatch):
    open_dataset(config, model, "w", photos)
    monkeypatch.setattr(app.features.dataset, "frozen_prefix", never)
    source = open_dataset(dataclasses.replace(config, stages=HEAD), model, "w", photos)
    assert source.views == 1  # the head needs the photos alone
    assert labelled_maps(source).shape == (6, 1, 1, 12)


def test_answers_from_two_looks_need_the_mirror_images_too(config, model, photos):
    """Of validation and test, in the rows that the last stage's batches read."""
    source = open_dataset(dataclasses.replace(config, mirror=True), model, "w", photos)
    assert len(source.wanted()) == 2 * 6 + 2 * 4
    images = load_views([View(photo, MIRROR, 0) for photo in photos["test"]], SIZE)
    batch, _ = source.batches(STAGES["block5"], "test", view=MIRROR)[0]
    expected = frozen_prefix(model, ["block4_pool"], "float32")(images)[0]
    np.testing.assert_allclose(batch, expected, rtol=1e-2, atol=1e-2)


# ---- room ----


@pytest.mark.parametrize(
    ("room", "views"),
    [
        # 10 photos once, the 6 for training 4 times more
        ({"limit": 34 * ROW + BLOCKS}, 5),
        ({"limit": 34 * ROW + BLOCKS - 1}, 4),
        ({"free": 2 * (22 * ROW + BLOCKS)}, 3),
        ({"free": 2 * (10 * ROW + BLOCKS)}, 1),
    ],
)
def test_fewer_views_are_taken_where_room_is_short(
    config, model, photos, monkeypatch, capsys, room, views
):
    give_room(monkeypatch, **room)
    source = open_dataset(dataclasses.replace(config, views=5), model, "w", photos)
    assert (source.name, source.views) == ("disk", views)
    assert len(source.wanted()) == 4 + 6 * views
    batches = source.batches(STAGES["head"], "train", shuffle=True)
    for epoch in range(5):
        batches.begin_epoch(epoch)
        assert len(batches[0][0]) == 6
    said = f"--views {views} instead of 5: more have no room" in capsys.readouterr().err
    assert said == (views < 5)


@pytest.mark.parametrize("room", [{"limit": 9 * ROW}, {"free": 2 * (10 * ROW + BLOCKS) - 1}])
def test_without_room_for_one_view_there_is_no_cache(
    config, model, photos, monkeypatch, capsys, room
):
    give_room(monkeypatch, **room)
    source = open_dataset(config, model, "w", photos)
    assert (source.name, source.views) == ("off", None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cache off: fresh views every epoch, because not one view has room")
    assert blocks_of(config) == []


@pytest.mark.parametrize(("room", "advice"), [(12, "choose --views 1, a"), (9, "choose a smaller")])
def test_a_cache_that_was_asked_for_is_refused_before_any_work(
    config, model, photos, monkeypatch, room, advice
):
    give_room(monkeypatch, limit=room * ROW)
    monkeypatch.setattr(app.features.dataset, "frozen_prefix", never)
    with pytest.raises(UsageError, match=f"room for the cache of 2 views; received .*{advice}"):
        open_dataset(dataclasses.replace(config, cache="disk"), model, "w", photos)
    assert blocks_of(config) == []


def test_views_that_are_there_need_no_room(config, model, photos, monkeypatch):
    open_dataset(config, model, "w", photos)
    give_room(monkeypatch, free=0, limit=1)
    assert open_dataset(config, model, "w", photos).views == 2
    assert open_dataset(dataclasses.replace(config, views=3), model, "w", photos).views == 2


def test_the_limit_is_kept_at_the_cost_of_older_caches(config, model, photos, capsys):
    """Another digest is another way of computing: these rows are of no use to the second run."""
    open_dataset(config, model, "old", photos)
    (before,) = {info.bytes for info in list_stores(config.runs / FEATURES_FOLDER)[:1]}
    assert before
    limited = dataclasses.replace(config, cache_limit=24 * ROW / 1e9)
    source = open_dataset(limited, model, "new", photos)
    assert (source.name, source.views) == ("disk", 2)
    stores = list_stores(config.runs / FEATURES_FOLDER)
    assert sum(info.bytes for info in stores) <= 24 * ROW
    assert "removed" in capsys.readouterr().err
    assert {
        info.rows for info in stores if info.key in {s.spec.key for s in source.stores.values()}
    }
    assert np.isfinite(gathered(source, photos)).all()


def test_what_the_run_needs_is_not_removed(config, model, photos, monkeypatch):
    """Not even where it is the oldest and could not be made young."""
    open_dataset(dataclasses.replace(config, views=1), model, "mine", photos)
    mine = blocks_of(config)
    open_dataset(config, model, "others", photos)
    for block in mine:
        os.utime(block.with_suffix(".json"), (0, 0))
    monkeypatch.setattr(Block, "touch", lambda block: None)
    open_dataset(dataclasses.replace(config, cache_limit=25 * ROW / 1e9), model, "mine", photos)
    assert set(mine) < set(blocks_of(config))


@pytest.mark.parametrize(("spare", "views"), [(0, 2), (-1, 1)])
def test_what_was_found_to_fit_can_be_written(config, model, photos, spare, views):
    """The indices of what stays take room too: a run must not end for want of it midway."""
    open_dataset(dataclasses.replace(config, views=1), model, "mine", photos)
    limit = used(config) + 6 * ROW + BLOCKS + spare
    open_dataset(config, model, "others", photos)
    limited = dataclasses.replace(config, cache_limit=limit / 1e9)
    assert open_dataset(limited, model, "mine", photos).views == views
    assert used(config) <= limit


# ---- time ----


@pytest.mark.parametrize(
    ("times", "name"),
    [
        (CacheTimes(0.2, 0.01, (0.001, 0.01)), "disk"),
        (CacheTimes(0.002, 0.01, (0.001, 0.1)), "off"),
        (CacheTimes(0.002, 9.0, (0.0, 0.0)), "off"),
    ],
)
def test_auto_takes_what_is_measured_to_be_faster(
    config, model, photos, monkeypatch, capsys, times, name
):
    measured: list[int] = []

    def time_cache(
        frozen: Any, stores: Any, views: list[View], size: int, batch: int
    ) -> CacheTimes:
        measured.append(len(views))
        app.features.dataset.compute_features(frozen, stores, views, size)
        return times

    monkeypatch.setattr(app.features.dataset, "time_cache", time_cache)
    many = dataclasses.replace(config, views=30, epochs=36)
    source = open_dataset(many, model, "w", photos)
    assert source.name == name
    assert measured == [BLOCK_ROWS]
    said = capsys.readouterr().err.splitlines()
    begin = {"disk": "cache on disk: ", "off": "cache off: fresh views every epoch: "}[name]
    assert re.match(begin + r"[\d.]+ s to compute and read 56 views, against ", said[-1])
    # 8 + 36 epochs x 8 + 2 x 2 before and after + 2 + 2: all that would go through the prefix.
    assert "to compute 304 fresh ones" in said[-1]
    if name == "disk":
        assert len(source.wanted()) == 30 * 6 + 4
    asked = dataclasses.replace(many, cache="disk")
    assert open_dataset(asked, model, "other", photos).name == "disk"
    assert measured == [BLOCK_ROWS]  # who asks for it gets it, unmeasured


def test_the_epochs_of_each_cut_are_counted(config, model, photos):
    """None for the solved head, 2 of 8 photos in block5; reading is all that differs."""
    source = open_dataset(config, model, "w", photos)
    for read, seconds in (((1.0, 0.0), 0), ((0.0, 1.0), 2 * 8 + 2 * 2)):
        _, why = source._pays(CacheTimes(0.0, 0.0, read), 0)
        assert why.startswith(f"{seconds:.1f} s to compute and read 0 views, against 0.0 s")


# ---- damaged, and lost on the way ----


def test_a_damaged_block_is_found_before_training(config, model, photos, capsys):
    open_dataset(config, model, "w", photos)
    for path in blocks_of(config):
        found = bytearray(path.read_bytes())
        found[-20] ^= 64
        path.write_bytes(found)
    source = open_dataset(config, model, "w", photos)
    assert capsys.readouterr().err.count("damaged") == 2  # a line for each store
    np.testing.assert_allclose(
        gathered(source, photos), expected(model, photos), rtol=1e-2, atol=1e-2
    )


def test_rows_removed_while_training_are_computed_again(config, model, photos, capsys):
    """Two runs at once: another one removes what this one has not read yet."""
    source = open_dataset(config, model, "w", photos)
    before = expected(model, photos, "block4_pool")
    clear(config.runs / FEATURES_FOLDER)
    assert blocks_of(config) == []
    model.get_layer("block5_conv1").trainable = True
    batches = source.batches(STAGES["block5"], "train", shuffle=True)
    trained = keras.models.clone_model(source.part(STAGES["block5"]))
    trained.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trained.fit(batches, epochs=2, verbose=0)
    np.testing.assert_allclose(
        gathered(source, photos, "block4_pool"), before, rtol=1e-2, atol=1e-2
    )
    err = capsys.readouterr().err
    assert err.count("computed again") == 1
    assert len(blocks_of(config)) == 1


def test_rows_are_computed_again_under_the_bar_of_training(config, model, photos, monkeypatch):
    """Two bars at once, as a terminal shows them; older versions of rich refused the second."""
    terminal = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(app.core.console, "_console", terminal)
    source = open_dataset(config, model, "w", photos)
    clear(config.runs / FEATURES_FOLDER)
    with progress_bar() as bar:
        assert not bar.disable
        assert gathered(source, photos).shape == (6, 1, 1, 12)


def test_lost_rows_below_trained_layers_end_the_run(config, model, photos):
    """The features of the trained block are others; the cache must not be filled with them."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    source = open_dataset(config, copy, "w", photos)
    layer = copy.get_layer("block5_conv1")
    layer.set_weights([1.01 * weight for weight in layer.get_weights()])
    clear(config.runs / FEATURES_FOLDER)
    with pytest.raises(CacheEvictedError, match="train again"):
        gathered(source, photos)
    assert blocks_of(config) == []
    # What lies below is as it was.
    assert gathered(source, photos, "block4_pool").shape == (6, 4, 4, 4)


def test_a_run_beside_another_does_not_break_it(config, model, photos):
    """There is room for either, not for both: each removes the other's rows, within the limit."""
    limited = dataclasses.replace(config, cache_limit=ONE_RUN / 1e9)
    first = open_dataset(limited, model, "first", photos)
    second = open_dataset(limited, model, "second", photos)
    assert first.views == second.views == 2
    assert used(config) <= ONE_RUN
    for source in (first, second, first):
        for cut in ("block5_pool", "block4_pool"):
            np.testing.assert_allclose(
                gathered(source, photos, cut), expected(model, photos, cut), rtol=1e-2, atol=1e-2
            )
            assert used(config) <= ONE_RUN
    assert np.isfinite(labelled_maps(first)).all()


def test_runs_that_begin_at_once_keep_the_limit_together(config, model, photos, monkeypatch):
    """The second one fills the cache when the first has made its room and not written yet."""
    limited = dataclasses.replace(config, cache_limit=ONE_RUN / 1e9)
    others: list[FeatureDataset] = []
    prepare = Quota.prepare

    def prepare_then_wait(quota: Quota, needed: int, keep: set[Path]) -> None:
        prepare(quota, needed, keep)
        monkeypatch.setattr(Quota, "prepare", prepare)
        others.append(open_dataset(limited, model, "second", photos))
        assert 0.8 * 16 * ROW < used(config) <= ONE_RUN

    monkeypatch.setattr(Quota, "prepare", prepare_then_wait)
    first = open_dataset(limited, model, "first", photos)
    assert used(config) <= ONE_RUN
    for source in (first, *others):
        np.testing.assert_allclose(
            gathered(source, photos), expected(model, photos), rtol=1e-2, atol=1e-2
        )


def test_recovery_keeps_what_the_run_has_of_other_cuts(config, model, photos):
    """Its own rows of block5 are the oldest blocks when block4's rows are computed again."""
    limited = dataclasses.replace(config, cache_limit=ONE_RUN / 1e9)
    source = open_dataset(limited, model, "w", photos)
    pooled = sorted(source.stores["block5_pool"].folder.glob("*.npy"))
    os.utime(pooled[0].with_suffix(".json"), (0, 0))
    clear(config.runs / FEATURES_FOLDER, source.stores["block4_pool"].spec.key)
    spec = dataclasses.replace(source.stores["block5_pool"].spec, weights="others")
    other = FeatureStore(config.runs / FEATURES_FOLDER, spec)
    other.append([View(photos["train"][0], n, 0) for n in range(9)], np.ones((9, 99), np.float16))
    assert gathered(source, photos, "block4_pool").shape == (6, 4, 4, 4)
    assert sorted(source.stores["block5_pool"].folder.glob("*.npy")) == pooled
    assert used(config) <= ONE_RUN
