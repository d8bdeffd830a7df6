"""The folder of all stores: its limit, what it shows, and clearing it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.blocks import SPEC_FILE, indices, write_block
from app.cli import run
from app.features import FeatureSpec, FeatureStore, main
from app.photos import Photo
from app.stores import FEATURES_FOLDER, list_stores, make_room, space
from app.views import View

ROOT = Path(__file__).parent.parent
DAY = 86_400
BIG = 10**15


def view(number: int) -> View:
    return View(Photo(Path("p"), "p", "ab" * 32, 0), number, seed=0)


def spec(cut: str = "pooled", size: int = 64) -> FeatureSpec:
    return FeatureSpec(cut, "vgg16", "w", size, "float32")


def add(folder: Path, of: FeatureSpec, number: int, days: float) -> Path:
    """Write a block of 2 rows, 1,000 numbers each, last used so many days ago."""
    store = FeatureStore(folder, of)
    known = set(indices(store.folder))
    store.append([view(number), view(number + 1)], np.ones((2, 1000), np.float16))
    (index,) = set(indices(store.folder)) - known
    os.utime(index, (time.time() - days * DAY,) * 2)
    return index


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def blocks(runs: Path) -> dict[int, Path]:
    """Blocks in two stores: days since their last use → index."""
    folder = runs / FEATURES_FOLDER
    where = {40: spec(), 3: spec(), 20: spec("block4_pool"), 1: spec("block4_pool", 128)}
    return {days: add(folder, of, 2 * days, days) for days, of in where.items()}


def left(blocks: dict[int, Path]) -> set[int]:
    """Return which blocks are there, and make sure that each is whole or gone."""
    for index in blocks.values():
        assert index.exists() == index.with_suffix(".npy").exists()
    return {days for days, index in blocks.items() if index.exists()}


def size_of(index: Path) -> int:
    return index.stat().st_size + index.with_suffix(".npy").stat().st_size


def test_blocks_unused_for_longest_go_first_from_every_store(runs, blocks, capsys):
    folder = runs / FEATURES_FOLDER
    used = sum(map(size_of, blocks.values()))
    assert space(folder, BIG).used == used
    make_room(folder, 0, used, keep=())
    assert left(blocks) == {40, 3, 20, 1}
    assert capsys.readouterr().err == ""
    make_room(folder, 5000, used, keep=())  # a block has 4 kB of rows and some index
    assert left(blocks) == {3, 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("removed 2 cached blocks (")
    assert space(folder, BIG).used + 5000 <= used


def test_what_the_run_needs_stays_however_old(runs, blocks):
    folder = runs / FEATURES_FOLDER
    make_room(folder, 0, 1, keep={blocks[40], blocks[20]})
    assert left(blocks) == {40, 20}


def test_opening_blocks_makes_them_young(runs, blocks):
    """The store that a run uses outlives one that was used later than it had been before."""
    folder = runs / FEATURES_FOLDER
    FeatureStore(folder, spec()).check([view(80)])  # the block of 40 days
    make_room(folder, 0, sum(map(size_of, blocks.values())) - 1, keep=())
    assert left(blocks) == {40, 3, 1}


def test_an_opened_store_survives_that_another_run_makes_room(runs, blocks):
    folder = runs / FEATURES_FOLDER
    old = FeatureStore(folder, spec())
    make_room(folder, 0, 1, keep=())
    old.append([view(80)], np.zeros((1, 1000), np.float16))  # it thinks that it has this one
    old.append([view(999)], np.zeros((1, 1000), np.float16))
    assert view(999) in FeatureStore(folder, spec())
    assert (old.folder / SPEC_FILE).exists()


def test_leftovers_of_broken_off_runs_go_once_they_are_old(runs, blocks):
    folder = blocks[40].parent
    old, young = folder / "0a.npy", folder / ".0b.npy.77.part"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - DAY,) * 2)
    make_room(runs / FEATURES_FOLDER, 0, BIG, keep=())
    assert not old.exists()
    assert young.exists()  # a run may be writing it
    assert left(blocks) == {40, 3, 20, 1}


def test_room_can_be_asked_for_a_folder_that_is_not_there(tmp_path):
    assert space(tmp_path / "not" / "yet", 5).used == 0
    assert space(tmp_path / "not" / "yet", 5).free > 0


# ---- python -m app.features ----


def call(runs: Path, *arguments: str) -> int:
    return run(main, ["--runs", str(runs), *arguments])


def test_the_table_shows_each_store(runs, blocks, capsys):
    assert call(runs) == 0
    out = capsys.readouterr().out
    header, *rows = out.splitlines()
    assert re.split(r"\s{2,}| (?=rows)", header.strip()) == [
        *("key", "cut", "pixels", "precision", "backbone", "rows", "size", "last used")
    ]
    assert len(rows) == 3 + 2  # an empty line and the sum
    (line,) = [line for line in rows if line.startswith(spec().key)]
    assert line.split()[1:6] == ["pooled", "64", "float32", "vgg16", "4"]
    assert re.search(r"kB  \d{4}-\d\d-\d\d \d\d:\d\d$", line)
    # The one used last comes first.
    assert [row.split()[0] for row in rows[:3]] == [
        spec("block4_pool", 128).key,
        spec().key,
        spec("block4_pool").key,
    ]


def test_json_shows_each_store(runs, blocks, capsys):
    assert call(runs, "--json") == 0
    stores = {store["key"]: store for store in json.loads(capsys.readouterr().out)}
    store = stores.pop(spec("block4_pool", 128).key)
    assert len(stores) == 2
    used = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
    assert store.pop("last_used").startswith(used)
    files = blocks[1].parent.iterdir()
    assert store == {
        "key": spec("block4_pool", 128).key,
        "cut": "block4_pool",
        "image_size": 128,
        "precision": "float32",
        "backbone": "vgg16",
        "rows": 2,
        "bytes": sum(path.stat().st_size for path in files),
    }


def test_a_folder_without_stores_is_told(tmp_path, capsys):
    assert call(tmp_path) == 0
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert call(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert list(tmp_path.iterdir()) == []


def test_damage_does_not_stop_the_table(runs, blocks, capsys):
    blocks[40].write_text("{")
    (blocks[20].parent / SPEC_FILE).write_text("[1]")
    write_block(runs / FEATURES_FOLDER / "other", ["a"], np.ones((1, 3), np.float16))
    assert call(runs) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{spec().key}\s+pooled\s+64\s+float32\s+vgg16\s+2 ", out)
    assert re.search(rf"{spec('block4_pool').key}\s+\?\s+\?\s+\?\s+\?\s+2 ", out)
    assert re.search(r"other\s+\?\s+\?\s+\?\s+\?\s+1 ", out)


@pytest.mark.parametrize(
    ("arguments", "stay"),
    [
        (["--clear"], set()),
        (["--clear", spec().key], {20, 1}),
        (["--clear", "--older-than", "10"], {3, 1}),
        (["--clear", spec().key, "--older-than", "10"], {3, 20, 1}),
        (["--clear", "--older-than", "0"], set()),
    ],
)
def test_clearing(runs, blocks, capsys, arguments, stay):
    assert call(runs, *arguments) == 0
    assert left(blocks) == stay
    err = capsys.readouterr().err
    assert err.startswith(f"removed {len(blocks) - len(stay)} cached blocks (")
    stores = {blocks[days].parent for days in stay}
    assert set((runs / FEATURES_FOLDER).iterdir()) == stores  # an empty one is gone wholly
    assert [store for store in stores if not (store / SPEC_FILE).exists()] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--clear", "pooled"], f"expected the key of a store in .*{spec().key}.*received pooled"),
        (["--clear", "--older-than", "-1"], r"--older-than .*received -1"),
        (["--clear", "--older-than", "nan"], r"--older-than .*received nan"),
        (["--older-than", "3"], r"together with --clear"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_removes_nothing(
    runs, blocks, capsys, arguments, told
):
    assert call(runs, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line)
    assert left(blocks) == {40, 3, 20, 1}


def test_it_answers_without_keras(runs, blocks):
    """Contract 9: in a blink."""
    code = (
        "import sys; from app.features import main; main(sys.argv[1:]); "
        "print({'keras', 'onnxruntime', 'tensorflow'} & {m.split('.')[0] for m in sys.modules})"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "--runs", str(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-1] == "set()"


def test_stores_of_no_runs_folder(tmp_path):
    assert list_stores(tmp_path / "none") == []
