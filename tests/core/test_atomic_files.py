"""Files and folders are whole or not there: after any failure all is as it was."""

import json
import math
from pathlib import Path

import pytest

from app.core.atomic_files import open_whole, whole, whole_folder, write_json
from app.core.errors import FetchError

OLD = '{"old": true}\n'


@pytest.fixture(params=[True, False], ids=["old file", "no file"])
def place(request, tmp_path) -> Path:
    """Where to write, with an older file there or without."""
    path = tmp_path / "folder" / "file.json"
    if request.param:
        path.parent.mkdir()
        path.write_text(OLD)
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def by_path(path: Path, failure: BaseException | None = None) -> None:
    with whole(path) as temporary:
        temporary.write_text("new")
        if failure:
            raise failure


def by_file(path: Path, failure: BaseException | None = None) -> None:
    with open_whole(path) as file:
        file.write("new")
        file.flush()
        if failure:
            raise failure


WAYS = pytest.mark.parametrize("write", [by_path, by_file])


@WAYS
def test_what_succeeds_replaces_the_old_file(write, place):
    write(place)
    assert contents(place.parent) == {"file.json": "new"}


@WAYS
@pytest.mark.parametrize("failure", [ValueError, OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(write, failure, place):
    before = contents(place.parent)
    with pytest.raises(failure):
        write(place, failure())
    assert contents(place.parent) == before
    write(place)  # and the next attempt is not hindered
    assert contents(place.parent) == {"file.json": "new"}


@WAYS
def test_until_the_block_ends_the_old_file_is_read(write, place, monkeypatch):
    seen = []
    replace = Path.replace

    def looking(self: Path, target: Path) -> Path:
        seen.append((target.read_text() if target.exists() else None, self.read_text()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", looking)
    old = place.read_text() if place.exists() else None
    write(place)
    assert seen == [(old, "new")]  # what is renamed is whole already


def test_a_temporary_that_was_never_written_is_a_failure(place):
    before = contents(place.parent)
    with pytest.raises(FileNotFoundError), whole(place):
        pass
    assert contents(place.parent) == before


def test_names_that_are_not_utf8_are_written(place):
    with open_whole(place) as file:
        file.write("cat/\udcff.jpg\n")
    assert place.read_bytes() == b"cat/\xff.jpg\n"


def test_json_comes_back_as_it_was(place):
    value = {"zahl": 0.1, "leer": None, "Katze": "猫", "rows": [[1, 2], [3, 4]]}
    write_json(value, place)
    assert json.loads(place.read_text(encoding="utf-8")) == value
    assert place.read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_is_no_number(number, place):
    before = contents(place.parent)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"accuracy": [0.5, number]}, place)
    assert contents(place.parent) == before


def test_json_refuses_what_it_does_not_know(place):
    before = contents(place.parent)
    with pytest.raises(TypeError):
        write_json({"path": place}, place)
    assert contents(place.parent) == before


# ---- folders ----


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_at_the_end(tmp_path, exists):
    target = tmp_path / "deep" / "out"
    if exists:
        target.mkdir(parents=True)
    with whole_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        (folder / "b").mkdir()
        (folder / "b" / "c.txt").write_text("c")
        assert not target.exists() or not any(target.iterdir())
    assert contents(tmp_path) == {"deep/out/a.txt": "a", "deep/out/b/c.txt": "c"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_no_folder(tmp_path, failure):
    with pytest.raises(failure), whole_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_no_folder(tmp_path):
    with (
        pytest.raises(FetchError, match="No space left on device") as caught,
        whole_folder(tmp_path / "out") as folder,
    ):
        (folder / "a.txt").write_text("a")
        raise OSError(28, "No space left on device")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_nothing_is_written_over_or_merged(tmp_path, kind):
    target = tmp_path / "out"
    old = target if kind == "file" else target / "old.txt"
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")
    before = contents(tmp_path)
    with pytest.raises(FetchError, match="holds something already"), whole_folder(target):
        raise AssertionError("the block must not begin")
    assert contents(tmp_path) == before


def test_lists_of_whole_numbers_take_one_line(tmp_path):
    values = {"confusion": [[3, 0], [-1, 25]], "shares": [0.5, 1], "names": ["[\n  1\n]"]}
    write_json(values, tmp_path / "file.json")
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == values
    assert "    [3, 0],\n    [-1, 25]\n" in text
    assert "[\n    0.5,\n    1\n" in text
