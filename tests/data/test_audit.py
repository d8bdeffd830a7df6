"""The audit: each file is used or skipped with a reason, and none is touched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from photos import class_folders, make_photo, picture, shared_folder

from app.core.errors import DataError
from app.data.audit import MIN_PHOTOS, audit, judge, mark_duplicates
from app.data.folder_layout import find_files
from app.data.manifest import ManifestRow


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


# ---- near-duplicates: the same picture in other bytes ----

SAME = 99  # the seed of the picture that lies in several files


def save_again(path: Path, quality: int) -> None:
    picture(SAME).save(path, quality=quality)


@pytest.fixture
def own_splits(tmp_path: Path) -> Path:
    splits = ("train", "validation", "test")
    return class_folders(tmp_path, {f"{split}/{c}": 11 for split in splits for c in ("cat", "dog")})


def test_near_duplicates_without_splits_are_used_noted_and_grouped(pets: Path) -> None:
    for quality in (60, 70, 80):
        save_again(pets / "cat" / f"q{quality}.jpg", quality)
    rows = audited(pets)
    assert skipped(rows) == {}
    found = {name: row for name, row in rows.items() if row.group}
    assert {name: row.reason for name, row in found.items()} == {
        "cat/q60.jpg": "nearly the same picture as cat/q70.jpg",
        "cat/q70.jpg": "nearly the same picture as cat/q60.jpg",
        "cat/q80.jpg": "nearly the same picture as cat/q60.jpg",
    }
    smallest = min(row.sha256 for row in found.values())
    assert {row.group for row in found.values()} == {smallest}


def test_of_near_duplicates_across_given_splits_those_of_test_stay(own_splits: Path) -> None:
    save_again(own_splits / "test" / "cat" / "a.jpg", 60)
    save_again(own_splits / "test" / "cat" / "b.jpg", 65)
    save_again(own_splits / "validation" / "cat" / "c.jpg", 70)
    save_again(own_splits / "train" / "cat" / "d.jpg", 75)
    save_again(own_splits / "train" / "cat" / "e.jpg", 80)
    rows = audited(own_splits)
    assert skipped(rows) == dict.fromkeys(
        ("validation/cat/c.jpg", "train/cat/d.jpg", "train/cat/e.jpg"),
        "nearly the same picture as test/cat/a.jpg",
    )
    assert rows["test/cat/a.jpg"].reason == "nearly the same picture as test/cat/b.jpg"
    assert rows["test/cat/b.jpg"].reason == "nearly the same picture as test/cat/a.jpg"


def test_of_near_duplicates_in_train_and_validation_the_latter_stays(own_splits: Path) -> None:
    save_again(own_splits / "validation" / "dog" / "a.jpg", 60)
    save_again(own_splits / "train" / "dog" / "b.jpg", 80)
    rows = audited(own_splits)
    reason = "nearly the same picture as validation/dog/a.jpg"
    assert skipped(rows) == {"train/dog/b.jpg": reason}
    assert rows["validation/dog/a.jpg"].reason == ""


def test_near_duplicates_of_another_class_stay_and_say_so(own_splits: Path) -> None:
    save_again(own_splits / "test" / "cat" / "a.jpg", 60)
    save_again(own_splits / "train" / "dog" / "b.jpg", 70)
    save_again(own_splits / "train" / "dog" / "c.jpg", 80)
    rows = audited(own_splits)
    assert skipped(rows) == {}
    in_cat = "nearly the same picture as test/cat/a.jpg, which lies in the class cat"
    in_dog = "nearly the same picture as train/dog/b.jpg, which lies in the class dog"
    reasons = {name: row.reason for name, row in rows.items() if row.reason}
    names = ("train/dog/b.jpg", "train/dog/c.jpg")
    assert reasons == {"test/cat/a.jpg": in_dog, **dict.fromkeys(names, in_cat)}
    assert rows["test/cat/a.jpg"].group == rows["train/dog/b.jpg"].group != ""


def test_a_wrong_suffix_is_noted_beside_the_near_duplicate(pets: Path) -> None:
    save_again(pets / "cat" / "x.jpg", 60)
    save_again(pets / "cat" / "y.jpg", 80)
    (pets / "cat" / "y.jpg").rename(pets / "cat" / "y.png")
    reason = "a JPEG file by its content; nearly the same picture as cat/x.jpg"
    assert audited(pets)["cat/y.png"].reason == reason


def test_copies_and_near_duplicates_at_once(own_splits: Path) -> None:
    """A copy that is skipped makes no near-duplicate of the file that stays."""
    save_again(own_splits / "test" / "cat" / "a.jpg", 60)
    copy(own_splits / "test" / "cat" / "a.jpg", own_splits / "train" / "cat" / "copy.jpg")
    rows = audited(own_splits)
    assert skipped(rows) == {"train/cat/copy.jpg": "a copy of test/cat/a.jpg"}
    assert {row.group for row in rows.values()} == {""}


# ---- what the user excludes ----


def test_excluded_files_are_as_if_they_were_not_there(pets: Path) -> None:
    """Their copies are used, also one in another class."""
    (pets / "cat" / "x.jpg").write_bytes(b"text")
    copy(pets / "dog" / "1.jpg", pets / "dog" / "y.jpg")
    copy(pets / "dog" / "2.jpg", pets / "cat" / "z.jpg")
    names = ("cat/x.jpg", "dog/1.jpg", "cat/z.jpg")
    judged = judge(find_files(pets))
    rows = mark_duplicates(judged, dict.fromkeys(names, "excluded by list.txt"))
    assert skipped({row.name: row for row in rows}) == dict.fromkeys(names, "excluded by list.txt")
    assert {row.reason for row in rows if row.verdict == "used"} == {""}


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
    with pytest.raises(DataError, match=r"at least 5 .* cat: 5, dog: 4 .*the file is empty"):
        audit(find_files(pets))


def test_copies_do_not_count(pets: Path) -> None:
    copy(pets / "dog" / "1.jpg", pets / "dog" / "0.jpg")
    with pytest.raises(DataError, match=r"cat: 5, dog: 4 .*a copy of"):
        audit(find_files(pets))


def test_one_class_is_refused_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two classes or more; received cat: 12"):
        audit(find_files(class_folders(tmp_path, {"cat": 12})))


def test_no_files_are_refused() -> None:
    with pytest.raises(DataError, match="received no files"):
        audit([])


def test_a_folder_that_is_no_class_is_named(pets: Path) -> None:
    (pets / "papers").mkdir()
    (pets / "papers" / "scan.jpg").write_text("all rights reserved")
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


@pytest.mark.weights
def test_the_near_duplicates_of_the_small_set_are_found_across_its_splits() -> None:
    """Two pairs, one within train and one across the splits; no other photo is like another."""
    folder = shared_folder() / "data" / "cats_vs_dogs_small"
    files = [file for file in find_files(folder) if file.label == "dog" or file.name[-5] == "0"]
    rows = {row.name: row for row in audit(files)}
    assert {name: row.reason for name, row in rows.items() if row.reason} == {
        "train/dog/dog.180.jpg": "nearly the same picture as train/dog/dog.74.jpg",
        "train/dog/dog.74.jpg": "nearly the same picture as train/dog/dog.180.jpg",
        "train/dog/dog.980.jpg": "nearly the same picture as validation/dog/dog.1273.jpg",
    }
    assert set(skipped(rows)) == {"train/dog/dog.980.jpg"}
