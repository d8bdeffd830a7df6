"""The audit: each file is used or skipped with a reason, and none is touched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from photos import class_folders, make_photo, shared_folder

from app.audit import MIN_PHOTOS, audit
from app.errors import DataError
from app.files import find_files
from app.manifest import ManifestRow


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return class_folders(tmp_path, {"cat": MIN_PHOTOS, "dog": MIN_PHOTOS})


def audited(root: Path) -> dict[str, ManifestRow]:
    files = find_files(root)
    rows = audit(files)
    assert [row.name for row in rows] == [file.name for file in files]
    assert all(row.verdict == "used" or row.reason for row in rows)
    return {row.name: row for row in rows}


def skipped(rows: dict[str, ManifestRow]) -> dict[str, str]:
    return {name: row.reason for name, row in rows.items() if row.verdict == "skipped"}


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def test_sound_photos_are_used_and_described(pets: Path) -> None:
    rows = audited(pets)
    assert skipped(rows) == {}
    row = rows["cat/3.jpg"]
    content = hashlib.sha256((pets / "cat" / "3.jpg").read_bytes()).hexdigest()
    assert row == ManifestRow("cat/3.jpg", "cat", "", content, "used", "", 48, 32)


def test_what_is_no_whole_photo_is_skipped_with_its_reason(pets: Path) -> None:
    photo = (pets / "cat" / "0.jpg").read_bytes()
    (pets / "cat" / "empty.jpg").touch()
    (pets / "cat" / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (pets / "dog" / "notes.txt").write_text("feed the dog")
    (pets / "dog" / "dangling.jpg").symlink_to(pets / "none")
    reasons = skipped(audited(pets))
    assert set(reasons) == {"cat/empty.jpg", "cat/cut.jpg", "dog/notes.txt", "dog/dangling.jpg"}
    assert "empty" in reasons["cat/empty.jpg"]
    assert "damaged" in reasons["cat/cut.jpg"]
    assert "text" in reasons["dog/notes.txt"]
    assert "No such file" in reasons["dog/dangling.jpg"]


def test_a_skipped_file_that_can_be_read_has_its_digest_and_no_size(pets: Path) -> None:
    (pets / "cat" / "x.jpg").write_bytes(b"text")
    row = audited(pets)["cat/x.jpg"]
    assert row.sha256 == hashlib.sha256(b"text").hexdigest()
    assert (row.width, row.height) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_does_not_stop_the_audit(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe.jpg")
    assert skipped(audited(pets)) == {"cat/pipe.jpg": "not a regular file"}


def test_of_copies_in_a_class_the_first_is_used(pets: Path) -> None:
    copy(pets / "cat" / "3.jpg", pets / "cat" / "copy.jpg")
    copy(pets / "cat" / "3.jpg", pets / "cat" / "another copy.jpg")
    assert skipped(audited(pets)) == {
        "cat/another copy.jpg": "a copy of cat/3.jpg",
        "cat/copy.jpg": "a copy of cat/3.jpg",
    }


def test_of_copies_across_given_splits_the_test_copy_stays(tmp_path: Path) -> None:
    splits = ("train", "validation", "test")
    class_folders(tmp_path, {f"{split}/{c}": 10 for split in splits for c in ("cat", "dog")})
    for split in ("train", "validation"):
        copy(tmp_path / "test" / "cat" / "3.jpg", tmp_path / split / "cat" / "a.jpg")
    copy(tmp_path / "validation" / "dog" / "5.jpg", tmp_path / "train" / "dog" / "b.jpg")
    rows = audited(tmp_path)
    assert skipped(rows) == {
        "train/cat/a.jpg": "a copy of test/cat/3.jpg",
        "validation/cat/a.jpg": "a copy of test/cat/3.jpg",
        "train/dog/b.jpg": "a copy of validation/dog/5.jpg",
    }
    assert rows["test/cat/3.jpg"].split == "test"


def test_the_same_file_in_two_classes_is_used_in_neither(pets: Path) -> None:
    make_photo(pets / "cat" / "both.jpg", seed=99)
    copy(pets / "cat" / "both.jpg", pets / "dog" / "both.jpg")
    copy(pets / "cat" / "both.jpg", pets / "dog" / "both again.jpg")
    reason = "the same file lies in the classes cat and dog"
    assert skipped(audited(pets)) == dict.fromkeys(
        ("cat/both.jpg", "dog/both.jpg", "dog/both again.jpg"), reason
    )


def test_damaged_copies_are_damaged_not_copies(pets: Path) -> None:
    for folder in ("cat", "dog"):
        (pets / folder / "x.jpg").write_bytes(b"text")
    assert set(skipped(audited(pets)).values()) == {"not a photo: text"}


@pytest.mark.parametrize("name", ["wrong.png", "none", "wrong.txt", "right.JPG", "right.jpeg"])
def test_a_wrong_suffix_is_noted_and_the_photo_used(pets: Path, name: str) -> None:
    photo = make_photo(pets.parent / "photo.jpg", seed=99)
    copy(photo, pets / "cat" / name)
    photo.unlink()
    row = audited(pets)[f"cat/{name}"]
    assert row.verdict == "used"
    assert row.reason == ("" if name.startswith("right") else "a JPEG file by its content")


def test_files_without_a_jfif_header_are_used(pets: Path) -> None:
    for path in sorted((pets / "cat").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:2] + data[4 + int.from_bytes(data[4:6], "big") :])
        assert b"JFIF" not in path.read_bytes()
    assert skipped(audited(pets)) == {}


def test_too_few_photos_are_refused_with_the_counts(pets: Path) -> None:
    (pets / "dog" / "0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"at least 10 .* cat: 10, dog: 9 .*the file is empty"):
        audit(find_files(pets))


def test_copies_do_not_count(pets: Path) -> None:
    copy(pets / "dog" / "1.jpg", pets / "dog" / "0.jpg")
    with pytest.raises(DataError, match=r"cat: 10, dog: 9 .*a copy of"):
        audit(find_files(pets))


def test_one_class_is_refused_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two classes or more; received cat: 12"):
        audit(find_files(class_folders(tmp_path, {"cat": 12})))


def test_no_files_are_refused() -> None:
    with pytest.raises(DataError, match="received no files"):
        audit([])


def test_a_folder_that_is_no_class_is_named(pets: Path) -> None:
    (pets / "papers").mkdir()
    (pets / "papers" / "licence.txt").write_text("all rights reserved")
    with pytest.raises(DataError, match=r"papers: 0 .*move the folder that is no class away"):
        audit(find_files(pets))


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such names")
def test_odd_names_are_used(pets: Path) -> None:
    names = ["two\nlines.jpg", "-rf.jpg", "猫.jpg", "x" * 240 + ".jpg", os.fsdecode(b"\xff.jpg")]
    for number, name in enumerate(names):
        make_photo(pets / "cat" / name, seed=number)
    rows = audited(pets)
    assert skipped(rows) == {}
    assert {f"cat/{name}" for name in names} < set(rows)


Snapshot = dict[str, tuple[int, int, int, bytes | str]]


def snapshot(root: Path) -> Snapshot:
    """Everything about a folder that a user could miss: names, modes, times, links and bytes."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.lstat().st_ino,
            str(path.readlink())
            if path.is_symlink()
            else (path.read_bytes() if path.is_file() else b""),
        )
        for path in [root, *root.rglob("*")]
    }


def test_contract_1_the_users_photos_are_read_only(pets: Path) -> None:
    photo = (pets / "cat" / "0.jpg").read_bytes()
    (pets / "cat" / "empty.jpg").touch()
    (pets / "cat" / "cut.jpg").write_bytes(photo[:300])
    (pets / "cat" / "wrong.png").write_bytes(photo + b"garbage")
    (pets / "cat" / "copy.jpg").write_bytes(photo)
    (pets / "cat" / ".hidden.jpg").write_bytes(photo)
    (pets / "dog" / "same file.jpg").write_bytes((pets / "cat" / "1.jpg").read_bytes())
    (pets / "dog" / "dangling.jpg").symlink_to("none")
    make_photo(pets / "cat" / "more" / "fine.jpg", seed=99)
    make_photo(pets / "cat" / "more" / "finer.jpg", seed=98)
    before = snapshot(pets)
    rows = audited(pets)
    assert len(skipped(rows)) == 6
    assert snapshot(pets) == before


@pytest.mark.weights
def test_no_known_photo_is_lost() -> None:
    folder = shared_folder() / "data" / "cats_vs_dogs_small"
    files = [file for file in find_files(folder) if file.split == "validation"]
    assert len(files) == 1000
    assert skipped({row.name: row for row in audit(files)}) == {}
