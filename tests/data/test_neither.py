"""Photos that show none of the classes: found in ``neither/``, split as a class is."""

from __future__ import annotations

from pathlib import Path

import pytest
from photos import class_folders, make_photo

from app.core.config import TrainConfig
from app.core.errors import DataError, UsageError
from app.data.folder_layout import SPLITS, LayoutSettings, find_files
from app.data.inventory import take_inventory
from app.data.manifest import class_names, neither_photos_of, photos_of
from app.data.splits import class_weights
from app.pipeline import train


def strangers(root: Path, neither: Path | None = None) -> set[tuple[str, str | None, str]]:
    files = [
        file
        for file in find_files(root, LayoutSettings(neither=neither))
        if file.label == "neither"
    ]
    return {(file.name, file.split, file.kind) for file in files}


@pytest.mark.parametrize("name", ["neither", "Neither", "NEITHER"])
def test_beside_the_class_folders_its_sub_folders_are_kinds(tmp_path: Path, name: str) -> None:
    for path in ("cat/0.jpg", "dog/0.jpg", f"{name}/fox/red/1.jpg", f"{name}/2.jpg"):
        make_photo(tmp_path / path)
    assert strangers(tmp_path) == {
        (f"{name}/fox/red/1.jpg", None, "fox"),
        (f"{name}/2.jpg", None, ""),
    }
    assert {file.label for file in find_files(tmp_path)} == {"cat", "dog", "neither"}


@pytest.mark.parametrize("train", ["train/", ""])
def test_inside_and_beside_splits(tmp_path: Path, train: str) -> None:
    for split in (train, "test/"):
        for label in ("cat", "dog"):
            make_photo(tmp_path / f"{split}{label}" / "0.jpg")
    make_photo(tmp_path / "test" / "neither" / "wolf" / "0.jpg")
    make_photo(tmp_path / "neither" / "1.jpg")
    assert strangers(tmp_path) == {
        ("test/neither/wolf/0.jpg", "test", "wolf"),
        ("neither/1.jpg", None, ""),
    }


def test_beside_photos_that_are_called_by_their_class(tmp_path: Path) -> None:
    for path in ("cat.0.jpg", "dog.0.jpg", "neither/0.jpg"):
        make_photo(tmp_path / path)
    assert strangers(tmp_path) == {("neither/0.jpg", None, "")}


def test_another_folder_may_be_named(tmp_path: Path) -> None:
    for path in ("pets/cat/0.jpg", "pets/dog/0.jpg", "pets/wild/fox/0.jpg", "wild/wolf/0.jpg"):
        make_photo(tmp_path / path)
    pets = tmp_path / "pets"
    assert strangers(pets, pets / "wild") == {("wild/fox/0.jpg", None, "fox")}
    outside = (tmp_path / "wild" / "wolf" / "0.jpg").as_posix()
    assert strangers(pets, tmp_path / "wild") == {(outside, None, "wolf")}


def test_runs_are_not_written_among_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets", {"cat": 1, "dog": 1})
    class_folders(tmp_path / "wild", {"fox": 1})
    config = TrainConfig(
        data=tmp_path / "pets", neither=tmp_path / "wild", runs=tmp_path / "wild" / "runs"
    )
    with pytest.raises(UsageError, match=r"outside of the photos.*which is in .*wild"):
        train(config)


@pytest.mark.parametrize("given", ["pets", "none", "cat.jpg"])
def test_what_cannot_be_a_folder_of_strangers_is_refused(tmp_path: Path, given: str) -> None:
    make_photo(tmp_path / "pets" / "cat" / "0.jpg")
    make_photo(tmp_path / "cat.jpg")
    with pytest.raises(UsageError, match="expected --neither to be a folder"):
        find_files(tmp_path / "pets", LayoutSettings(neither=tmp_path / given))


def test_a_class_may_have_a_folder_of_this_name(tmp_path: Path) -> None:
    """Only beside the classes, or in a split, it holds photos of none of them."""
    for path in ("cat/neither/0.jpg", "cat/1.jpg", "dog/0.jpg"):
        make_photo(tmp_path / path)
    assert strangers(tmp_path) == set()


def test_the_label_means_the_same_in_a_table_and_in_names_of_photos(tmp_path: Path) -> None:
    for path in ("cat.0.jpg", "dog.0.jpg", "Neither.0.jpg"):
        make_photo(tmp_path / path)
    assert strangers(tmp_path) == {("Neither.0.jpg", None, "")}
    (tmp_path / "labels.csv").write_text("file,label\ncat.0.jpg,NEITHER\ndog.0.jpg,dog\n")
    files = find_files(tmp_path, LayoutSettings(labels=tmp_path / "labels.csv"))
    assert {(file.name, file.label) for file in files} == {
        ("cat.0.jpg", "neither"),
        ("dog.0.jpg", "dog"),
    }


def test_they_are_split_as_a_class_and_are_none(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "pets", {"cat": 12, "dog": 12})
    class_folders(tmp_path / "wild", {"fox": 30, "wolf": 30})
    rows = take_inventory(root, data=root, seed=0, layout=LayoutSettings(neither=tmp_path / "wild"))
    assert class_names(rows) == ("cat", "dog")
    found = {split: neither_photos_of(rows, split, root) for split in SPLITS}
    assert all(found.values())
    assert len(found["train"]) > 30
    assert {each.kind for each in found["train"]} == {"fox", "wolf"}
    assert all(each.photo.path.is_file() for split in SPLITS for each in found[split])
    used = [photo for split in SPLITS for photo in photos_of(rows, split, root)]
    assert len(used) == 24
    assert not {photo.path for photo in used} & {each.photo.path for each in found["train"]}


def test_too_few_are_refused_and_they_make_no_second_class(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"cat": 12, "neither": 12})
    with pytest.raises(DataError, match="photos of two classes or more"):
        take_inventory(root, data=root, seed=0)
    class_folders(tmp_path, {"dog": 12})
    for number in range(3, 12):
        (tmp_path / "neither" / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"at least 10 usable photos of neither; .* neither: 3"):
        take_inventory(root, data=root, seed=0)


def test_they_do_not_put_the_classes_out_of_balance(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path, {"cat": 12, "dog": 12, "neither": 60})
    rows = take_inventory(root, data=root, seed=0)
    assert "out of balance" not in capfd.readouterr().err
    labels = [row.label for row in rows if row.split == "train" and row.label != "neither"]
    assert class_weights(labels) is None
