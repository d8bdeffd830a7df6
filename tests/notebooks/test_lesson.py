"""Which photos and which weights the notebook about VGG16 takes, and how it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lesson import (
    PHOTOS_VARIABLE,
    SMALL,
    SMALL_VARIABLE,
    WEIGHTS_VARIABLE,
    Settings,
    Table,
    Words,
    chosen_settings,
    lesson_photos,
    lesson_weights,
)
from photos import class_folders

from app.core.errors import DataError
from app.core.sanitise import shown
from app.report.html import number

FEW = Settings(train=3, validation=2)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (PHOTOS_VARIABLE, WEIGHTS_VARIABLE, SMALL_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_photos_they_are_drawn(project: Path) -> None:
    photos = lesson_photos(project, FEW, project / "drawn")
    assert photos.drawn
    assert photos.classes == ("cat", "dog")
    assert [photo.target for photo in photos.splits["train"]] == [0, 0, 0, 1, 1, 1]
    assert [photo.target for photo in photos.splits["validation"]] == [0, 0, 1, 1]
    every = [photo.content for split in photos.splits.values() for photo in split]
    assert len(set(every)) == len(every)


def test_the_projects_own_photos_come_before_drawings(project: Path) -> None:
    class_folders(project / "data/small", {"cat": 6, "dog": 5})
    photos = lesson_photos(project, FEW, project / "drawn")
    assert not photos.drawn
    assert not (project / "drawn").exists()


def test_the_users_validation_photos_are_asked_and_damaged_ones_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(
        project / "mine",
        {"train/cat": 4, "train/dog": 4, "validation/cat": 2, "validation/dog": 2},
    )
    (root / "train/cat/0.jpg").write_bytes(b"no photo")
    monkeypatch.setenv(PHOTOS_VARIABLE, str(root))
    photos = lesson_photos(project, FEW, project / "drawn")
    assert [photo.name for photo in photos.splits["train"]] == [
        f"train/{label}/{number}.jpg"
        for label, numbers in (("cat", (1, 2, 3)), ("dog", (0, 1, 2)))
        for number in numbers
    ]
    assert all(photo.name.startswith("validation/") for photo in photos.splits["validation"])


def test_a_folder_in_the_first_cell_comes_before_the_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(project / "mine", {"cup": 6, "pen": 5})
    monkeypatch.setenv(PHOTOS_VARIABLE, str(project / "nowhere"))
    photos = lesson_photos(project, replace(FEW, photos=str(root)), project / "drawn")
    assert photos.classes == ("cup", "pen")
    pixels, targets = photos.pixels("train", 8, each=2)
    assert pixels.shape == (4, 8, 8, 3)
    assert targets.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 9, "dog": 9, "wolf": 9}, "photos of two classes .* received cat, dog, wolf"),
        ({"cat": 9, "dog": 4}, "2 more photos of dog .* received 1"),
    ],
)
def test_other_folders_are_refused_in_one_line(
    counts: dict[str, int], message: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PHOTOS_VARIABLE, str(class_folders(project / "mine", counts)))
    with pytest.raises(DataError, match=message):
        lesson_photos(project, FEW, project / "drawn")


def test_why_there_are_no_weights_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, "none")
    assert not lesson_weights()
    assert lesson_weights().reason == f"{WEIGHTS_VARIABLE} says none"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(project / "nowhere.h5"))
    assert "nowhere.h5" in lesson_weights().reason


def test_the_small_settings_are_asked_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_settings() == Settings()
    monkeypatch.setenv(SMALL_VARIABLE, "1")
    assert chosen_settings() == SMALL


def test_tables_put_numbers_to_the_right_and_escape_the_rest() -> None:
    table = Table(["file", "n"], [["<i>", number(1234)]])._repr_html_()
    assert "<td>&lt;i&gt;</td>" in table
    assert '<td class="right">1,234</td>' in table
    assert "<tbody>\n</tbody>" in Table(["file", "n"], [])._repr_html_()
    assert Words("a < b")._repr_html_() == "<p>a &lt; b</p>"
    assert Words("5 % of")._repr_html_() == "<p>5\xa0% of</p>"
    assert '<th scope="col">file</th>' in table
    assert '<th scope="row">&lt;i&gt;</th>' in Table(["", "n"], [["<i>", "m"]])._repr_html_()
    assert shown("caf\udce9") == "caf\ufffd"
