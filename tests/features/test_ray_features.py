"""``train.py --ray``: the features of one process from workers in others, also when one dies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from photos import as_photo, drawn_photos, make_photo
from ray_cluster import begun, dying, running_cluster, see_gpus
from small_vgg import classifier, config_of, small_network

import app.features.ray_features
import train
from app.core.cli import run
from app.core.errors import AppError, UsageError
from app.core.ray_workers import RayCluster, RayWorkers
from app.core.run_folder import FEATURES_FOLDER, Run
from app.data.augmentation import View
from app.features.dataset import refuse_other_devices
from app.features.extractor import make_extractor, travelling_layers
from app.features.ray_features import FeatureWorker, compute_features_by_ray
from app.features.shards import SHARD_ROWS, read_shard, shards_in
from app.features.store import FeatureSpec, FeatureStore, compute_features, versions

CUTS = ("block5_pool", "block4_pool")
SIZE = 64
needs_ray = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("ray", reason="optional and not installed")
    with running_cluster(tmp_path_factory.mktemp("cluster") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    """Two views of 150 photos: two whole shards and a part of one."""
    folder = tmp_path_factory.mktemp("photos")
    photos = [as_photo(make_photo(folder / f"{n}.png", n)) for n in range(150)]
    return [View(photo, number, 3) for number in (0, 1) for photo in photos]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    with small_network():
        return classifier(config_of(tmp_path_factory.mktemp("runs")), {})


def stores(folder: Path) -> list[FeatureStore]:
    return [FeatureStore(folder, FeatureSpec(cut, "vgg16", "w", SIZE, "float32")) for cut in CUTS]


def by_one_process(folder: Path, model: keras.Model, views: Sequence[View], precision: str) -> None:
    compute_features(make_extractor(model, CUTS, precision), stores(folder), views, SIZE)


def by_ray(
    folder: Path, model: keras.Model, views: Sequence[View], precision: str, address: str
) -> None:
    layers = travelling_layers(model, CUTS, precision, None, "onnxruntime")
    cluster = RayCluster(address, workers=2)
    compute_features_by_ray(cluster, layers, stores(folder), views, SIZE, row_bytes=1000)


def assert_same_shards(one: Path, other: Path) -> None:
    """Each store has the same rows in the same shards; their names are random."""
    for first, second in zip(stores(one), stores(other), strict=True):
        shards = [
            {read_shard(each).keys: each for each in shards_in(s.folder)} for s in (first, second)
        ]
        assert shards[0].keys() == shards[1].keys()
        assert [len(keys) for keys in sorted(shards[0], key=len)] == [44, SHARD_ROWS, SHARD_ROWS]
        for keys, path in shards[0].items():
            assert path.read_bytes() == shards[1][keys].read_bytes()


@needs_ray
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])  # an engine's, and Keras's
def test_workers_fill_the_cache_as_one_process_does(
    precision: str, address: str, model: keras.Model, views: list[View], tmp_path: Path
) -> None:
    by_one_process(tmp_path / "one", model, views, precision)
    by_ray(tmp_path / "ray", model, views, precision, address)
    assert_same_shards(tmp_path / "one", tmp_path / "ray")


@needs_ray
def test_a_killed_worker_costs_one_shard(
    address: str,
    model: keras.Model,
    views: list[View],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = tmp_path / "log"
    worker = partial(dying, log, FeatureWorker)
    monkeypatch.setattr(app.features.ray_features, "FeatureWorker", worker)
    by_ray(tmp_path / "ray", model, views, "float32", address)
    assert begun(log) == 3 + 1  # of three shards
    by_one_process(tmp_path / "one", model, views, "float32")
    assert_same_shards(tmp_path / "one", tmp_path / "ray")


def results(run: Run) -> dict[str, Any]:
    """All that a run has learned and answered, without times."""
    metrics = dataclasses.asdict(run.read_metrics())
    stages = [{**stage, "seconds": None} for stage in metrics["stages"]]
    weights = onnx.load(run.bundle / "model.onnx").graph.initializer
    return {
        "scores": [
            metrics[name] for name in ("test", "validation", "temperature", "frozen_engine")
        ],
        "stages": stages,
        "predictions": run.predictions.read_bytes(),
        "weights": [each.SerializeToString() for each in weights],
    }


@needs_ray
def test_a_run_has_the_same_results(address: str, tmp_path: Path) -> None:
    photos = drawn_photos(tmp_path / "photos")
    done = []
    for name, where in {"one": [], "ray": ["--ray", address]}.items():
        command = ["--data", str(photos), "--runs", str(tmp_path / name), "--run", "run"]
        small = ["--weights", "none", "--smoke", "--no-report", "--precision", "float32"]
        with small_network():
            assert run(train.main, [*command, *small, *where]) == 0
        done.append(Run(tmp_path / name / "run"))
    assert results(done[0]) == results(done[1])
    assert "ray" not in json.loads(done[1].config.read_text())
    stored = [
        len(list((tmp_path / name / FEATURES_FOLDER).rglob("*.shard"))) for name in ("one", "ray")
    ]
    assert stored[0] == stored[1] > 0


@needs_ray
def test_a_worker_gets_a_gpu_of_its_own(address: str) -> None:
    with RayWorkers(RayCluster(address, gpus=1), see_gpus) as workers:
        assert workers.number == 1  # there are two processors and one GPU
        assert [gpus for _, gpus, _ in workers.results(["which?"], str)] == ["0"]
    too_many = RayWorkers(RayCluster(address, 2, gpus=1), see_gpus)
    with pytest.raises(UsageError, match=r"2 × 1 processors and 2 × 1 GPUs.*and 1 GPUs"), too_many:
        pass


def test_a_machine_with_other_versions_is_refused(model: keras.Model) -> None:
    layers = travelling_layers(model, CUTS, "float32", None, "onnxruntime")
    FeatureWorker(layers, layers.made_by, versions(), SIZE, 1)
    with pytest.raises(AppError, match=r"expected 0, onnxruntime .* on every machine.*received 1"):
        FeatureWorker(layers, layers.made_by, "0", SIZE, 1)


def test_a_processor_does_not_compute_for_a_gpu_nor_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app.features.dataset, "on_gpu", lambda: True)
    refuse_other_devices(RayCluster("local", gpus=1))
    with pytest.raises(UsageError, match=r"--worker-gpus 1, since .* on a GPU; received 0"):
        refuse_other_devices(RayCluster("local"))
    monkeypatch.setattr(app.features.dataset, "on_gpu", lambda: False)
    refuse_other_devices(RayCluster("local"))
    with pytest.raises(UsageError, match=r"--worker-gpus 0, since .* on a processor; received 1"):
        refuse_other_devices(RayCluster("local", gpus=1))


def test_views_are_computed_in_the_worker_as_here(model: keras.Model, views: list[View]) -> None:
    """Without Ray: what a worker would do, for an engine and for Keras."""
    for precision in ("float32", "bfloat16"):
        layers = travelling_layers(model, CUTS, precision, None, "onnxruntime")
        rows = FeatureWorker(layers, layers.made_by, versions(), SIZE, 1)(views[:40])
        pixels = np.concatenate([view.pixels(SIZE)[None] for view in views[:40]])
        expected = make_extractor(model, CUTS, precision)
        for cut in range(len(CUTS)):
            whole = [expected(pixels[n : n + 16])[cut].astype(np.float16) for n in range(0, 40, 16)]
            np.testing.assert_array_equal(rows[cut], np.concatenate(whole))
