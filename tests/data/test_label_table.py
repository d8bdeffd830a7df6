"""Labels in a table beside the photos, or in one that is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from app.core.config import TrainConfig
from app.core.errors import DataError, UsageError
from app.data.folder_layout import LayoutSettings, read_folder


def photos(root: Path, folder: str, count: int = 12, suffix: str = "png") -> None:
    for number in range(count):
        path = root / folder / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def table(path: Path, header: str, count: int = 12, row: str = "{},{}") -> Path:
    """Write a table in which even numbers are frogs and odd ones trucks."""
    rows = [row.format(n, ("frog", "truck")[n % 2]) for n in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*filter(None, [header]), *rows]) + "\n")
    return path


def counts(root: Path, **settings: object) -> dict[str, int]:
    files = read_folder(root, LayoutSettings(**settings)).files
    return dict(Counter(" ".join(filter(None, (f.label, f.split))) for f in files))


def test_a_table_beside_folders_without_classes_is_used_and_said(tmp_path: Path) -> None:
    photos(tmp_path, "train")
    photos(tmp_path, "test", 5)  # of the same numbers
    table(tmp_path / "trainLabels.csv", "id,label")
    table(tmp_path / "sampleSubmission.csv", "id,label")
    reading = read_folder(tmp_path, LayoutSettings())
    assert {(file.name.split("/")[0], file.label) for file in reading.files} == {
        ("train", "frog"),
        ("train", "truck"),
    }
    assert [note for note in reading.notes if "trainLabels.csv: 12 photos of 2 classes" in note]
    assert {name for name in reading.others if name.startswith("test")} == {
        f"test/{number}.png" for number in range(5)
    }


WAYS = {
    "ids": ("id,label", "{},{}"),
    "file names": ("file,breed", "{}.png,{}"),
    "paths": ("path,class_name", "photos/{}.png,{}"),
    "paths of another place": ("filepath,category", "/content/data/photos/{}.png,{}"),
    "backslashes": ("path,label", "photos\\{}.png,{}"),
    "without a header": ("", "{}.png,{}"),
    "semicolons": ("name;label", "{}.png;{}"),
    "tabs": ("name\tlabel", "{}.png\t{}"),
    "a found column": ("index,picture,what,note", "x,{}.png,{},"),
    "a number before": ("no,image_id,dx,sex", "7,{},{},f"),
}


@pytest.mark.parametrize(("header", "row"), WAYS.values(), ids=WAYS)
def test_photos_may_be_called_in_many_ways(tmp_path: Path, header: str, row: str) -> None:
    photos(tmp_path / "data", "photos")
    listing = table(tmp_path / "labels.csv", header, row=row)
    assert counts(tmp_path / "data", labels=listing) == {"frog": 6, "truck": 6}


def test_excels_encodings(tmp_path: Path) -> None:
    photos(tmp_path / "data", "photos")
    rows = "name;label\r\n" + "".join(
        f"{n}.png;{'kätzchen' if n % 2 else 'hund'}\r\n" for n in range(12)
    )
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "labels.csv").write_bytes(rows.encode(encoding))
        assert counts(tmp_path / "data", labels=tmp_path / "labels.csv") == {
            "kätzchen": 6,
            "hund": 6,
        }


def test_splits_from_a_column_or_from_the_names_of_tables(tmp_path: Path) -> None:
    photos(tmp_path / "one", "all")
    rows = [
        f"{n},{'frog' if n % 2 else 'truck'},{'TRAIN' if n < 8 else 'Val'}\n" for n in range(12)
    ]
    (tmp_path / "one" / "labels.csv").write_text("file,label,split\n" + "".join(rows))
    assert counts(tmp_path / "one") == {
        "frog train": 4, "truck train": 4, "frog validation": 2, "truck validation": 2
    }  # fmt: skip
    for split, count in (("train", 12), ("test", 4)):
        photos(tmp_path / "two", split, count, "jpg")
        table(tmp_path / "two" / f"{split}.csv", "file,label", count, f"{split}/{{}}.jpg,{{}}")
    assert counts(tmp_path / "two") == {
        "frog train": 6, "truck train": 6, "frog test": 2, "truck test": 2
    }  # fmt: skip


def test_a_table_that_agrees_with_the_folders_changes_nothing(tmp_path: Path) -> None:
    for label in ("frog", "truck"):
        photos(tmp_path, label, 12)
    rows = [f"{label}/{n}.png,{n % 2},{label}\n" for label in ("frog", "truck") for n in range(12)]
    (tmp_path / "labels.csv").write_text("file,number,label\n" + "".join(rows))
    assert counts(tmp_path) == {"frog": 12, "truck": 12}
    (tmp_path / "labels.csv").write_text("file,label,name\n" + "".join(rows))
    with pytest.raises(DataError, match=r"\(frog, truck\): --layout folders; .*--layout table"):
        counts(tmp_path)
    assert counts(tmp_path, layout="table") == {"0": 12, "1": 12}
    assert counts(tmp_path, layout="folders") == {"frog": 12, "truck": 12}


def test_a_table_wins_over_a_single_folder_without_classes(tmp_path: Path) -> None:
    photos(tmp_path, "mine")
    table(tmp_path / "labels.csv", "id,label")
    assert counts(tmp_path) == {"frog": 6, "truck": 6}


def test_two_parts_and_a_table_are_two_readings(tmp_path: Path) -> None:
    for part, numbers in (("part_1", range(12)), ("part_2", range(12, 24))):
        for n in numbers:
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"ISIC_{n}.jpg").touch()
    table(tmp_path / "metadata.csv", "image_id,dx", 24, "ISIC_{},{}")
    with pytest.raises(DataError, match=r"\(part_1, part_2\): --layout folders; .*metadata\.csv"):
        counts(tmp_path)
    assert counts(tmp_path, layout="table") == {"frog": 12, "truck": 12}


def test_photos_of_none_of_the_classes_and_rows_of_none_of_the_photos(tmp_path: Path) -> None:
    photos(tmp_path, "photos")
    (tmp_path / "neither" / "fox").mkdir(parents=True)
    (tmp_path / "neither" / "fox" / "a.jpg").touch()
    listing = table(tmp_path / "labels.csv", "id,label", 15)
    with listing.open("a") as file:
        file.write("# a comment\n")
    reading = read_folder(tmp_path, LayoutSettings(labels=listing))
    assert [(f.name, f.kind) for f in reading.files if f.label == "neither"] == [
        ("neither/fox/a.jpg", "fox")
    ]
    assert "12 photos of 2 classes; 3 rows name no photo" in reading.notes[0]


WRONG = {
    "no photo": ("id,label\nx,frog\n", "no cell of which names a photo"),
    "labels that are names of photos": ("id,label\n001,1\n002,2\n", "no cell of which names"),
    "empty": ("\n", "which is empty"),
    "pixels": ("," * 784 + "\n1" + "," * 784, "785 columns, as tables of numbers have"),
    "no labels": ("id\n1\n2\n", "of file names only"),
    "several columns": ("id,a,b\n1,x,u\n2,x,v\n3,y,u\n4,y,v\n", "received the columns a, b; call"),
    "two labels": (
        "id,label\n1,frog\n1,truck\n2,frog\n",
        "frog and truck for photos/1.png",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_wrong_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    photos(tmp_path, "photos")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((UsageError, DataError), match=said):
        counts(tmp_path, labels=tmp_path / "labels.csv")


def test_a_table_and_another_layout_are_not_asked_for_together() -> None:
    with pytest.raises(UsageError, match="--labels without --layout; received --layout flat"):
        TrainConfig(labels=Path("labels.csv"), layout="flat")
    assert TrainConfig(labels=Path("labels.csv"), layout="table").layout == "table"


def test_a_row_that_may_mean_two_photos_is_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        photos(tmp_path, folder)
    with pytest.raises(DataError, match=r"may be one/0\.png or two/0\.png; write the folder"):
        counts(tmp_path, labels=table(tmp_path / "labels.csv", "id,label"))
