"""Nothing is written into the user's folders, and nothing that others wrote is changed or removed.

Files of others lie in every place that a command writes to; each command is run over them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from photos import class_folders, make_photo
from small_vgg import small_network

import app.data.sets.fetch
import app.export.formats
import app.features.cache_command
import app.report.compare
import app.report.model_card
import app.report.notebook
import app.report.report
import app.share.share
import predict
import train
from app.core.cli import run
from app.core.run_folder import Run

SMALLEST = ["--weights", "none", "--image-size", "64", "--views", "1", "--stages", "head"]
SMALLEST += ["--precision", "float32", "--no-report"]
CACHE = f"{os.sep}.features{os.sep}"
Main = Callable[[Sequence[str]], int]
Snapshot = dict[str, tuple[str, int]]


def snapshot(folder: Path) -> Snapshot:
    """Return content and time of every file and link below a folder, and its empty folders."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            found[str(path)] = (str(path.readlink()), status.st_mtime_ns)
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (digest, status.st_mtime_ns)
        elif not any(path.iterdir()):
            found[str(path)] = ("", 0)
    return found


def put(path: Path, content: str = "mine") -> None:
    """Write a file of somebody else's, a day ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    day_ago = path.stat().st_mtime - 86_400
    os.utime(path, (day_ago, day_ago))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a trained run among things of others; ``.features`` has none of those."""
    root = tmp_path_factory.mktemp("tree")
    class_folders(root / "photos", {"cat": 12, "dog": 12})
    for name in ("readme.txt", "cat/.x.jpg.7.part", "cat/cat.html", "dog/notes.csv"):
        put(root / "photos" / name)
    for name in ("notes.txt", "album/1.jpg", "bundle.json", ".first.7.part", ".first.aaaaaaaa/1"):
        put(root / "runs" / name)
    before = snapshot(root)
    argv = ["--data", str(root / "photos"), "--runs", str(root / "runs"), "--run", "first"]
    with small_network():
        assert run(train.main, [*argv, *SMALLEST]) == 0
    assert before.items() <= snapshot(root).items()
    assert set(snapshot(root / "photos")) == {n for n in before if f"{os.sep}photos{os.sep}" in n}
    first = root / "runs" / "first"
    shutil.copytree(first, root / "runs" / "second")
    for name in ("notes.txt", ".notes.txt.7.part", ".bundle.old/1", "unfinished/mine.txt",
                 "unfinished/.mine.7.part", "logs/events.csv", "logs/head/mine", "exports/mine",
                 "bundle/notes.txt", "exports/openvino/mine"):  # fmt: skip
        put(first / name)
    for name in ("compare-first-second.html", "why/notes.txt", "maps/0.jpg.heat.png",
                 "maps/.hidden", "mine.ipynb", "script.py", "small.part"):  # fmt: skip
        put(root / name, "# mine")
    put(root / "runs" / "compare-first-second.html", "<html>mine</html>")
    put(root / "cats_and_dogs_filtered.zip.part", "a browser's")
    return root


def outcome(tree: Path, main: Main, argv: Sequence[str], here: str = "") -> int:
    """Run a command in the tree, check that everything of others is as it was; return its code."""
    before = snapshot(tree)
    ours = [Run(tree / "runs" / "first").model_card, tree / "new", tree / "new.html"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tree / here)
        code = run(main, list(argv))
    after, written = snapshot(tree), tuple(map(str, ours))
    for name, was in before.items():
        assert after.get(name) == was or CACHE in name or name.startswith(written), name
    assert {n for n in after if f"{os.sep}photos{os.sep}" in n} == {
        n for n in before if f"{os.sep}photos{os.sep}" in n
    }, "something was written among the photos"
    return code


def test_runs_among_the_photos_are_refused_with_the_command_that_works(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(tree, train.main, ["--data", ".", *SMALLEST], here="photos") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "python train.py --data . --runs ../photos-runs; then" in error
    assert "python predict.py --runs ../photos-runs PHOTO" in error
    for runs in ("photos", "photos/runs", "photos/cat/runs", "photos/.runs"):
        argv = ["--data", "photos", "--runs", runs, *SMALLEST]
        assert outcome(tree, train.main, argv) == 2
        assert "--runs photos-runs" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_runs_in_a_class_that_is_a_link_are_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(tree / "photos" / name)
    argv = ["--data", str(linked), "--runs", str(tree / "photos" / "cat" / "runs"), *SMALLEST]
    assert outcome(tree, train.main, argv) == 2
    assert "only read" in capsys.readouterr().err


def test_photos_in_what_is_written_are_refused_and_beside_it_warned_of(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("first/exports/photos", ".features/photos"):
        class_folders(tmp_path / "runs" / place, {"cat": 3, "dog": 3})
        (tmp_path / "runs" / "first" / "config.json").parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / "first" / "config.json").touch()
        argv = ["--data", f"runs/{place}", *SMALLEST]
        assert outcome(tmp_path, train.main, argv) == 2
        assert "move them to a folder of their own" in capsys.readouterr().err
    make_photo(tmp_path / "runs" / "photos" / "cat" / "1.jpg")
    assert outcome(tmp_path, train.main, ["--data", "runs/photos", *SMALLEST]) == 2  # one class
    assert "do not remove that as a whole" in capsys.readouterr().err


COMMANDS: list[tuple[Main, str, int]] = [
    (train.main, "--data photos --run first", 2),
    (train.main, "--resume runs/first", 2),
    (predict.main, "photos --csv", 1),
    (predict.main, "photos --csv --explain why", 2),
    (predict.main, "photos --csv --explain photos/why", 2),
    (predict.main, "photos/cat/0.jpg --explain maps", 2),
    (predict.main, "photos/cat/0.jpg --explain new", 0),
    (predict.main, "photos/cat/0.jpg --explain new", 0),  # its own map may be replaced
    (app.report.model_card.main, "runs/first", 0),
    (app.report.model_card.main, "runs/first --readme photos/readme.txt", 2),
    (app.report.compare.main, "runs/first runs/second", 2),
    (app.report.compare.main, "runs/first runs/second --output photos/cat/cat.html", 2),
    (app.report.compare.main, "runs/first runs/second --output new.html", 0),
    (app.report.compare.main, "runs/first runs/second --output new.html", 0),
    (app.report.report.main, "runs/first --notebook mine.ipynb", 2),
    (app.report.notebook.main, "script.py --output mine.ipynb", 2),
    (app.report.notebook.main, "photos/readme.txt", 2),
    (app.export.formats.main, "runs/first openvino", 2),
    (app.share.share.main, "runs/first photos", 2),
    (app.share.share.main, "runs/first photos/site", 2),
    (app.features.cache_command.main, "", 0),
    (app.features.cache_command.main, "--clear", 0),
    (app.data.sets.fetch.main, "drawn photos", 1),
    (app.data.sets.fetch.main, "drawn drawn --per-class 2", 0),
    (app.data.sets.fetch.main, "small photos", 1),
]


@pytest.mark.parametrize(
    ("main", "line", "code"), COMMANDS, ids=lambda value: getattr(value, "__module__", str(value))
)
def test_commands_leave_what_others_wrote(tree: Path, main: Main, line: str, code: int) -> None:
    assert outcome(tree, main, line.split()) == code


def test_a_download_leaves_what_a_browser_has_begun(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(url: str, target: Path, **_: object) -> Path:
        raise app.data.sets.fetch.FetchError("no network")

    monkeypatch.setattr(app.data.sets.fetch, "download", fails)
    assert outcome(tree, app.data.sets.fetch.main, ["small", "small"]) == 1
    assert "no network" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_leaves_what_others_wrote(tree: Path) -> None:
    assert outcome(tree, app.report.report.main, ["runs/first"]) == 0


@pytest.mark.slow
def test_the_cache_leaves_what_others_wrote(tree: Path, tmp_path: Path) -> None:
    """Old files in folders beside the stores, and behind links: photos were deleted by this."""
    disk = tmp_path / "disk"
    shutil.copytree(tree / "photos", tmp_path / "photos")
    for name in ("holiday/IMG1.jpg", "holiday/page.json", "holiday/page.npy", "notes.npy"):
        put(disk / name)
    for place in (tmp_path / "plain" / ".features", tmp_path / "linked"):
        place.mkdir(parents=True)
    shutil.copytree(disk, tmp_path / "plain" / ".features", dirs_exist_ok=True)
    if sys.platform != "win32":
        (tmp_path / "linked" / ".features").symlink_to(disk)
    for runs in ("plain", "linked"):
        argv = ["--data", "photos", "--runs", runs, *SMALLEST, "--cache", "disk"]
        for main, words in (
            (train.main, argv),
            (app.features.cache_command.main, ["--runs", runs, "--clear"]),
        ):
            before = {n: w for n, w in snapshot(tmp_path).items() if w[0] == MINE or "IMG" in n}
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                with small_network():
                    assert run(main, words) == 0
            assert before.items() <= snapshot(tmp_path).items()


MINE = hashlib.sha256(b"mine").hexdigest()
