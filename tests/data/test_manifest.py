"""The manifest: what is written is read again, and a file is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import UsageError
from app.data.manifest import ManifestRow, excluded_names, read_manifest, write_manifest

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
    assert lines[0] == ",".join(f'"{field.name}"' for field in fields(ManifestRow))
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


# ---- --exclude: every way in which a file may be named ----

DATA = Path("pets")
NAMES = ["cat/1.jpg", "cat/2.jpg", "cat/my cat, asleep.jpg", "dog/1.jpg", "#odd/name", "readme.txt"]


def excluded(tmp_path: Path, text: str, data: Path = DATA) -> set[str]:
    listing = tmp_path / "list.txt"
    listing.write_bytes(text.encode())
    return excluded_names(listing, data, NAMES)


@pytest.mark.parametrize(
    "line",
    [
        "cat/1.jpg",
        "  cat/1.jpg ",
        "./cat/1.jpg",
        "pets/cat/../cat/1.jpg",
        "pets/cat/1.jpg",
        str(Path("pets/cat/1.jpg").absolute()),
        '"cat/1.jpg"',
        "cat/1.jpg,label,2,0.971,says dog",
        '"cat/1.jpg",label,2,0.971,"says dog, not cat"',
        "'cat/1.jpg",
    ],
)
def test_a_file_is_named_in_many_ways(tmp_path: Path, line: str) -> None:
    assert excluded(tmp_path, f"{line}\n") == {"cat/1.jpg"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_lines_that_name_nothing_are_passed_over(tmp_path: Path, end: str, bom: str) -> None:
    lines = ["name,finding,rank,score,reason", "", "# not cats:", "cat/1.jpg", "   ", "dog/1.jpg"]
    assert excluded(tmp_path, bom + end.join(lines)) == {"cat/1.jpg", "dog/1.jpg"}
    assert excluded(tmp_path, bom + end.join(lines[3:])) == {"cat/1.jpg", "dog/1.jpg"}


def test_a_name_with_a_comma_or_a_hash_is_a_name(tmp_path: Path) -> None:
    assert excluded(tmp_path, "cat/my cat, asleep.jpg\n#odd/name\n") == set(NAMES[2:5:2])


def test_an_empty_list_excludes_nothing(tmp_path: Path) -> None:
    assert excluded(tmp_path, "") == set()


def test_a_folder_behind_a_link_may_be_named_by_either_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    for folder in ("real", "link"):
        line = str(tmp_path / folder / "cat" / "1.jpg")
        assert excluded(tmp_path, line, tmp_path / "link") == {"cat/1.jpg"}


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such names")
def test_rows_of_the_manifest_name_what_they_are_about(tmp_path: Path) -> None:
    names = [f"cat/{name}" for name in ODD_NAMES]
    rows = [ManifestRow(name, "cat", "", "", "skipped", "odd, is it not\n?") for name in names]
    write_manifest(rows, tmp_path / "manifest.csv")
    assert excluded_names(tmp_path / "manifest.csv", DATA, names) == set(names)
    assert excluded_names(tmp_path / "manifest.csv", DATA, [*names, "cat/1.jpg"]) == set(names)


def test_a_line_that_names_no_file_is_refused_with_its_number(tmp_path: Path) -> None:
    text = '"cat/two\nlines.jpg",label\ncat/1.jpg\ncat/9.jpg,label\ncat\n../readme.txt\n'
    with pytest.raises(UsageError) as caught:
        excluded(tmp_path, text.partition("\n")[2].partition("\n")[2])
    assert "received 'cat/9.jpg' on line 2, and 2 more such lines" in str(caught.value)
    assert "files of pets in" in str(caught.value)
    with pytest.raises(UsageError, match=r"lines\.jpg' on line 1, and 3 more"):
        excluded(tmp_path, text)
    with pytest.raises(UsageError, match=r"received 'cat/9.jpg' on line 1; write"):
        excluded(tmp_path, "cat/9.jpg")


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    names = ["cat/two\nlines.jpg"]
    (tmp_path / "list.csv").write_text('"cat/two\nlines.jpg",label\ncat/9.jpg\n')
    with pytest.raises(UsageError, match=r"received 'cat/9\.jpg' on line 3"):
        excluded_names(tmp_path / "list.csv", DATA, names)


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match=f"expected --exclude to be a list .*{reason}"):
            excluded_names(path, DATA, NAMES)


def test_a_quote_that_never_ends_is_a_part_of_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"""received '"cat/1\.jpg' on line 1; write"""):
        excluded(tmp_path, '"' + "cat/1.jpg\n" * 20_000)


def test_lists_from_windows_name_the_same_file(tmp_path: Path) -> None:
    text = "name;label\r\ncat\\kätzchen.jpg;cat\r\n"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "list.csv").write_bytes(text.encode(encoding))
        names = [*NAMES, "cat/kätzchen.jpg"]
        assert excluded_names(tmp_path / "list.csv", DATA, names) == {"cat/kätzchen.jpg"}
