"""``app score --ray``: the same rows from workers in other processes, also when one is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from photos import picture
from served import ROOT, tiny_bundle

from app.core.cli import run
from app.core.errors import UsageError
from app.inference.predictor import Classifier
from app.scoring.index import open_index
from app.scoring.parts import rows_of
from app.scoring.score import main
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
    assert len(list((tmp_path / "ray" / "parts").iterdir())) > 8


def test_the_shard_of_a_killed_worker_is_done_again(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    from app.scoring.ray_workers import RayWorkers

    classifier = Classifier(bundle)
    (tmp_path / "parts").mkdir()
    with open_index(tmp_path / "index") as index:
        list(index.add(find([str(photos)])))
        workers = RayWorkers("local", bundle, tmp_path / "parts", classifier, workers=2)
        with workers:
            victim, _ = workers.processes()
            threading.Timer(0.1, os.kill, (victim, signal.SIGKILL)).start()
            begun = time.monotonic()
            for part, files in workers.score(index.waiting(50), 0):
                index.keep(part, files)
            assert time.monotonic() - begun > 0.1
            assert victim not in workers.processes()
        assert index.counts() == (401, 0)
        assert sum(part.rows for part in index.parts()) == 401
    paths = [str(row["path"]) for row in rows(tmp_path)]
    assert paths == sorted(map(str, photos.iterdir()))


def test_what_the_cluster_cannot_do_is_refused_in_a_line(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [str(photos), "--bundle", str(bundle), "--output", str(tmp_path / "out"), "--ray"]
    for address in ("127.0.0.1:1", "here", "ray://127.0.0.1:1"):
        assert run(main, [*usual, address]) == UsageError.exit_code
        assert "expected --ray to be local" in capsys.readouterr().err
    assert run(main, [*usual, "local", "--workers", "2", "--worker-cpus", "99"]) == 2
    assert "lower --workers" in capsys.readouterr().err
