"""``--exclude``: every way in which a person may name a file, and no name that means none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.errors import UsageError
from app.data.manifest import ManifestRow, excluded_names, write_manifest
from tests.data.test_manifest import ODD_NAMES

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


def test_a_quote_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="field larger than field limit"):
        excluded(tmp_path, '"' + "cat/1.jpg\n" * 20_000)
