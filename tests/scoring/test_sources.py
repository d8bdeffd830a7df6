"""What a source means, one file at a time."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from app.core.cli import run
from app.core.folder_tree import scan, stream
from app.scoring import score, sources
from app.scoring.index import open_index
from app.scoring.sources import find


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def paths(*given: str | Path) -> list[str]:
    return [found.path for found in find(map(str, given))]


def test_a_stream_gives_the_files_of_a_scan(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "1.jpg", "deep/er/2.jpg")
    touch(tmp_path / "photos", "a/0.jpg", "b.jpg", ".hidden.jpg", "@eaDir/b.jpg", "$RECYCLE.BIN/x",
          "a/__MACOSX/._0.jpg", "#recycle/9.jpg", "a/.thumbnails/0.jpg", "a/b/c/d.png")  # fmt: skip
    photos = tmp_path / "photos"
    (photos / "external").symlink_to(tmp_path / "disk")
    (photos / "a" / "again").symlink_to(tmp_path / "disk")
    (photos / "a" / "loop").symlink_to(tmp_path)
    (photos / "a" / "link.jpg").symlink_to(photos / "b.jpg")
    (photos / "dangling.jpg").symlink_to(tmp_path / "nothing")
    streamed = [str(entry.path) for entry in stream(photos)]  # type: ignore[union-attr]
    real = sorted(os.path.realpath(path) for path in streamed)
    scanned = [os.path.realpath(photos / name) for name in scan(photos).root.below()]
    assert len(streamed) == 7 and real == sorted(scanned)


def test_a_folder_that_cannot_be_listed_is_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert sorted(paths(tmp_path)) == [str(tmp_path / "a"), str(tmp_path / "b" / "2.jpg")]


def test_paths_are_absolute_and_only_links_keep_their_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    monkeypatch.chdir(tmp_path / "b")
    assert paths("./2.jpg", "2.jpg", ".") == [str(tmp_path / "b" / "2.jpg")] * 3
    assert paths("../a") == [f"{tmp_path}/b/../a/1.jpg"]
    assert paths("no*.jpg", "gone.jpg") == [f"{tmp_path}/b/no*.jpg", f"{tmp_path}/b/gone.jpg"]
    assert next(iter(find(["gone.jpg"])))[2:] == (0, None, None)


def test_a_long_list_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{number:05}.jpg" for number in range(500)))
    names = sorted(map(str, tmp_path.iterdir()))
    rows = "".join(f'{name},"a, ""b""\nc"\n' for name in names)
    monkeypatch.setattr(sources, "BLOCK", 1000)
    text = f"path,words\n{rows}".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    blocks = list(sources._blocks(io.BytesIO(text)))  # type: ignore[arg-type]
    assert len(blocks) > 20 and b"".join(blocks).rstrip() == text.rstrip()
    assert paths("-") == names


def test_a_list_in_a_list_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(str(tmp_path / "a.txt"))
    assert paths(tmp_path / "a.txt") == [str(tmp_path / "a.txt")]


def test_the_index_finds_what_is_new_or_changed(tmp_path: Path) -> None:
    touch(tmp_path / "in", "1", "2", "3")
    with open_index(tmp_path / "index") as index:
        for _ in range(2):
            assert list(index.add(find([str(tmp_path / "in")]))) == []
            assert index.counts() == (3, 3)
        shards = list(index.waiting(2))
        assert [len(shard) for shard in shards] == [2, 1]
        (tmp_path / "in" / "2").write_text("changed")
        touch(tmp_path / "in", "4")
        list(index.add(find([str(tmp_path / "in")])))
        assert index.counts() == (4, 4)
        assert len({each.number for shard in index.waiting(9) for each in shard}) == 4


@pytest.mark.parametrize("library", ["pyarrow", "ray"])
def test_what_is_missing_is_said_in_a_line(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    assert run(score.main, ["photos", "--output", str(tmp_path / "out"), "--ray", "local"]) == 2
    message = capsys.readouterr().err
    assert f"pip install {library}" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()
