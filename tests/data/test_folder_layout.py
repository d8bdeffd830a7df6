"""Layouts of data folders: which file is which class and split."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from photos import class_folders, make_photo

from app.core.errors import DataError, UsageError
from app.data.audit import rows_of_others
from app.data.folder_layout import SPLIT_NAMES, data_folder, find_files

CATS_AND_DOGS = {("cat/0.jpg", "cat", None), ("dog/0.jpg", "dog", None)}


def touch(root: Path, *names: str) -> Path:
    """Make empty files: layouts are told by names alone."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path) -> set[tuple[str, str, str | None]]:
    files = find_files(root)
    assert [file.path for file in files] == [root / file.name for file in files]
    assert len({file.name for file in files}) == len(files)
    return {(file.name, file.label, file.split) for file in files}


def test_class_folders(tmp_path: Path) -> None:
    assert found(touch(tmp_path, "cat/0.jpg", "dog/0.jpg")) == CATS_AND_DOGS


def test_three_classes_and_files_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.jpg", "cat/1.jpg", "dog/a.jpg", "bird/1.jpg")
    assert [file.name for file in find_files(tmp_path)] == [
        "bird/1.jpg",
        "cat/1.jpg",
        "dog/a.jpg",
        "dog/b.jpg",
    ]


def test_names_of_classes_keep_their_case(tmp_path: Path) -> None:
    assert {label for _, label, _ in found(touch(tmp_path, "Cat/0.jpg", "DOG/0.jpg"))} == {
        "Cat",
        "DOG",
    }


@pytest.mark.parametrize("beside", [(), ("readme[1].txt", "CDLA-Permissive-2.0.pdf")])
def test_class_folders_inside_one_folder(tmp_path: Path, beside: tuple[str, ...]) -> None:
    """Microsoft's archive holds PetImages/Cat, PetImages/Dog and papers beside PetImages."""
    touch(tmp_path, "PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg", *beside)
    assert found(tmp_path) == {
        ("PetImages/Cat/0.jpg", "Cat", None),
        ("PetImages/Dog/0.jpg", "Dog", None),
    }


def test_class_folders_several_folders_down(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/c/cat/0.jpg", "a/b/c/dog/0.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}


@pytest.mark.parametrize("spelling", SPLIT_NAMES)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_every_spelling_of_a_split(tmp_path: Path, spelling: str, change: type[str]) -> None:
    split = SPLIT_NAMES[spelling]
    folders = {"train": "train", "validation": "validation", "test": "test"}
    folders[split] = change(spelling)
    touch(tmp_path, *(f"{f}/{c}/0.jpg" for f in folders.values() for c in ("cat", "dog")))
    assert found(tmp_path) == {
        (f"{folder}/{label}/0.jpg", label, name)
        for name, folder in folders.items()
        for label in ("cat", "dog")
    }


def test_the_names_people_give_splits_are_known() -> None:
    assert set(SPLIT_NAMES) == {
        "train", "training", "validation", "valid", "val", "test", "testing"
    }  # fmt: skip


def test_two_of_three_splits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/0.jpg" for s in ("train", "val") for c in ("cat", "dog")))
    assert {split for _, _, split in found(tmp_path)} == {"train", "validation"}


def test_splits_inside_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"small/{s}/{c}/0.jpg" for s in ("train", "test") for c in ("cat", "dog")))
    assert {split for _, _, split in found(tmp_path)} == {"train", "test"}


def test_only_train_is_a_folder_without_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/0.jpg", "train/dog/0.jpg")
    assert {(label, split) for _, label, split in found(tmp_path)} == {("cat", None), ("dog", None)}


def test_validation_and_test_without_train_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/0.jpg" for s in ("val", "test") for c in ("cat", "dog")))
    with pytest.raises(DataError, match=r"train/ beside val/ and test/"):
        find_files(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/cat/0.jpg" for s in ("train", "val", "valid")))
    with pytest.raises(DataError, match="one folder for validation; received val/ and valid/"):
        find_files(tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "valid/a.jpg", "invalid/a.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"valid", "invalid"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("CAT.12499.JPG", "cat"),
        ("cat_7.png", "cat"),
        ("cat-7.png", "cat"),
        ("cat 7.jpeg", "cat"),
        ("cat (7).jpg", "cat"),
        ("cat7.jpg", "cat"),
        ("猫7.jpg", "猫"),
    ],
)
def test_class_before_number(tmp_path: Path, name: str, label: str) -> None:
    assert found(touch(tmp_path, name, "dog.0.jpg")) == {
        (name, label, None),
        ("dog.0.jpg", "dog", None),
    }


def test_names_without_class_or_number_have_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "cat.0.jpg", "dog.0.jpg", "17.jpg", "readme2.txt", "sample_submission.csv")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}


def test_kaggles_flat_train_beside_unlabelled_test1(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg", "sampleSubmission.csv")
    assert found(tmp_path) == {
        ("train/cat.0.jpg", "cat", None),
        ("train/dog.0.jpg", "dog", None),
    }


def test_flat_splits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}.0.jpg" for s in ("train", "test") for c in ("cat", "dog")))
    assert {(label, split) for _, label, split in found(tmp_path)} == {
        (label, split) for label in ("cat", "dog") for split in ("train", "test")
    }


def test_flat_inside_one_folder(tmp_path: Path) -> None:
    assert len(found(touch(tmp_path, "photos/cat.0.jpg", "photos/dog.0.jpg"))) == 2


def test_folders_in_a_class_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "cat/tabby/old/0.jpg", "cat/0.jpg", "dog/x.jpg/0.jpg")
    assert found(tmp_path) == {
        ("cat/tabby/old/0.jpg", "cat", None),
        ("cat/0.jpg", "cat", None),
        ("dog/x.jpg/0.jpg", "dog", None),
    }


def test_a_folder_named_like_a_photo_is_no_file(tmp_path: Path) -> None:
    touch(tmp_path, "cat.0.jpg", "dog.0.jpg")
    (tmp_path / "cat" / "x.jpg").mkdir(parents=True)
    assert "cat/x.jpg" not in {name for name, _, _ in found(touch(tmp_path, "cat/y.jpg"))}


def test_hidden_files_and_what_macos_adds_are_no_photos(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cat/0.jpg",
        "cat/._0.jpg",
        "cat/.DS_Store",
        "cat/.thumbnails/0.jpg",
        "cat/__MACOSX/0.jpg",
        "dog/0.jpg",
        ".git/0.jpg",
        "__MACOSX/cat/._0.jpg",
        ".DS_Store",
    )
    assert found(tmp_path) == CATS_AND_DOGS


def test_hidden_files_do_not_hide_the_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, ".DS_Store", "pets/.DS_Store", "pets/cat/0.jpg", "pets/dog/0.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}


def test_what_is_no_photo_is_listed_for_the_audit_to_judge(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.jpg", "cat/Thumbs.db", "dog/0.jpg")
    assert ("cat/Thumbs.db", "cat", None) in found(tmp_path)


def test_one_class_is_found_and_judged_later(tmp_path: Path) -> None:
    assert found(touch(tmp_path, "cat/a.jpg")) == {("cat/a.jpg", "cat", None)}


def test_splits_with_different_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/0.jpg", "train/dog/0.jpg", "test/cat/0.jpg", "test/dogs/0.jpg")
    with pytest.raises(DataError, match=r"train \(cat, dog\) .*received cat, dogs in test"):
        find_files(tmp_path)


@pytest.mark.parametrize("names", [(), ("a.txt",), ("1.jpg", "2.jpg"), ("cat/.hidden",)])
def test_a_folder_without_a_layout_is_refused_and_told_the_layouts(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=r"expected class folders .*cat\.0\.jpg.*received"):
        find_files(touch(tmp_path, *names))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        find_files(tmp_path / "none")


def test_links_to_folders_count_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "photos" / "cat" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "photos" / name)
    assert found(tmp_path / "linked") == CATS_AND_DOGS


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "cat/0.jpg", "dog/0.jpg", "dog/closed/0.jpg")
    iterdir = Path.iterdir

    def refusing(path: Path) -> Iterator[Path]:  # chmod would not stop root, who runs many tests
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(DataError, match=r"closed .*Permission denied"):
        find_files(tmp_path)


ODD_NAMES = ["two\nlines.jpg", "\"quoted\" 'twice'.jpg", "-rf.jpg", "猫.jpg", " .jpg", "a,b;c.jpg",
             "x" * 236 + ".jpg", "back\\slash.jpg", "%s{}.jpg", "[a]*?.jpg"]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses such names")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path: Path, name: str) -> None:
    assert (f"cat/{name}", "cat", None) in found(touch(tmp_path, f"cat/{name}", "dog/0.jpg"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert (f"cat/{name}", "cat", None) in found(touch(tmp_path, f"cat/{name}", "dog/0.jpg"))


# ---- --data ----


def packed(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    with data_folder(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()


ARCHIVES = {
    "class folders": ("cat/0.jpg", "dog/0.jpg", "__MACOSX/cat/._0.jpg"),
    "one folder": ("pets/cat/0.jpg", "pets/dog/0.jpg"),
    "Microsoft's": ("PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg", "readme[1].txt"),
    "flat": ("cat.0.jpg", "dog.0.jpg"),
    "Kaggle's train.zip": ("train/cat.0.jpg", "train/dog.0.jpg"),
    "splits": ("train/cat/0.jpg", "train/dog/0.jpg", "test/cat/0.jpg", "test/dog/0.jpg"),
}


@pytest.mark.parametrize("names", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("archive", ["photos.zip", "PHOTOS.ZIP"])
def test_a_zip_is_unpacked_for_as_long_as_it_is_needed(
    tmp_path: Path, archive: str, names: tuple[str, ...]
) -> None:
    path = packed(tmp_path / archive, *names)
    before = path.read_bytes()
    with data_folder(path) as folder:
        assert {label.lower() for _, label, _ in found(folder)} == {"cat", "dog"}
        assert tmp_path not in folder.parents
    assert not folder.exists()
    assert not folder.parent.exists()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_unpacked_folder_goes_after_an_error_too(tmp_path: Path) -> None:
    seen = []
    with pytest.raises(ZeroDivisionError), data_folder(packed(tmp_path / "a.zip", "a")) as folder:
        seen.append(folder)
        raise ZeroDivisionError
    assert not seen[0].parent.exists()


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="damaged"), data_folder(tmp_path / "a.zip"):
        pass


@pytest.mark.parametrize(("name", "reason"), [("cat.jpg", "a file"), ("none", "nothing there")])
def test_what_is_no_folder_is_refused_with_a_remedy(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "cat.jpg").touch()
    with (
        pytest.raises(UsageError, match=rf"{reason}.*python -m app fetch"),
        data_folder(tmp_path / name),
    ):
        pass


# ---- What fits no layout is not lost ----


def test_breeds_of_two_words_are_classes(tmp_path: Path) -> None:
    for name in ("american_bulldog_12.jpg", "Abyssinian_1.jpg", "great dane (3).jpg"):
        make_photo(tmp_path / name)
    labels = {file.label for file in find_files(tmp_path)}
    assert labels == {"american_bulldog", "abyssinian", "great dane"}


@pytest.mark.parametrize("folders", [["originals"], ["originals", "thumbs"]])
def test_labelled_photos_win_over_folders_beside_them(tmp_path: Path, folders: list[str]) -> None:
    for name in ("cat.0.jpg", "dog.0.jpg", *(f"{folder}/x.jpg" for folder in folders)):
        make_photo(tmp_path / name)
    assert {file.label for file in find_files(tmp_path)} == {"cat", "dog"}


def test_other_files_get_a_row_with_the_reason(tmp_path: Path) -> None:
    class_folders(tmp_path, {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/dog": 1})
    make_photo(tmp_path / "dev" / "cat" / "0.jpg")
    make_photo(tmp_path / "loose.jpg")
    (tmp_path / ".hidden").touch()
    rows = rows_of_others(tmp_path, find_files(tmp_path))
    assert sorted(row.name for row in rows) == ["dev/cat/0.jpg", "loose.jpg"]
    assert {(row.verdict, row.reason) for row in rows} == {("skipped", "its place gives no class")}


@pytest.mark.parametrize("name", ["unsure", "UNSURE "])
def test_the_name_of_an_answer_is_no_class(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"an answer of its own; received {name.strip()}"):
        find_files(touch(tmp_path, "cat/1.jpg", f"{name}/1.jpg"))
