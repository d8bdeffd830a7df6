"""Which photos the lesson about transfer learning takes, and which it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import own_photos
import pytest
from lesson import PHOTOS_VARIABLE
from own_photos import SHOWN_VARIABLE, load_photos
from photos import class_folders

from app.core.errors import DataError, UsageError
from app.report.notebook import PROJECT


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PHOTOS_VARIABLE, SHOWN_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_half_of_each_class_is_to_learn_from(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "mine", {"cup": 10, "pen": 12, "shoe": 30})
    train, validation, shown = load_photos(root, size=16, per_class=20)
    assert train.classes == validation.classes == shown.classes == ("cup", "pen", "shoe")
    assert np.bincount(train.labels).tolist() == [5, 6, 10]
    assert np.bincount(validation.labels).tolist() == [5, 6, 10]
    assert train.pixels.shape == (21, 16, 16, 3)
    assert train.pixels.dtype == np.uint8
    assert len(shown) == 42
    assert shown.names[0] == "cup"
    assert shown.names[-1] == "shoe"


def test_the_users_validation_photos_are_asked_and_test_photos_left_alone(tmp_path: Path) -> None:
    counts = {f"{split}/{label}": 8 for split in ("train", "validation", "test") for label in "ab"}
    root = class_folders(tmp_path / "mine", counts)
    train, validation, _ = load_photos(root, size=16)
    assert (len(train), len(validation)) == (16, 16)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cup": 20, "pen": 9}, "at least 10 photos of pen in .*; received 9"),
        ({"cup": 20}, "photos of two classes or more in .*; received cup; make one folder"),
    ],
)
def test_too_few_are_refused_in_one_line(
    counts: dict[str, int], message: str, tmp_path: Path
) -> None:
    root = class_folders(tmp_path / "mine", counts)
    with pytest.raises(DataError, match=message):
        load_photos(root, size=16)


def test_a_folder_is_looked_for_where_the_notebook_runs_and_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_photos, "__file__", str(tmp_path / "project/notebooks/own_photos.py"))
    class_folders(tmp_path / "here", {"cup": 10, "pen": 10})
    class_folders(tmp_path / "project/there", {"shoe": 10, "sock": 10})
    assert load_photos("here", size=16)[0].classes == ("cup", "pen")
    assert load_photos("there", size=16)[0].classes == ("shoe", "sock")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing there"):
        load_photos(tmp_path / "nowhere")


def test_without_photos_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_photos, "OWN_PHOTOS", tmp_path / "nowhere")
    monkeypatch.setattr(own_photos, "DRAWN", 10)
    train, validation, _ = load_photos(size=16)
    assert train.classes == ("cat", "dog")
    assert (len(train), len(validation)) == (10, 10)


def test_others_are_shown_where_the_terms_of_the_photos_forbid_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "mine", {"cat": 10, "dog": 10})
    twelve = PROJECT / "notebooks/photos"
    monkeypatch.setenv(SHOWN_VARIABLE, str(twelve))
    _, _, shown = load_photos(root, size=16)
    assert np.bincount(shown.labels).tolist() == [6, 6]
    monkeypatch.setenv(SHOWN_VARIABLE, str(twelve / "cat"))
    with pytest.raises(DataError, match=r"expected photos of cat, dog in .*CATS_DOGS_SHOWN"):
        load_photos(root, size=16)
