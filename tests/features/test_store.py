import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from photos import as_photo
from PIL import Image

import app.features.store
from app.core.errors import AppError
from app.data.augmentation import BATCH, View, load_views
from app.features.extractor import AHEAD, FeatureExtractor
from app.features.shards import SHARD_ROWS, SPEC_FILE, read_shard, shards_in, write_shard
from app.features.store import (
    CacheEvictedError,
    FeatureSpec,
    FeatureStore,
    compute_features,
    missing_views,
)

SPEC = FeatureSpec(
    cut="block5_pool", backbone="vgg16", weights="w", image_size=8, precision="float32"
)


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fill(folder: Path, wanted: list[View], frozen: Counting | None = None) -> FeatureStore:
    """Open the store as a run does, and compute what it lacks."""
    store = FeatureStore(folder, SPEC)
    store.check(wanted)
    compute(frozen or Counting(), [store], missing_views([store], wanted))
    return store


def compute(function, stores, wanted, batch: int = BATCH) -> None:
    compute_features(FeatureExtractor(function, batch), stores, wanted, 8)


def data_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.shard")
    return path


def means(views: list[View]) -> np.ndarray:
    return load_views(views, 8).mean(axis=(1, 2))


def test_rows_come_back_in_the_order_asked_for(folder, views):
    store = fill(folder, views)
    np.testing.assert_allclose(store.gather(views[::-1]), means(views[::-1]), rtol=1e-3)  # float16
    assert store.gather(views).dtype == np.float32


def test_nothing_is_computed_twice_even_by_another_process(folder, views):
    frozen = Counting()
    fill(folder, views, frozen)
    fill(folder, views, frozen)
    assert frozen.views == len(views)


def test_more_views_compute_only_the_new_ones(folder, views):
    frozen = Counting()
    fill(folder, views[::2], frozen)
    store = fill(folder, views, frozen)
    assert frozen.views == len(views)
    np.testing.assert_allclose(store.gather(views), means(views), rtol=1e-3)


def test_rows_that_a_store_has_are_not_written_again(folder, views):
    """A run with one more stage fills one more store in the same pass."""
    fill(folder, views[::2])
    stores = [FeatureStore(folder, SPEC), FeatureStore(folder, replace(SPEC, cut="block4_pool"))]
    missing = missing_views(stores, views)
    assert missing == views
    compute(lambda images: Counting()(images) * 2, stores, missing)
    for store in stores:
        keys = [key for path in shards_in(store.folder) for key in read_shard(path).keys]
        assert sorted(keys) == sorted(view.key for view in views)
        np.testing.assert_allclose(store.gather(views), means(views), rtol=1e-3)
        reopened = FeatureStore(folder, store.spec)
        np.testing.assert_array_equal(reopened.gather(views), store.gather(views))


@pytest.mark.parametrize(
    "change", [{"weights": "x"}, {"cut": "block4_pool"}, {"image_size": 9}, {"engine": "jax"}]
)
def test_what_activations_depend_on_is_in_the_key(change):
    assert replace(SPEC, **change).key != SPEC.key


@pytest.mark.parametrize("library", ["pillow", "onnxruntime", "keras"])
def test_another_version_of_a_library_is_another_store(monkeypatch, library):
    """Else a new decoder's photos would be answered by what was learned from the old one's."""
    monkeypatch.setattr(app.features.store, "installed_version", lambda n: f"1.{n == library}")
    other = FeatureSpec("block5_pool", "vgg16", "w", 8, "float32")
    monkeypatch.setattr(app.features.store, "installed_version", lambda n: "1.False")
    assert FeatureSpec("block5_pool", "vgg16", "w", 8, "float32").key != other.key


def test_a_store_says_what_it_holds(folder, views):
    store = fill(folder, views)
    assert json.loads((store.folder / SPEC_FILE).read_text()) == asdict(SPEC)


def test_view_0_does_not_depend_on_the_seed_others_do(views):
    photo = views[0].photo
    assert View(photo, 0, seed=1).key == View(photo, 0, seed=2).key
    assert View(photo, 1, seed=1).key != View(photo, 1, seed=2).key


def test_an_interrupted_run_keeps_its_finished_shards(folder, views):
    class Breaks(Counting):
        def __call__(self, images: np.ndarray) -> list[np.ndarray]:
            if self.views >= SHARD_ROWS + AHEAD * BATCH:
                raise KeyboardInterrupt
            return super().__call__(images)

    many = [View(views[0].photo, number, seed=0) for number in range(2 * SHARD_ROWS)]
    with pytest.raises(KeyboardInterrupt):
        fill(folder, many, Breaks())
    frozen = Counting()
    fill(folder, many, frozen)
    assert frozen.views == SHARD_ROWS


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_its_finished_shards(tmp_path, folder):
    """Killed in the third shard while the second may be written still; then continued here."""
    code = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]!r}
import numpy as np
from pathlib import Path
from photos import as_photo, make_photo
import tests.features.test_store as t
photo = as_photo(make_photo(Path({str(tmp_path / "one.png")!r})))
many = [t.View(photo, number, seed=0) for number in range(3 * t.SHARD_ROWS)]
class Dies(t.Counting):
    def __call__(self, images):
        if self.views >= 2 * t.SHARD_ROWS + t.AHEAD * t.BATCH:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)
t.fill(Path({str(folder)!r}), many, Dies())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    photo = as_photo(tmp_path / "one.png")
    frozen = Counting()
    fill(folder, [View(photo, n, seed=0) for n in range(3 * SHARD_ROWS)], frozen)
    assert frozen.views in (SHARD_ROWS, 2 * SHARD_ROWS)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"1234")


def flip_a_bit(place: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        found = bytearray(path.read_bytes())
        found[place] ^= 4
        path.write_bytes(found)

    return damage


def edit(text: str | None = None, **changes: object) -> Callable[[Path], None]:
    """Return what changes entries of the first line, or puts another in its place."""

    def damage(path: Path) -> None:
        line, _, rows = path.read_bytes().partition(b"\n")
        new = text or json.dumps({**json.loads(line), **changes})
        path.write_bytes(new.encode() + b"\n" + rows)

    return damage


def one_key_less(path: Path) -> None:
    edit(rows=read_shard(path).keys[1:])(path)


def infinities_under_a_right_checksum(path: Path) -> None:
    shard = read_shard(path)
    rows = np.full((len(shard.keys), *shard.shape), np.inf, np.float16)
    write_shard(path.parent, shard.keys, rows)
    path.unlink()


DAMAGES = {
    "shortened": shorten,
    "lengthened": lengthen,
    "a bit of a row": flip_a_bit(-7),
    "a bit of the first line": flip_a_bit(0),
    "entries that lack": edit('{"rows": ["a"]}'),
    "keys that are none": edit(rows=[{}]),
    "a number for keys": edit(rows=5),
    "a key less": one_key_less,
    "infinite number": edit('{"rows": ["a"], "shape": [3], "crc32": Infinity}'),
    "huge number": edit(shape=[10**40]),
    "another shape": edit(shape=[5]),
    "a shape with the same size": edit(shape=[1, 3]),
    "negative shape": edit(shape=[-3]),
    "no shape": edit(shape=[]),
    "no JSON": edit("\x00"),
    "deep JSON": edit("[" * 100_000),
    "infinities": infinities_under_a_right_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_noticed_and_computed_again(folder, views, capsys, damage):
    fill(folder, views)
    damage(data_file(folder))
    frozen = Counting()
    store = fill(folder, views, frozen)
    assert frozen.views == len(views)
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 cached shards of block5_pool-" in line
    assert "computed again" in line
    np.testing.assert_allclose(store.gather(views), means(views), rtol=1e-3)


def test_only_the_damaged_shard_is_computed_again(folder, views):
    fill(folder, views[:4])
    damaged = data_file(folder)
    fill(folder, views)
    flip_a_bit(-7)(damaged)
    frozen = Counting()
    fill(folder, views, frozen)
    assert frozen.views == 4


@pytest.mark.parametrize("harm", [shorten, Path.unlink])
def test_rows_that_vanish_while_they_are_used_are_told_in_one_line(folder, views, harm):
    fill(folder, views)
    store = FeatureStore(folder, SPEC)
    harm(data_file(folder))
    with pytest.raises(CacheEvictedError) as caught:
        store.gather(views[:2])
    assert isinstance(caught.value, AppError)
    assert "\n" not in str(caught.value)
    store.check(views)
    assert missing_views([store], views) == views


def test_activations_beyond_float16_are_clipped_not_infinite(folder, views):
    store = FeatureStore(folder, SPEC)
    compute(lambda images: [np.array([[1e9, -1e9]])], [store], views[:1])
    np.testing.assert_array_equal(store.gather(views[:1]), [[65504, -65504]])


def test_float16_rows_of_the_network_are_kept_as_they_are(folder, views):
    rows = np.array([[1.5, -65504, 0.1]], np.float16)
    store = FeatureStore(folder, SPEC)
    compute(lambda images: [rows], [store], views[:1])
    np.testing.assert_array_equal(store.gather(views[:1]), rows.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nan_is_never_cached(folder, views, dtype):
    store = FeatureStore(folder, SPEC)
    with pytest.raises(AppError, match="received NaN from the frozen network"):
        compute(lambda images: [np.full((1, 2), np.nan, dtype)], [store], views[:1])
    assert views[0] not in FeatureStore(folder, SPEC)


def test_the_next_shard_is_computed_while_one_is_written(folder, views, monkeypatch):
    """Writing the first shard waits here for the second one's computation to have begun."""
    many = [replace(views[1], number=1 + number) for number in range(2 * SHARD_ROWS)]
    began, frozen = threading.Event(), Counting()

    def computing(images: np.ndarray) -> list[np.ndarray]:
        if frozen.views >= SHARD_ROWS:
            began.set()
        return frozen(images)

    append = FeatureStore.append

    def slow_append(self, *arguments) -> None:
        assert began.wait(timeout=30)
        append(self, *arguments)

    monkeypatch.setattr(FeatureStore, "append", slow_append)
    store = FeatureStore(folder, SPEC)
    compute(computing, [store], many)
    assert all(view in store for view in many)


def test_a_shard_that_cannot_be_written_ends_the_work(folder, views, monkeypatch):
    def full(self, *arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureStore, "append", full)
    with pytest.raises(OSError, match="No space left"):
        compute(Counting(), [FeatureStore(folder, SPEC)], views)


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from app.features.extractor import FeatureExtractor
from app.features.extractor import FeatureExtractor
from app.features.store import FeatureSpec, FeatureStore, compute_features, missing_views
from app.data.augmentation import View
sys.path.insert(0, "tests")
from photos import as_photo, make_photo

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
photo = as_photo(make_photo(folder / "one.png"))
views = [View(photo, number, seed=0) for number in range(rows)]
peak = {"RssAnon": 0, "RssFile": 0}

def look():
    status = Path("/proc/self/status").read_text()
    for name in peak:
        peak[name] = max(peak[name], int(re.search(name + r":\\s+(\\d+) kB", status)[1]))

def frozen(images):
    look()
    return [np.ones((len(images), 8, 8, 512), np.float32)]  # block4_pool at 128 pixels

def store():
    return FeatureStore(folder, FeatureSpec("block4_pool", "vgg16", "w", 8, "float32"))

first = store()
compute_features(FeatureExtractor(frozen), [first], views, 8)
second = store()
second.check(views)
assert not missing_views([second], views)
for epoch in range(2):
    order = np.random.default_rng(epoch).permutation(rows)
    for start in range(0, rows, 32):
        second.gather([views[n] for n in order[start : start + 32]])
        look()
print(peak["RssAnon"], peak["RssFile"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it by kind")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """1,500 rows more are 98 MB in float16; mapped pages, RssFile, are counted too."""

    def peak(rows: int) -> np.ndarray:
        folder = tmp_path / str(rows)
        command = [sys.executable, "-c", MEMORY, str(folder), str(rows)]
        told = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
        ).stdout
        print(rows, "rows: RssAnon, RssFile in kB:", told)
        return np.array([int(word) for word in told.split()])

    grown = peak(2000) - peak(500)
    assert (grown < 20_000).all(), grown


@pytest.mark.parametrize("batch", [32, SHARD_ROWS])
def test_larger_batches_give_the_same_rows(folder, views, batch):
    """In shards of the same size, however many views go through the network at once."""
    many = [View(views[0].photo, number, seed=0) for number in range(SHARD_ROWS + 40)]
    asked, stores = [], []
    for size in (BATCH, batch):
        frozen, store = Counting(), FeatureStore(folder / str(size), SPEC)

        def noting(images, frozen=frozen):
            asked.append(len(images))
            return frozen(images)

        compute(noting, [store], many, size)
        stores.append(store)
    small, large = stores
    np.testing.assert_array_equal(small.gather(many), large.gather(many))
    assert asked[-2:] == ([32, 8] if batch == 32 else [SHARD_ROWS, 40])
    assert sorted(len(shard.keys) for shard in large.shards(many)) == [40, SHARD_ROWS]
