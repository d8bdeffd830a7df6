"""What ``predict.py FOLDER`` reads: the same files as ``train.py`` takes for somebody's photos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.folder_tree import scan
from predict import expand


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_are_followed_once_and_folders_of_systems_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "disk", "1.jpg", "2.jpg")
    touch(tmp_path / "photos", "a/0.jpg", "b.jpg", ".hidden.jpg", "@eaDir/b.jpg", "$RECYCLE.BIN/x",
          "a/__MACOSX/._0.jpg", "#recycle/9.jpg", "a/.thumbnails/0.jpg")  # fmt: skip
    (tmp_path / "photos" / "external").symlink_to(tmp_path / "disk")
    (tmp_path / "photos" / "a" / "again").symlink_to(tmp_path / "disk")
    (tmp_path / "photos" / "a" / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    photos = list(expand(["photos"]))
    assert photos == sorted(photos)
    assert set(photos) == {f"photos/{n}" for n in ("a/0.jpg", "b.jpg", "external/1.jpg",
                                                   "external/2.jpg")}  # fmt: skip


def test_a_given_folder_is_read_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path / "@eaDir", "x.jpg")
    assert list(expand([str(tmp_path / "@eaDir")])) == [str(tmp_path / "@eaDir" / "x.jpg")]


def test_a_folder_that_cannot_be_listed_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list(expand([str(tmp_path)])) == [str(tmp_path / "a"), str(tmp_path / "b" / "2.jpg")]
    assert scan(tmp_path).closed == {"a": "Permission denied"}
