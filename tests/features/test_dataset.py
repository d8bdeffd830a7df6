"""Cached or fresh input: how it is chosen, and that what is lost on the way is computed again."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from photos import as_photo, make_photo
from rich.console import Console

import app.core.console
import app.experiment_setup
import app.features.dataset
import app.features.extractor
import app.features.store
from app.core.config import STAGES, TrainConfig
from app.core.console import progress_bar
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import MIRROR, View, load_views
from app.data.manifest import Photos
from app.experiment_setup import dataset_of
from app.features.cache_folder import FEATURES_FOLDER, Quota, clear, list_stores
from app.features.dataset import CachedDataset, FeatureDataset
from app.features.extractor import make_extractor
from app.features.shards import FRAME_BYTES
from app.features.store import FeatureStore

SIZE = 32
HEAD = ("head",)
ROW = 2 * (4 * 4 * 4) + 2 * 12 + 2 * 100  # block4_pool, block5_pool, and a key in each shard
SHARDS = 2 * FRAME_BYTES  # one in each store
ONE_RUN = 16 * ROW + SHARDS  # two views for training, one of the others


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
    return {"train": every[:6], "validation": every[6:]}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(runs=tmp_path / "runs", image_size=SIZE, precision="float32", mirror=False)


def shards_of(config: TrainConfig) -> list[Path]:
    return sorted((config.runs / FEATURES_FOLDER).rglob("*.shard"))


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(Quota, "free", lambda _: free)


def used(config: TrainConfig) -> int:
    return Quota(config.runs / FEATURES_FOLDER, 0).used()


def never(*_: object) -> None:
    raise AssertionError("this was not to be done")


def gathered(source: CachedDataset, photos: Photos, cut: str = "block5_pool") -> np.ndarray:
    stage = next(stage for stage in STAGES.values() if stage.cut == cut)
    return source.batches(dataclasses.replace(stage, batch_size=99), "train")[0][0]


def labelled_maps(source: FeatureDataset) -> np.ndarray:
    return np.concatenate(list(source.labelled("train").maps(range(6))))


def expected(model: keras.Model, photos: Photos, cut: str = "block5_pool") -> np.ndarray:
    images = load_views([View(photo, 0, 0) for photo in photos["train"]], SIZE)
    return make_extractor(model, [cut], "float32")(images)[0]


def test_rows_are_those_of_the_prefix(config, model, photos, capsys):
    source = dataset_of(config, model, "w", photos)
    assert (source.name, source.views) == ("disk", 2)
    for cut in ("block5_pool", "block4_pool"):
        np.testing.assert_allclose(
            gathered(source, photos, cut), expected(model, photos, cut), rtol=1e-2, atol=1e-2
        )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cache on disk: 0 of 16 views are there, 16 to be computed (5.8 kB)")
    assert ONE_RUN == 5832


def test_a_deeper_stage_gets_its_features_when_it_is_reached(
    config, model, photos, capsys, monkeypatch
):
    monkeypatch.setattr("app.features.dataset.AT_ONCE", 1)
    source, block5 = dataset_of(config, model, "w", photos), STAGES["block5"]
    assert list(source.stores) == ["block5_pool"]
    small = dataclasses.replace(source, quota=Quota(source.quota.folder, source.quota.used() + 99))
    capsys.readouterr()
    assert not small.prepare(block5)
    assert "stage block5 is not tried: with its features the cache" in capsys.readouterr().err
    assert source.prepare(block5)
    np.testing.assert_allclose(
        gathered(source, photos, "block4_pool"),
        expected(model, photos, "block4_pool"),
        rtol=1e-2,
        atol=1e-2,
    )
    assert " to be computed" in capsys.readouterr().err
    assert source.prepare(block5)
    assert capsys.readouterr().err == ""


def test_what_is_written_is_what_was_foreseen(config, model, photos):
    dataset_of(config, model, "w", photos)
    assert 0.8 * 16 * ROW < used(config) <= ONE_RUN


def test_a_second_run_computes_nothing(config, model, photos, monkeypatch):
    dataset_of(config, model, "w", photos)
    monkeypatch.setattr(app.features.dataset, "make_extractor", never)
    source = dataset_of(dataclasses.replace(config, stages=HEAD), model, "w", photos)
    assert source.views == 1  # the head needs the photos alone
    assert labelled_maps(source).shape == (6, 1, 1, 12)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_measured_engine_is_used_and_named(
    config, model, photos, monkeypatch, deterministic, tmp_path
):
    """But not by a deterministic run: the measurement may come out otherwise the next time."""
    asked = []

    def measured(*_: object) -> str:
        asked.append(_[3])
        return "openvino" if _[3] == "auto" else _[3]

    used = []
    monkeypatch.setattr(app.features.dataset, "onnx_engine", measured)
    real = app.features.extractor.compile_model
    monkeypatch.setattr(
        app.features.extractor,
        "compile_model",
        lambda engine, task: (used.append(engine), real("onnxruntime", task))[1],
    )
    monkeypatch.setattr(app.features.extractor, "choose_engine", lambda _, engine: engine)
    config = dataclasses.replace(config, deterministic=deterministic)
    source = dataset_of(config, model, "w", photos)
    chosen = "onnxruntime" if deterministic else "openvino"
    assert asked == ["onnxruntime" if deterministic else "auto"]
    assert used == [chosen]
    assert source.spec.engine == chosen
    assert source.made_by.split()[0] == chosen
    setup = app.experiment_setup.Setup(model, "w", source, "float32", "float32")
    assert setup.conditions()["engine"] == chosen


def test_answers_from_two_looks_need_the_mirror_images_too(config, model, photos):
    """Of validation and test, in the rows that the last stage's batches read."""
    source = dataset_of(dataclasses.replace(config, mirror=True), model, "w", photos)
    assert len(source.spec.cached_views()) == 2 * 6 + 2 * 4
    images = load_views([View(photo, MIRROR, 0) for photo in photos["validation"]], SIZE)
    batch, _ = source.batches(STAGES["block5"], "validation", view=MIRROR)[0]
    expected = make_extractor(model, ["block4_pool"], "float32")(images)[0]
    np.testing.assert_allclose(batch, expected, rtol=1e-2, atol=1e-2)


def test_photos_of_none_of_the_classes_are_cached_beside_the_others(config, model, photos):
    """The photos themselves, no random views of them; without such photos there is no batch."""
    assert dataset_of(config, model, "w", photos).batches_of_neither(STAGES["block5"]) is None
    learned = {**photos, "train": photos["train"][:4]}
    source = dataset_of(config, model, "w", learned, photos["train"][4:])
    assert len(source.spec.cached_views()) == 2 * 4 + len(photos["validation"]) + 2
    batch, _ = source.batches_of_neither(STAGES["block5"])[0]
    np.testing.assert_allclose(
        batch, expected(model, photos, "block4_pool")[4:], rtol=1e-2, atol=1e-2
    )


# ---- room ----

LIMIT = 34 * ROW + SHARDS  # of 5 views: 10 photos once, the 6 for training 4 times more


def limited(config: TrainConfig, limit: int, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, cache_limit=limit / 1e9, **changes)


def test_auto_is_off_where_the_run_is_larger_than_the_limit(config, model, photos, capsys):
    """In one line, with the figures that mend it."""
    assert dataset_of(limited(config, LIMIT, views=5), model, "w", photos).name == "disk"
    assert capsys.readouterr().err.startswith("cache on disk: 0 of 34 views are there")
    source = dataset_of(limited(config, LIMIT - 1, views=5), model, "w", photos)
    assert (source.name, source.views) == ("off", None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "cache off: every epoch draws a fresh view of each photo; 34 views take 12.2 kB, "
        "--cache-limit is 12.2 kB"
    )


def test_what_is_there_already_does_not_change_what_auto_takes(config, model, photos):
    """Contract 10: photos and settings decide, no other run's cache."""
    dataset_of(dataclasses.replace(config, views=5), model, "w", photos)
    assert dataset_of(limited(config, LIMIT - 1, views=5), model, "w", photos).name == "off"


def test_a_cache_beyond_the_limit_is_refused_before_any_work(config, model, photos, monkeypatch):
    monkeypatch.setattr(app.features.dataset, "make_extractor", never)
    wrong = limited(config, LIMIT - 1, views=5, cache="disk")
    with pytest.raises(UsageError, match=r"34 views take .* choose fewer --views, a smaller"):
        dataset_of(wrong, model, "w", photos)
    assert shards_of(config) == []


@pytest.mark.parametrize("cache", ["auto", "disk"])
def test_a_full_disk_is_refused_before_any_work(config, model, photos, monkeypatch, cache):
    """It decides no figure: the run is the same on another disk, or is not begun."""
    asked = dataclasses.replace(config, cache=cache)
    disk_of(monkeypatch, free=2 * ONE_RUN - 1)
    with monkeypatch.context() as patch:
        patch.setattr(app.features.dataset, "make_extractor", never)
        with pytest.raises(UsageError, match=r"half of it for the cache.* or --cache off"):
            dataset_of(asked, model, "w", photos)
    assert shards_of(config) == []
    disk_of(monkeypatch, free=2 * ONE_RUN)
    dataset_of(asked, model, "w", photos)
    disk_of(monkeypatch, free=0)
    assert dataset_of(asked, model, "w", photos).views == 2  # all is there: no room is needed


def test_the_limit_is_kept_at_the_cost_of_older_caches(config, model, photos, capsys):
    """Another digest is another way of computing: these rows are of no use to the second run."""
    dataset_of(config, model, "old", photos)
    (before,) = {info.bytes for info in list_stores(config.runs / FEATURES_FOLDER)[:1]}
    assert before
    source = dataset_of(limited(config, 24 * ROW), model, "new", photos)
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
    dataset_of(dataclasses.replace(config, views=1), model, "mine", photos)
    mine = shards_of(config)
    dataset_of(config, model, "others", photos)
    for shard in mine:
        os.utime(shard, (0, 0))
    monkeypatch.setattr(app.features.store, "touch", lambda path: None)
    dataset_of(limited(config, 25 * ROW), model, "mine", photos)
    assert set(mine) < set(shards_of(config))


# ---- damaged, and lost on the way ----


def test_a_damaged_shard_is_found_before_training(config, model, photos, capsys):
    dataset_of(config, model, "w", photos)
    for path in shards_of(config):
        found = bytearray(path.read_bytes())
        found[-20] ^= 64
        path.write_bytes(found)
    source = dataset_of(config, model, "w", photos)
    assert capsys.readouterr().err.count("damaged") == 2  # a line for each store
    np.testing.assert_allclose(
        gathered(source, photos), expected(model, photos), rtol=1e-2, atol=1e-2
    )


def test_rows_removed_while_training_are_computed_again(config, model, photos, capsys):
    """Two runs at once: another one removes what this one has not read yet."""
    source = dataset_of(config, model, "w", photos)
    before = expected(model, photos, "block4_pool")
    clear(config.runs / FEATURES_FOLDER)
    assert shards_of(config) == []
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
    assert len(shards_of(config)) == 1


def test_rows_are_computed_again_under_the_bar_of_training(config, model, photos, monkeypatch):
    """Two bars at once, as a terminal shows them; older versions of rich refused the second."""
    terminal = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(app.core.console, "_console", terminal)
    source = dataset_of(config, model, "w", photos)
    clear(config.runs / FEATURES_FOLDER)
    with progress_bar() as bar:
        assert not bar.disable
        assert gathered(source, photos).shape == (6, 1, 1, 12)


def test_lost_rows_below_trained_layers_end_the_run(config, model, photos):
    """The features of the trained shard are others; the cache must not be filled with them."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    source = dataset_of(config, copy, "w", photos)
    layer = copy.get_layer("block5_conv1")
    layer.set_weights([1.01 * weight for weight in layer.get_weights()])
    clear(config.runs / FEATURES_FOLDER)
    with pytest.raises(CacheEvictedError, match="train again"):
        gathered(source, photos)
    assert shards_of(config) == []
    # What lies below is as it was.
    assert gathered(source, photos, "block4_pool").shape == (6, 4, 4, 4)


def test_a_run_beside_another_does_not_break_it(config, model, photos):
    """There is room for either, not for both: each removes the other's rows, within the limit."""
    small = limited(config, ONE_RUN)
    first = dataset_of(small, model, "first", photos)
    second = dataset_of(small, model, "second", photos)
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
    small = limited(config, ONE_RUN)
    others: list[FeatureDataset] = []
    compute = app.features.dataset.compute_features

    def compute_later(*arguments: Any) -> None:
        monkeypatch.setattr(app.features.dataset, "compute_features", compute)
        others.append(dataset_of(small, model, "second", photos))
        assert 0.8 * 16 * ROW < used(config) <= ONE_RUN
        compute(*arguments)

    monkeypatch.setattr(app.features.dataset, "compute_features", compute_later)
    first = dataset_of(small, model, "first", photos)
    assert used(config) <= ONE_RUN
    for source in (first, *others):
        np.testing.assert_allclose(
            gathered(source, photos), expected(model, photos), rtol=1e-2, atol=1e-2
        )


def test_recovery_keeps_what_the_run_has_of_other_cuts(config, model, photos):
    """Its own rows of block5 are the oldest shards when block4's rows are computed again."""
    source = dataset_of(limited(config, ONE_RUN), model, "w", photos)
    pooled = sorted(source.stores["block5_pool"].folder.glob("*.shard"))
    os.utime(pooled[0], (0, 0))
    clear(config.runs / FEATURES_FOLDER, source.stores["block4_pool"].spec.key)
    spec = dataclasses.replace(source.stores["block5_pool"].spec, weights="others")
    other = FeatureStore(config.runs / FEATURES_FOLDER, spec)
    other.append([View(photos["train"][0], n, 0) for n in range(9)], np.ones((9, 99), np.float16))
    assert gathered(source, photos, "block4_pool").shape == (6, 4, 4, 4)
    assert sorted(source.stores["block5_pool"].folder.glob("*.shard")) == pooled
    assert used(config) <= ONE_RUN
