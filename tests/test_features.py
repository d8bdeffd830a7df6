import json
from pathlib import Path

import numpy as np
import pytest
from photos import as_photo
from PIL import Image

from app.features import BLOCK_ROWS, FeatureSpec, FeatureStore, compute_features, fits_on_disk
from app.views import View, load_views

SPEC = FeatureSpec(cut="pooled", backbone="vgg16", weights="w", image_size=8, precision="float32")


class Counting:
    """Stands for the frozen network: the mean colour of a view, and how many views were asked."""

    def __init__(self) -> None:
        self.views = 0

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        self.views += len(images)
        return [images.mean(axis=(1, 2), dtype=np.float32)]


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    generator = np.random.default_rng(0)
    result = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
        photo = as_photo(path)
        result += [View(photo, 0, seed=7), View(photo, 1, seed=7)]
    return result


def test_rows_come_back_in_the_order_asked_for(tmp_path, views):
    store = FeatureStore(tmp_path / "cache", SPEC)
    compute_features(Counting(), [store], views, 8)
    expected = load_views(views[::-1], 8).mean(axis=(1, 2))
    np.testing.assert_allclose(store.gather(views[::-1]), expected, rtol=1e-3)  # float16
    assert store.gather(views).dtype == np.float32


def test_nothing_is_computed_twice_even_by_another_process(tmp_path, views):
    frozen = Counting()
    compute_features(frozen, [FeatureStore(tmp_path / "cache", SPEC)], views, 8)
    compute_features(frozen, [FeatureStore(tmp_path / "cache", SPEC)], views, 8)
    assert frozen.views == len(views)


def test_more_views_compute_only_the_new_ones(tmp_path, views):
    frozen = Counting()
    store = FeatureStore(tmp_path / "cache", SPEC)
    compute_features(frozen, [store], views[::2], 8)
    compute_features(frozen, [store], views, 8)
    assert frozen.views == len(views)


@pytest.mark.parametrize(
    "change", [{"weights": "x"}, {"cut": "block4_pool"}, {"image_size": 9}, {"precision": "b"}]
)
def test_what_activations_depend_on_is_in_the_key(change):
    assert FeatureSpec(**{**SPEC.__dict__, **change}).key != SPEC.key


def test_view_0_does_not_depend_on_the_seed_others_do(views):
    photo = views[0].photo
    assert View(photo, 0, seed=1).key == View(photo, 0, seed=2).key
    assert View(photo, 1, seed=1).key != View(photo, 1, seed=2).key


def test_an_interrupted_run_keeps_its_finished_blocks(tmp_path, views):
    class Breaks(Counting):
        def __call__(self, images: np.ndarray) -> list[np.ndarray]:
            if self.views >= BLOCK_ROWS:
                raise KeyboardInterrupt
            return super().__call__(images)

    many = [View(views[0].photo, number, seed=0) for number in range(BLOCK_ROWS + 8)]
    with pytest.raises(KeyboardInterrupt):
        compute_features(Breaks(), [FeatureStore(tmp_path / "cache", SPEC)], many, 8)
    frozen = Counting()
    compute_features(frozen, [FeatureStore(tmp_path / "cache", SPEC)], many, 8)
    assert frozen.views == 8


def test_a_damaged_block_is_noticed_and_computed_again(tmp_path, views, capsys):
    compute_features(Counting(), [FeatureStore(tmp_path / "cache", SPEC)], views, 8)
    (block,) = (tmp_path / "cache").rglob("*.npy")
    block.write_bytes(block.read_bytes()[:-20])
    frozen = Counting()
    store = FeatureStore(tmp_path / "cache", SPEC)
    compute_features(frozen, [store], views, 8)
    assert frozen.views == len(views)
    assert "damaged" in capsys.readouterr().err
    assert np.isfinite(store.gather(views)).all()


def test_a_block_without_its_index_does_not_exist(tmp_path, views):
    compute_features(Counting(), [FeatureStore(tmp_path / "cache", SPEC)], views, 8)
    for index in (tmp_path / "cache").rglob("*.json"):
        assert len(json.loads(index.read_text())["rows"]) == len(views)
        index.unlink()
    assert views[0] not in FeatureStore(tmp_path / "cache", SPEC)


def test_activations_beyond_float16_are_clipped_not_infinite(tmp_path, views):
    store = FeatureStore(tmp_path / "cache", SPEC)
    store.append([views[0].key], np.array([[1e9, -1e9]]))
    np.testing.assert_array_equal(store.gather(views[:1]), [[65504, -65504]])


def test_the_free_disk_decides(tmp_path):
    assert fits_on_disk(tmp_path / "not" / "yet", 1000, 10)[0]
    fits, why = fits_on_disk(tmp_path, 10**15, 10)
    assert not fits
    assert "10000000.0 GB" in why


def test_many_blocks_need_few_open_files(tmp_path, views):
    """MacOS allows a process 256 open files; a block is opened when it is read."""
    store = FeatureStore(tmp_path / "cache", SPEC)
    many = [View(views[0].photo, number, seed=0) for number in range(200)]
    for view in many:
        store.append([view.key], np.zeros((1, 3)))
    reopened = FeatureStore(tmp_path / "cache", SPEC)
    before = len(list(Path("/dev/fd").iterdir()))
    assert len(reopened.gather(many)) == len(many)
    assert len(list(Path("/dev/fd").iterdir())) - before <= 64
