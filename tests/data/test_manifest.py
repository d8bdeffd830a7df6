"""The manifest: what is written is read again, and a file is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.manifest import ManifestRow, read_manifest, write_manifest

ROWS = [
    ManifestRow("cat/0.jpg", "cat", "train", "ab" * 32, "used", "", 500, 375),
    ManifestRow("cat/1.jpg", "cat", "", "", "skipped", "cannot be read: No such file or directory"),
    ManifestRow("dog/2.png", "dog", "test", "cd" * 32, "used", "a JPEG file by its content", 1, 9),
]
ODD_NAMES = [
    "two\nlines.jpg",
    "carriage\rreturn.jpg",
    "\r\n",
    'a "quoted", name.jpg',
    "-rf; rm.jpg",
    "=1+1.jpg",
    " leading and trailing ",
    "猫.jpg",
    "x" * 240 + ".jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    os.fsdecode(bytes(range(128, 256))),
    "\ufeffbom.jpg",
    "line\u2028separator.jpg",
]


def test_round_trip(tmp_path: Path) -> None:
    write_manifest(ROWS, tmp_path / "runs" / "first" / "manifest.csv")
    assert read_manifest(tmp_path / "runs" / "first" / "manifest.csv") == ROWS


def test_no_rows(tmp_path: Path) -> None:
    write_manifest([], tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == []


def test_the_first_line_names_the_columns(tmp_path: Path) -> None:
    write_manifest(ROWS, tmp_path / "manifest.csv")
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    assert lines[0] == (
        '"name","label","split","sha256","verdict","reason","width","height","group","code"'
    )
    assert len(lines) == 1 + len(ROWS)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_survive(tmp_path: Path, name: str) -> None:
    rows = [ManifestRow(name, name, "train", "", "used", name), *ROWS]
    write_manifest(rows, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == rows


def test_bytes_that_are_not_utf_8_are_kept_in_the_file(tmp_path: Path) -> None:
    write_manifest([ManifestRow(os.fsdecode(b"\xe9.jpg"), "", "", "", "used")], tmp_path / "m.csv")
    assert b'\n"\xe9.jpg",' in (tmp_path / "m.csv").read_bytes()


# What a file's name can hold on Linux: any character but zero, and stray bytes as surrogates.
NAMES = st.binary(min_size=1, max_size=40).map(lambda b: os.fsdecode(b.replace(b"\0", b"-")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


@settings(max_examples=100, deadline=None, database=None)
@given(names=st.lists(NAMES, max_size=5))
def test_any_names_survive(folder: Path, names: list[str]) -> None:
    rows = [ManifestRow(name, "cat", "", "", "used") for name in names]
    write_manifest(rows, folder / "manifest.csv")
    assert read_manifest(folder / "manifest.csv") == rows


def stopping() -> Iterator[ManifestRow]:
    yield from ROWS * 1000  # more than any buffer holds
    raise KeyboardInterrupt


@pytest.mark.parametrize("old", [b"the old manifest", None])
def test_contract_2_a_manifest_is_whole_or_not_at_all(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "manifest.csv"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(stopping(), path)
    assert (path.read_bytes() if path.exists() else None) == old
    assert list(tmp_path.iterdir()) == ([path] if old else [])


def test_nothing_can_be_seen_under_the_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"

    def looking() -> Iterator[ManifestRow]:
        for row in ROWS * 1000:
            assert not path.exists()
            yield row

    write_manifest(looking(), path)
    assert len(read_manifest(path)) == 1000 * len(ROWS)
    assert list(tmp_path.iterdir()) == [path]
