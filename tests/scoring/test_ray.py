"""``app score --ray``: the same rows from workers in other processes, also when one is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from photos import picture
from ray_cluster import begun, dying, running_cluster
from served import ROOT, tiny_bundle

from app.core.cli import run
from app.core.errors import UsageError
from app.core.ray_workers import RayCluster, RayWorkers
from app.inference.predictor import Classifier
from app.scoring.index import Part, open_index
from app.scoring.parts import rows_of
from app.scoring.score import answer_shards, main
from app.scoring.shard import Shard, shard_work
from app.scoring.sources import find

for library in ("ray", "pyarrow"):
    pytest.importorskip(library, reason="optional and not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(400):
        picture(number, (400, 300)).save(folder / f"{number}.png")
    (folder / "notes.dat").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster") / "log") as found:
        yield found


def rows(output: Path) -> list[dict[str, object]]:
    found = [row for path in (output / "parts").glob("*") for row in rows_of(path)]
    return sorted(found, key=lambda row: str(row["path"]))


def test_workers_give_the_rows_of_one_process(bundle: Path, photos: Path, tmp_path: Path) -> None:
    usual = [str(photos), "--bundle", str(bundle), "--output"]
    assert run(main, [*usual, str(tmp_path / "one")]) == 1
    done = subprocess.run(
        [sys.executable, "-m", "app", "score", *usual, str(tmp_path / "ray"), "--ray", "local"],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    ours = re.compile(r"401 files.*|Scoring: .*")  # nothing of Ray's own
    assert all(map(ours.fullmatch, done.stderr.splitlines())), done.stderr
    assert (tmp_path / ".ray" / "auth_token").exists()
    assert rows(tmp_path / "ray") == rows(tmp_path / "one")
    assert len(list((tmp_path / "ray" / "parts").iterdir())) > 2


def test_a_killed_worker_costs_one_shard(
    address: str, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    classifier = Classifier(bundle)
    parts, log = tmp_path / "parts", tmp_path / "log"
    parts.mkdir()
    how = classifier.thresholds.confidence, classifier.precision, classifier.engine
    make = partial(dying, log, shard_work, bundle, *how, parts, 1)
    workers = RayWorkers[Shard, Part](RayCluster(address, workers=2), make)
    with open_index(tmp_path / "index") as index:
        list(index.add(find([str(photos)])))
        with workers:
            first = workers.processes()
            assert sum(answer_shards(index, workers, 50)) == 401
            assert len({*first} & {*workers.processes()}) == 1  # the other one was replaced
        assert index.counts() == (401, 0)
        assert sum(part.rows for part in index.parts()) == 401
        assert begun(log) == len(index.parts()) + 1
    assert [str(row["path"]) for row in rows(tmp_path)] == sorted(map(str, photos.iterdir()))


def test_what_the_cluster_cannot_do_is_refused_in_a_line(
    address: str, bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [str(photos), "--bundle", str(bundle), "--output", str(tmp_path / "out"), "--ray"]
    for wrong in ("127.0.0.1:1", "here", "ray://127.0.0.1:1"):
        assert run(main, [*usual, wrong]) == UsageError.exit_code
        assert "expected --ray to be local" in capsys.readouterr().err
    assert run(main, [*usual, address, "--workers", "2", "--worker-cpus", "99"]) == 2
    assert "lower --workers" in capsys.readouterr().err
