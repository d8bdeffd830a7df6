"""Layouts of data folders: which file is which class and split, and what is refused."""

from __future__ import annotations

import os
import sys
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import DataError, UsageError
from app.data.audit import rows_of_others
from app.data.folder_layout import (
    FolderReading,
    LayoutSettings,
    data_folder,
    find_files,
    linked_folders,
    read_folder,
)

CATS_AND_DOGS = {("cat/0.jpg", "cat", None), ("dog/0.jpg", "dog", None)}
PETS = ("cats", "dogs")


def touch(root: Path, *names: str) -> Path:
    """Make empty files: layouts are told by names alone."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def fill(root: Path, *patterns: str, count: int = 12) -> Path:
    """Make so many empty files of each pattern, ``#`` in it the number."""
    return touch(root, *(p.replace("#", str(n)) for p in patterns for n in range(count)))


def found(root: Path) -> set[tuple[str, str, str | None]]:
    files = find_files(root)
    assert [file.path for file in files] == [root / file.name for file in files]
    assert len({file.name for file in files}) == len(files)
    return {(file.name, file.label, file.split) for file in files}


def read(root: Path, **settings: object) -> FolderReading:
    return read_folder(root, LayoutSettings(**settings))


def counts(root: Path, **settings: object) -> dict[str, int]:
    """Return how many files each class has, ``label`` or ``label split``."""
    files = read(root, **settings).files
    return dict(Counter(" ".join(filter(None, (f.label, f.split))) for f in files))


# ---- Class folders, splits, and classes in the names of photos ----

LAYOUTS = {
    "class folders": (("cat/#.jpg", "dog/#.jpg"), {"cat": 12, "dog": 12}),
    "names keep their case": (("Cat/#.jpg", "DOG/#.jpg"), {"Cat": 12, "DOG": 12}),
    "Microsoft's archive": (
        ("PetImages/Cat/#.jpg", "PetImages/Dog/#.jpg", "readme[#].txt"), {"Cat": 12, "Dog": 12}
    ),
    "some folders down": (("a/b/c/cat/#.jpg", "a/b/c/dog/#.jpg"), {"cat": 12, "dog": 12}),
    "a picture beside the only folder": (
        ("photos/cat/#.jpg", "photos/dog/#.jpg", "title.jpg"), {"cat": 12, "dog": 12}
    ),
    "folders in a class belong to it": (
        ("cat/tabby/old/#.jpg", "cat/#.jpg", "dog/x.jpg/#.jpg"), {"cat": 24, "dog": 12}
    ),
    "a folder of papers is no class": (
        ("cat/#.jpg", "dog/#.jpg", "papers/licence#.txt"), {"cat": 12, "dog": 12}
    ),
    "splits": (
        [f"{s}/{p}/#.jpg" for s in ("train", "val", "test") for p in PETS],
        {f"{p} {s}": 12 for s in ("train", "validation", "test") for p in PETS},
    ),
    "splits of other names, a folder without labels": (
        [*(f"{s}_set/{p}/#.jpg" for s in ("training", "test") for p in PETS),
         "single_prediction/cat_or_dog_#.jpg"],
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "doubled splits": (
        [*(f"seg_{s}/seg_{s}/{p}/#.jpg" for s in ("train", "test") for p in PETS),
         "seg_pred/seg_pred/#.jpg"],
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "images in splits": (
        [f"{s}/images/{p}/#.jpg" for s in ("Train", "Dev") for p in PETS],
        {f"{p} {s}": 12 for s in ("train", "validation") for p in PETS},
    ),
    "splits inside one folder": (
        [f"small/{s}/{p}/#.jpg" for s in ("train", "test") for p in PETS],
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "other splits beside the classes": (
        ("cats/#.jpg", "dogs/#.jpg", "test/cats/#.jpg", "test/dogs/#.jpg"),
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "splits inside classes": (
        [f"{p}/{s}/#.jpg" for s in ("train", "test") for p in PETS],
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "only train": (("train/cats/#.jpg", "train/dogs/#.jpg"), {"cats": 12, "dogs": 12}),
    "train, and photos to predict": (
        ("train/cats/#.jpg", "train/dogs/#.jpg", "test/#.jpg"), {"cats": 12, "dogs": 12}
    ),
    "classes called like splits": (
        ("train/#.jpg", "bus/#.jpg", "car/#.jpg"), {"train": 12, "bus": 12, "car": 12}
    ),
    "photos to be predicted beside classes": (
        ("cats/#.jpg", "dogs/#.jpg", "test1/#.jpg", "unlabelled/#.jpg", "seg_pred/#.jpg"),
        {"cats": 12, "dogs": 12},
    ),
    "photos to be predicted in a folder of no class": (
        [*(f"{s}/{p}/#.jpg" for s in ("train", "val") for p in PETS), "test/unknown/#.jpg"],
        {f"{p} {s}": 12 for s in ("train", "validation") for p in PETS},
    ),
    "photos to be predicted in folders of helpers": (
        ("train/cats/images/#.jpg", "train/dogs/images/#.jpg", "val/images/#.jpg",
         "test/test/#.jpg"),
        {"cats": 12, "dogs": 12},
    ),
    "a class of trains called so": (
        ("train/train_#.jpg", "bus/bus_#.jpg", "car/car_#.jpg"),
        {"train": 12, "bus": 12, "car": 12},
    ),
    "Kaggle's train and test1": (
        ("train/cat.#.jpg", "train/dog.#.jpg", "test1/#.jpg"), {"cat": 12, "dog": 12}
    ),
    "flat splits": (
        [f"{s}/{p}.#.jpg" for s in ("train", "test") for p in PETS],
        {f"{p} {s}": 12 for s in ("train", "test") for p in PETS},
    ),
    "flat inside one folder": (("photos/cat.#.jpg", "photos/dog.#.jpg"), {"cat": 12, "dog": 12}),
    "breeds of two words": (
        ("american_bulldog_#.jpg", "Abyssinian_#.jpg", "great dane (#).jpg"),
        {"american_bulldog": 12, "abyssinian": 12, "great dane": 12},
    ),
    "annotations beside images": (
        ("images/Abyssinian_#.jpg", "images/american_bulldog_#.jpg",
         "annotations/trimaps/Abyssinian_#.png", "annotations/trimaps/american_bulldog_#.png"),
        {"abyssinian": 12, "american_bulldog": 12},
    ),
    "masks beside images, in each class": (
        [f"{p}/{part}/#.png" for p in PETS for part in ("images", "masks")],
        {"cats": 12, "dogs": 12},
    ),
    "classes in images": (
        ("images/cats/#.jpg", "images/dogs/#.jpg", "labels/#.png"), {"cats": 12, "dogs": 12}
    ),
    "masks beside their photos": (
        ("benign/a (#).png", "benign/a (#)_mask.png", "mask/#.png", "mask/#_mask_1.png"),
        {"benign": 12, "mask": 12},
    ),
    "a copy of the whole beside the classes": (
        ("yes/#.jpg", "no/#.jpg", "brain/yes/#.jpg", "brain/no/#.jpg"), {"yes": 12, "no": 12}
    ),
    "photos without a label beside train": (
        ("train/cats/#.jpg", "train/dogs/#.jpg", "unlabeled/#.jpg"), {"cats": 12, "dogs": 12}
    ),
    "a number of three digits": (("101/#.jpg", "102_cats/#.jpg"), {"101": 12, "102_cats": 12}),
    "stray pictures": (
        ("cat/#.jpg", "dog/#.jpg", "example_1.jpg", "montage_1.jpg"), {"cat": 12, "dog": 12}
    ),
    "names of cameras": (
        ("cat/#.jpg", "dog/#.jpg", "IMG_#.jpg", "DSC#.jpg"), {"cat": 12, "dog": 12}
    ),
    "photos win over folders of one kind": (
        ("cat.#.jpg", "dog.#.jpg", "originals/x.jpg"), {"cat": 12, "dog": 12}
    ),
    "photos win over folders of helpers": (
        ("cat.#.jpg", "dog.#.jpg", "originals/#.jpg", "thumbs/#.jpg"), {"cat": 12, "dog": 12}
    ),
    "one name in two classes": (("cat/a/#.jpg", "dog/a/#.jpg"), {"cat": 12, "dog": 12}),
    "one class, judged later": (("cat/#.jpg",), {"cat": 12}),
}  # fmt: skip


@pytest.mark.parametrize(("names", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path: Path, names: list[str], expected: dict[str, int]) -> None:
    assert counts(fill(tmp_path, *names)) == expected


TWO_READINGS = {
    "unknown outer folders": (
        [f"{outer}/{p}/#.jpg" for outer in "ab" for p in PETS],
        r"\(a, b\): --layout folders; .*\(cats, dogs\): --layout subfolders",
        {"folders": {"a": 24, "b": 24}, "subfolders": {"cats": 24, "dogs": 24}},
    ),
    "the same names of photos in two folders": (
        [f"{outer}/{p}_#.jpg" for outer in ("day1", "day2") for p in PETS],
        r"\(day1, day2\): --layout folders; .*\(cats, dogs\): --layout flat",
        {"folders": {"day1": 24, "day2": 24}, "flat": {"cats": 24, "dogs": 24}},
    ),
    "one folder called like a split": (
        ("train/steam/#.jpg", "train/diesel/#.jpg", "bus/#.jpg", "car/#.jpg"),
        r"\(bus, car, train\): --layout folders; .*\(diesel, steam\): --data .*/train",
        {"folders": {"train": 24, "bus": 12, "car": 12}},
    ),
    "photos called by classes beside folders": (
        ("cat.#.jpg", "dog.#.jpg", "young/#.jpg", "old/#.jpg"),
        r"\(old, young\): --layout folders; .*\(cat, dog\): --layout flat",
        {"folders": {"young": 12, "old": 12}, "flat": {"cat": 12, "dog": 12}},
    ),
    "loose photos of more kinds than folders": (
        ("beach_#.jpg", "city_#.jpg", "cat/1.jpg", "dog/#.jpg"),
        r"\(cat, dog\): --layout folders; .*\(beach, city\): --layout flat",
        {"folders": {"cat": 1, "dog": 12}},
    ),
    "loose photos and a folder of classes": (
        ("pets/cat/#.jpg", "pets/dog/#.jpg", "beach_#.jpg", "city_#.jpg"),
        r"\(cat, dog\): --data .*/pets; .*\(beach, city\): --layout flat",
        {"folders": {"cat": 12, "dog": 12}, "flat": {"beach": 12, "city": 12}},
    ),
    "one folder of photos called by classes": (
        ("pets/cat_#.jpg", "pets/dog_#.jpg", "more/#.jpg"),
        r"\(more, pets\): --layout folders; .*\(cat, dog\): --data .*/pets",
        {"folders": {"pets": 24, "more": 12}},
    ),
}


@pytest.mark.parametrize(("names", "said", "forced"), TWO_READINGS.values(), ids=TWO_READINGS)
def test_where_two_readings_remain_a_flag_decides(
    tmp_path: Path, names: list[str], said: str, forced: dict[str, dict[str, int]]
) -> None:
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=said):
        find_files(tmp_path)
    for layout, expected in forced.items():
        assert counts(tmp_path, layout=layout) == expected


NO_CLASSES = {
    "splits without labels": (("train/#.jpg", "test/#.jpg"), "test/, train/: names of splits"),
    "splits without labels beside another folder": (
        ("train/#.jpg", "test/#.jpg", "bus/#.jpg"),
        "with test/, train/: names of splits",
    ),
    "splits with images and labels": (
        [f"{s}/{p}" for s in ("train", "valid") for p in ("images/#.jpg", "labels/#.txt")],
        "images/: names of splits or of helpers",
    ),
    "a number of its own in each name": (("cat_#_640x480.jpg",), "12 photos and 12 classes"),
    "helpers": (("images/#.jpg", "thumbs/#.jpg"), "images/, thumbs/: names of splits or of help"),
    "folders of a camera": (
        ("DCIM/100CANON/#.jpg", "DCIM/101_PANA/#.jpg"),
        "100CANON/, 101_PANA/: names of splits",
    ),
    "days": (("2024-05-31/#.jpg", "20240601/#.jpg"), "names of splits or of helpers"),
    "splits in the names of photos": (("train_#.jpg", "test_#.jpg"), "names of splits or of help"),
    "no train": ([f"{s}/{p}/#.jpg" for s in ("val", "test") for p in PETS], "train/ beside valid"),
    "two folders for a split": (
        [f"{s}/{p}/#.jpg" for s in ("train", "val", "valid") for p in PETS],
        "one folder for validation; received val/ and valid/",
    ),
    "other classes in a split": (
        [f"{s}/{p}/#.jpg" for s, p in (("train", "cat"), ("train", "dog"), ("test", "cat"))],
        r"train \(cat, dog\) .*received cat in test, which differs by dog",
    ),
    "nothing": ((), r"class folders .*cat\.0\.jpg.*received"),
    "names of cameras only": (("IMG_#.jpg", "DSC#.jpg"), "holds none of these"),
    "numbers only": (("#.jpg", "a.txt", "cat/.hidden"), "holds none of these"),
    "no photos called by a class": (("cat/#.jpg",), "--layout flat", "flat"),
    "no folders in folders": (("cat/#.jpg",), "--layout subfolders", "subfolders"),
    "no table": (("cat/#.jpg",), "name it with --labels", "table"),
}


@pytest.mark.parametrize("case", NO_CLASSES.values(), ids=NO_CLASSES)
def test_what_gives_no_classes_is_refused(tmp_path: Path, case: tuple[str, ...]) -> None:
    names, said, *layout = case
    with pytest.raises(DataError, match=said):
        read(fill(tmp_path, *names), layout=layout[0] if layout else None)


@pytest.mark.parametrize(("name", "others"), [("train", ("bus", "car")), ("images", PETS)])
def test_a_class_called_like_no_class_is_said(
    tmp_path: Path, name: str, others: tuple[str, ...]
) -> None:
    reading = read(fill(tmp_path, *(f"{each}/#.jpg" for each in (name, *others))))
    assert reading.notes == [f"{name}/ is read as a class; if it is none, move it away"]


@pytest.mark.parametrize(
    "name",
    ["cat.0.jpg", "CAT.12499.JPG", "cat_7.png", "cat-7.png", "cat 7.jpeg", "cat (7).jpg",
     "cat7.jpg"],
)  # fmt: skip
def test_class_before_number(tmp_path: Path, name: str) -> None:
    assert found(touch(tmp_path, name, "猫.0.jpg", "17.jpg", "readme2.txt")) == {
        (name, "cat", None),
        ("猫.0.jpg", "猫", None),
    }


def test_files_are_in_the_order_of_split_and_name(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{pet}/{n}.jpg" for split in ("test", "train", "val")
                      for pet in ("dog", "cat") for n in "ba"))  # fmt: skip
    assert [file.name for file in find_files(tmp_path)][:5] == [
        "train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg", "train/dog/b.jpg",
        "val/cat/a.jpg",
    ]  # fmt: skip


def test_what_is_no_photo_is_listed_for_the_audit_to_judge(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.jpg", "cat/Thumbs.db", "dog/0.jpg")
    assert ("cat/Thumbs.db", "cat", None) in found(tmp_path)


# ---- Names of classes ----


def test_names_are_compared_composed_and_without_outer_blanks(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "kätzchen")
    fill(tmp_path, "train/kätzchen/#.jpg", "train/hund/#.jpg",
         f"val/{decomposed} /#.jpg", "val/ hund/#.jpg")  # fmt: skip
    assert counts(tmp_path) == {
        f"{label} {split}": 12
        for label in ("kätzchen", "hund")
        for split in ("train", "validation")
    }


def test_names_that_differ_in_case_only_are_said_or_joined(tmp_path: Path) -> None:
    fill(tmp_path / "one", "Cat/#.jpg", "cat/#.jpg", "cat/more/#.jpg", "dog/#.jpg")
    assert counts(tmp_path / "one") == {"Cat": 12, "cat": 24, "dog": 12}
    assert "Cat and cat; --join-case" in read(tmp_path / "one").notes[0]
    assert counts(tmp_path / "one", join_case=True) == {"cat": 36, "dog": 12}
    fill(tmp_path / "two", "train/Cat/#.jpg", "train/dog/#.jpg", "val/cat/#.jpg", "val/dog/#.jpg")
    with pytest.raises(DataError, match="or add --join-case"):
        find_files(tmp_path / "two")
    assert set(counts(tmp_path / "two", join_case=True)) == {
        "Cat train", "Cat validation", "dog train", "dog validation"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["unsure", "UNSURE "])
def test_the_name_of_an_answer_is_no_class(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"an answer of its own; received {name.strip()}"):
        find_files(touch(tmp_path, "cat/1.jpg", f"{name}/1.jpg"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses such names")
def test_a_blank_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a name for each class"):
        find_files(touch(tmp_path, "cat/1.jpg", " /1.jpg"))


# ---- Links, folders of systems, and what is not used ----


def test_what_systems_put_there_never_counts_and_is_accounted_for(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.jpg", "dog/0.jpg", "loose.jpg")
    hidden = {"cat/._0.jpg", "cat/.DS_Store", "cat/.thumbnails/0.jpg", "cat/__MACOSX/0.jpg",
              "cat/@eaDir/0.jpg/SYNO.jpg", "@eaDir/0.jpg", ".git/0.jpg", "$RECYCLE.BIN/0.jpg",
              "#recycle/0.jpg", "System Volume Information/0.jpg", "lost+found/0.jpg",
              "__MACOSX/cat/._0.jpg"}  # fmt: skip
    reading = read(touch(tmp_path, *hidden))
    assert {file.name for file in reading.files} == {"cat/0.jpg", "dog/0.jpg"}
    assert reading.others == {**dict.fromkeys(hidden, "hidden"), "loose.jpg": "no_class"}
    rows = rows_of_others(reading.others)
    assert {(row.verdict, row.code) for row in rows} == {
        ("skipped", "hidden"),
        ("skipped", "no_class"),
    }
    assert all(row.reason for row in rows)


def test_people_may_call_classes_almost_anything(tmp_path: Path) -> None:
    names = {"$5", "#cats", "a.b", "_x", "recycled", "~"}
    assert set(counts(touch(tmp_path, *(f"{name}/0.jpg" for name in names)))) == names


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, disk = tmp_path / "pets", tmp_path / "disk"
    fill(disk, "#.jpg", "more/#.jpg", count=3)
    touch(root, "cat/a/0.jpg", "dog/a/0.jpg")
    (root / "cat" / "external").symlink_to(disk)
    (root / "dog" / "again").symlink_to(disk / "more")
    (root / "dog" / "cats").symlink_to(root / "cat")
    (root / "dog" / "loop").symlink_to(root)
    (root / "dog" / "up").symlink_to(tmp_path)
    (disk / "itself").symlink_to(disk)
    (root / "dog" / "self").symlink_to(root / "dog" / "self")
    assert counts(root) == {"cat": 7, "dog": 2}  # a link to itself is a file that cannot be read
    assert read(root).others == dict.fromkeys(
        ("dog/again", "dog/cats", "dog/loop", "dog/up", "cat/external/itself"), "link"
    )
    assert linked_folders(root) == [root / "cat" / "external"]


def test_classes_may_be_links(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "photos" / "cat" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "photos" / name)
    assert found(tmp_path / "linked") == CATS_AND_DOGS


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "cat/0.jpg", "dog/0.jpg", "lost+found/0.jpg")
    scandir = os.scandir
    closed = {"lost+found"}

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:  # chmod would not stop root
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert read(tmp_path).others == {"lost+found": "unreadable"}
    closed.add("dog")
    with pytest.raises(DataError, match=r"dog .*Permission denied"):
        find_files(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        find_files(tmp_path / "none")


def test_folders_within_folders_end(tmp_path: Path) -> None:
    touch(tmp_path, "/".join("a" * 600) + "/0.jpg")
    try:
        with pytest.raises(DataError, match="a few folders within each other"):
            find_files(tmp_path)
    finally:  # shutil.rmtree would not come so deep
        (tmp_path / "/".join("a" * 600) / "0.jpg").unlink()
        os.removedirs(tmp_path / "/".join("a" * 600))


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


@pytest.mark.parametrize(
    ("name", "said"),
    [("cat.jpg", r"\(a file\); name the folder"), ("none", "nothing there.*python -m app fetch")],
)
def test_what_is_no_folder_is_refused_with_a_remedy(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "cat.jpg").touch()
    with (
        pytest.raises(UsageError, match=said),
        data_folder(tmp_path / name),
    ):
        pass
