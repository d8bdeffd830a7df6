"""``python -m app cache``: what it shows of the cache, and clearing it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cached import DAY, left, shards_of_days, spec

from app.core.cli import run
from app.features.cache_command import main
from app.features.cache_folder import FEATURES_FOLDER
from app.features.shards import SPEC_FILE, write_shard

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def shards(runs: Path) -> dict[int, Path]:
    return shards_of_days(runs / FEATURES_FOLDER)


def call(runs: Path, *arguments: str) -> int:
    return run(main, ["--runs", str(runs), *arguments])


def test_the_table_shows_each_store(runs, shards, capsys):
    assert call(runs) == 0
    out = capsys.readouterr().out
    header, *rows = out.splitlines()
    assert re.split(r"\s{2,}| (?=rows)", header.strip()) == [
        *("key", "cut", "pixels", "precision", "backbone", "rows", "size", "last used")
    ]
    assert len(rows) == 3 + 2  # an empty line and the sum
    (line,) = [line for line in rows if line.startswith(spec().key)]
    assert line.split()[1:6] == ["block5_pool", "64", "float32", "vgg16", "4"]
    assert re.search(r"kB  \d{4}-\d\d-\d\d \d\d:\d\d$", line)
    # The one used last comes first.
    assert [row.split()[0] for row in rows[:3]] == [
        spec("block4_pool", 128).key,
        spec().key,
        spec("block4_pool").key,
    ]


def test_json_shows_each_store(runs, shards, capsys):
    assert call(runs, "--json") == 0
    stores = {store["key"]: store for store in json.loads(capsys.readouterr().out)}
    store = stores.pop(spec("block4_pool", 128).key)
    assert len(stores) == 2
    used = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
    assert store.pop("last_used").startswith(used)
    files = shards[1].parent.iterdir()
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


def test_damage_does_not_stop_the_table(runs, shards, capsys):
    """What is not proved to be a store is not shown: it is not ours to clear either."""
    shards[40].write_text("{")
    (shards[20].parent / SPEC_FILE).write_text("[1]")
    write_shard(runs / FEATURES_FOLDER / "other", ["a"], np.ones((1, 3), np.float16))
    assert call(runs) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{spec().key}\s+block5_pool\s+64\s+float32\s+vgg16\s+2 ", out)
    assert spec("block4_pool").key not in out
    assert "other" not in out


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
def test_clearing(runs, shards, capsys, arguments, stay):
    assert call(runs, *arguments) == 0
    assert left(shards) == stay
    err = capsys.readouterr().err
    assert err.startswith(f"removed {len(shards) - len(stay)} cached shards (")
    stores = {shards[days].parent for days in stay}
    assert set((runs / FEATURES_FOLDER).iterdir()) == stores  # an empty one is gone wholly
    assert [store for store in stores if not (store / SPEC_FILE).exists()] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--clear", ""], r"expected the key of a store .*received ;"),
        (
            ["--clear", "block5_pool"],
            f"expected the key of a store in .*{spec().key}.*received block5_pool",
        ),
        (["--clear", "--older-than", "-1"], r"--older-than .*received -1"),
        (["--clear", "--older-than", "nan"], r"--older-than .*received nan"),
        (["--older-than", "3"], r"together with --clear"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_removes_nothing(
    runs, shards, capsys, arguments, told
):
    assert call(runs, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line)
    assert left(shards) == {40, 3, 20, 1}


def test_it_answers_without_keras(runs, shards):
    """Contract 9: in a blink."""
    code = (
        "import sys; from app.features.cache_command import main; main(sys.argv[1:]); "
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


def test_what_is_not_ours_is_counted(runs, shards, capsys):
    """A store whose description is damaged is nobody's, and takes room all the same."""
    (shards[20].parent / SPEC_FILE).write_text("[[")
    assert call(runs) == 0
    assert "1 other files and folders in" in capsys.readouterr().err
