"""What a list excludes: never a photo of test, and no other photo changes its split for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from photos import class_folders
from PIL import Image

from app.core.errors import UsageError
from app.data.folder_layout import SPLITS
from app.data.inventory import take_inventory
from app.data.manifest import ManifestRow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("whole"), {"cat": 30, "dog": 30})


@pytest.fixture
def pets(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "pets")


def inventory(root: Path, names: list[str], *, allowed: bool = False) -> dict[str, ManifestRow]:
    listing = root.parent / "list.txt"
    listing.write_text("\n".join(names))
    rows = take_inventory(
        root, data=root, seed=0, exclude=listing if names else None, exclude_from_test=allowed
    )
    return {row.name: row for row in rows}


def names_of(rows: dict[str, ManifestRow], split: str) -> list[str]:
    return [name for name, row in rows.items() if (row.verdict, row.split) == ("used", split)]


def test_no_photo_moves_when_others_are_excluded(pets: Path) -> None:
    """Not even one whose near-duplicate decided where both of them go."""
    for number in range(20):
        with Image.open(pets / "cat" / f"{number}.jpg") as image:
            image.save(pets / "cat" / f"again {number}.jpg", quality=60)
    before = inventory(pets, [])
    train = [before[name] for name in names_of(before, "train")]
    out = [row.name for row in train if row.sha256 == row.group]
    assert len(out) > 10
    out += [train[-1].name, names_of(before, "validation")[-1]]
    after = inventory(pets, out)
    assert {after[name].verdict for name in out} == {"skipped"}
    for split in ("train", "validation", "test"):
        expected = [name for name in names_of(before, split) if name not in out]
        assert names_of(after, split) == expected


@pytest.mark.parametrize("given", [False, True])
def test_test_photos_are_excluded_only_beside_themselves(
    given: bool, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the user made the splits or their content did."""
    if given:
        for split, numbers in (("train", range(20)), ("test", range(20, 30))):
            for label in ("cat", "dog"):
                (pets / split / label).mkdir(parents=True)
                for number in numbers:
                    (pets / label / f"{number}.jpg").rename(pets / split / label / f"{number}.jpg")
        shutil.rmtree(pets / "cat")
        shutil.rmtree(pets / "dog")
    before = inventory(pets, [])
    test, train = names_of(before, "test"), names_of(before, "train")
    with pytest.raises(UsageError, match=f"no test photo; received 1, the first '{test[1]}'; "):
        inventory(pets, [train[0], test[1]])
    after = inventory(pets, [train[0], test[1]], allowed=True)
    assert "1 of them are test photos" in " ".join(capsys.readouterr().err.split())
    assert names_of(after, "test") == test
    assert [name for name in test if after[name].code == "excluded"] == [test[1]]
    assert after[train[0]].verdict == "skipped"


def test_a_photo_freed_by_the_list_goes_with_its_near_duplicates(pets: Path) -> None:
    """It lay in two classes; one of them is excluded."""
    before = inventory(pets, [])
    (twin, *_) = names_of(before, "test")
    label = twin.split("/")[0]
    other = "dog" if label == "cat" else "cat"
    for place in (label, other):
        with Image.open(pets / twin) as image:
            image.save(pets / place / "again.jpg", quality=60)
    assert inventory(pets, [])[f"{label}/again.jpg"].code == "several_classes"
    after = inventory(pets, [f"{other}/again.jpg"])
    assert (after[f"{label}/again.jpg"].split, after[twin].split) == ("test", "test")


def test_of_five_photos_of_a_class_it_is_said_what_to_expect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "pets", {"cat": 5, "dog": 10})
    rows = inventory(root, [])
    assert [len(names_of(rows, split)) for split in SPLITS] == [11, 2, 2]
    assert "1 of 2 classes have fewer than 10 photos" in capsys.readouterr().err
    inventory(class_folders(tmp_path / "more", {"cat": 10, "dog": 10}), [])
    assert "fewer than 10 photos" not in capsys.readouterr().err
