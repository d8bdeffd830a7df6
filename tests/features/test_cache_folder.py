"""The folder of all stores: its limit, and what is removed to keep it."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cached import DAY, left, shards_of_days, spec, view

from app.core.atomic_files import locked, write_json
from app.core.errors import UsageError
from app.features.cache_folder import LOCK_FILE, Quota, clear, list_stores
from app.features.shards import SPEC_FILE, shards_in, store_name
from app.features.store import FeatureStore

BIG = 10**15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def shards(folder: Path) -> dict[int, Path]:
    return shards_of_days(folder)


def make_room(folder: Path, needed: int, limit: int, keep: Iterable[Path] = ()) -> None:
    quota = Quota(folder, limit)
    quota.keep = set(keep)
    with quota.room_for(needed):
        assert written(folder) + needed <= limit or not needed


def written(folder: Path) -> int:
    return Quota(folder, BIG).used()


def size_of(path: Path) -> int:
    return path.stat().st_size


def test_shards_unused_for_longest_go_first_from_every_store(folder, shards, capsys):
    used = sum(map(size_of, shards.values()))
    assert written(folder) == used
    make_room(folder, 0, used)
    assert left(shards) == {40, 3, 20, 1}
    assert capsys.readouterr().err == ""
    make_room(folder, 5000, used)  # a shard has 4 kB of rows and some index
    assert left(shards) == {3, 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("removed 2 cached shards (")
    assert written(folder) + 5000 <= used


def test_what_the_run_needs_stays_however_old(folder, shards):
    make_room(folder, 0, 1, keep={shards[40], shards[20]})
    assert left(shards) == {40, 20}


def test_opening_shards_makes_them_young(folder, shards):
    """The store that a run uses outlives one that was used later than it had been before."""
    FeatureStore(folder, spec()).check([view(80)])  # the shard of 40 days
    make_room(folder, 0, sum(map(size_of, shards.values())) - 1)
    assert left(shards) == {40, 3, 1}


def test_an_opened_store_survives_that_another_run_makes_room(folder, shards):
    old = FeatureStore(folder, spec())
    make_room(folder, 0, 1)
    old.append([view(80)], np.zeros((1, 1000), np.float16))  # it thinks that it has this one
    old.append([view(999)], np.zeros((1, 1000), np.float16))
    assert view(999) in FeatureStore(folder, spec())
    assert (old.folder / SPEC_FILE).exists()


def test_what_interrupted_runs_left_goes_by_age_too(folder, shards):
    """Half-written files, and the two files that a shard was in an earlier version."""
    store = shards[40].parent
    old, young = store / f".{10:032x}.shard.76.part", store / f".{11:032x}.shard.77.part"
    earlier = [store / f"{12:032x}.npy", store / f"{12:032x}.json"]
    future = store / f".{13:032x}.shard.78.part"  # from before the clock was set back
    for path in (old, young, future, *earlier):
        path.write_bytes(b"x" * 100)
        os.utime(path, (time.time() - 50 * DAY,) * 2)
    os.utime(young)
    os.utime(future, (time.time() + DAY,) * 2)
    assert written(folder) == 400 + sum(map(size_of, shards.values()))
    make_room(folder, 0, written(folder) - 300)
    assert [path.exists() for path in (old, *earlier)] == [False] * 3
    assert left(shards) == {40, 3, 20, 1}
    assert future.exists()
    clear(folder)
    assert list(folder.rglob("*.part")) == [young]  # a run may be writing it


# ---- other things in the folder ----


def foreign_files(folder: Path) -> dict[Path, bytes]:
    """Put old files of other people wherever something of ours may lie; return what they hold."""
    names = [
        "holiday/IMG1.jpg",  # a folder of photos
        "holiday/spec.json",  # that describes something else
        "holiday/notes.json",
        "holiday/0a.npy",
        "block5_pool-0123456789abcdef/weights.npy",  # a name like ours, without our description
        f"block5_pool-0123456789abcdef/{7:032x}.json",
        f"block5_pool-0123456789abcdef/{7:032x}.shard",
        f"{spec().key}/notes.json",  # inside a store of ours
        f"{spec().key}/model.onnx",
        f"{spec().key}/table.npy",
        f"{spec().key}/mine.shard",
        f"{spec().key}/{9:064x}.npy",
        f"{spec().key}/.draft.part",
        f"{spec().key}/old/{8:032x}.shard",
        "int8-mine.onnx",
        ".int8-mine.part",
        "thesis.json",
        ".bashrc",
    ]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (time.time() - 100 * DAY,) * 2)
    return {folder / name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("linked", [False, True], ids=["folder", "link to another disk"])
def test_what_we_did_not_write_is_never_removed(tmp_path, linked):
    folder = tmp_path / "runs" / ".features"
    if linked:
        (tmp_path / "disk").mkdir()
        folder.parent.mkdir()
        folder.symlink_to(tmp_path / "disk", target_is_directory=True)
    shards = shards_of_days(folder)
    foreign = foreign_files(folder)
    make_room(folder, 0, 1)  # the least room: every shard goes
    assert left(shards) == set()
    shards = shards_of_days(folder)
    clear(folder, spec().key)
    clear(folder)
    assert {path: path.read_bytes() for path in foreign} == foreign
    assert left(shards) == set()
    assert [store.name for store in folder.iterdir() if store.name.startswith("block4")] == []


def test_a_store_is_proved_by_its_description(folder, shards):
    """One whose description was changed is nobody's: it is neither counted nor removed."""
    (shards[40].parent / SPEC_FILE).write_text('{"cut": "block5_pool"}')
    clear(folder)
    assert left(shards) == {40, 3}
    assert list_stores(folder) == []


# ---- runs that write at once ----


def test_two_runs_at_once_keep_the_limit(folder):
    """Both have found room for their four shards of 2 kB, before either writes; it is the same.

    One removes what the other wrote where it must, and nothing of its own.
    """
    limit = 5 * 2500
    stores = [FeatureStore(folder, spec(size=size), Quota(folder, limit)) for size in (64, 128)]
    for store in stores:
        with store.quota.room_for(4 * 2500):
            pass
    for number in range(4):
        for store in stores:
            own = set(shards_in(store.folder))
            store.append([view(number)], np.ones((1, 1000), np.float16))
            assert written(folder) <= limit
            assert own < set(shards_in(store.folder))
    assert written(folder) > 0.8 * limit


def test_what_has_no_room_is_told_in_one_line_and_not_written(folder):
    quota = Quota(folder, 5000)
    store = FeatureStore(folder, spec(), quota)
    for number in range(2):
        store.append([view(number)], np.ones((1, 1000), np.float16))
    before = written(folder)
    with pytest.raises(UsageError, match=r"expected room for 2\.2 kB more .*larger --cache-limit"):
        store.append([view(2)], np.ones((1, 1000), np.float16))
    assert written(folder) == before
    assert view(2) not in store
    assert view(1) in FeatureStore(folder, spec())


def test_a_shard_is_written_when_no_other_run_writes(folder):
    store = FeatureStore(folder, spec(), Quota(folder, BIG))
    with ThreadPoolExecutor(1) as pool:
        with locked(folder / LOCK_FILE):
            writing = pool.submit(store.append, [view(0)], np.ones((1, 1000), np.float16))
            with pytest.raises(TimeoutError):
                writing.result(timeout=0.3)
            assert written(folder) == 0
        writing.result(timeout=10)
    assert written(folder) > 2000


def test_room_can_be_asked_for_a_folder_that_is_not_there(tmp_path):
    quota = Quota(tmp_path / "not" / "yet", 5)
    assert quota.used() == 0
    assert quota.free() > 0


def test_at_most_half_of_the_free_disk_is_taken(folder, shards, monkeypatch):
    """Two shards of 4.3 kB each are removed where 8 kB lack, and all is refused where more do."""
    one = size_of(shards[40])
    monkeypatch.setattr(Quota, "free", lambda _: 20_000)
    make_room(folder, 10_000, BIG)
    assert left(shards) == {40, 3, 20, 1}
    with pytest.raises(UsageError, match=r"received 20\.0 kB of disk free, half of it"):
        make_room(folder, 10_000 + 3 * one, BIG)
    assert left(shards) == {40, 3, 20, 1}  # nothing is lost for what cannot be had
    make_room(folder, 10_000 + one // 2 + 1, BIG)
    assert left(shards) == {3, 1}


def test_frozen_layers_in_int8_count_and_go_by_age_too(folder, shards):
    spec = {"precision": "int8"}
    path = folder / store_name("int8", spec) / f"{5:064x}.onnx"
    write_json(spec, path.parent / SPEC_FILE)
    path.write_bytes(b"x" * 9000)
    os.utime(path, (time.time() - 30 * DAY,) * 2)
    assert written(folder) == 9000 + sum(map(size_of, shards.values()))
    make_room(folder, 0, written(folder) - size_of(shards[40]) - 1)
    assert left(shards) == {3, 20, 1}
    assert not path.exists()


def test_stores_of_no_runs_folder(tmp_path):
    assert list_stores(tmp_path / "none") == []
