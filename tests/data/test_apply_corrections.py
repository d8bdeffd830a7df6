"""Corrections change labels and verdicts, and nothing else: no split, no test label, no photo."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest
from photos import class_folders, make_photo

from app.core.errors import DataError
from app.core.run_folder import Run
from app.data.apply_corrections import with_corrected
from app.data.audit import FEW_PHOTOS
from app.data.corrections import Corrections, CorrectionsLog, Decision
from app.data.folder_layout import SPLITS, FolderReading, LabelledFile
from app.data.inventory import take_inventory
from app.data.manifest import (
    ManifestRow,
    class_names,
    corrected_test_photos,
    photos_of,
    read_manifest,
    training_photos_before_corrections,
    write_manifest,
)
from app.evaluation.correction_effect import correction_metrics

NO_CONTENT = "0" * 64


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("whole"), {"cat": 30, "dog": 30})


@pytest.fixture
def pets(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "pets")


def inventory(root: Path, corrections: Corrections | None = None) -> dict[str, ManifestRow]:
    rows = take_inventory(root, data=root, seed=0, corrections=corrections)
    return {row.name: row for row in rows}


def decisions(root: Path, *given: tuple[ManifestRow, Decision, str]) -> Corrections:
    log = CorrectionsLog(root.parent / "corrections.csv")
    for row, decision, label in given:
        log.decide(row.name, row.sha256, decision, label)
    return log.standing


def of(rows: dict[str, ManifestRow], split: str, label: str) -> list[ManifestRow]:
    return [r for r in rows.values() if (r.verdict, r.split, r.label) == ("used", split, label)]


def test_labels_change_and_no_photo_changes_its_split(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inventory(pets)
    cats, validation = of(before, "train", "cat"), of(before, "validation", "dog")
    given = decisions(
        pets,
        (cats[0], "class", "dog"),
        (cats[1], "leave_out", ""),
        (cats[2], "right", ""),
        (cats[3], "class", "cat"),
        (validation[0], "class", "cat"),
    )
    capsys.readouterr()
    after = inventory(pets, given)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 relabelled, 1 left out, 2 confirmed" in said
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {cats[0].name, cats[1].name, validation[0].name}
    for name in before.keys() - {cats[1].name}:
        assert after[name].split == before[name].split
    moved = after[cats[0].name]
    assert (moved.label, moved.corrected, moved.given) == ("dog", "dog", "cat")
    left = after[cats[1].name]
    assert (left.verdict, left.code, left.label) == ("skipped", "left_out", "cat")
    assert after[validation[0].name].label == "cat"


def test_splits_stay_even_where_every_validation_photo_of_a_class_is_relabelled(
    pets: Path,
) -> None:
    """Photos are then moved from train, as if the class had never had validation photos."""
    before = inventory(pets)
    cats = of(before, "validation", "cat")
    after = inventory(pets, decisions(pets, *[(row, "class", "dog") for row in cats]))
    assert {after[row.name].split for row in cats} == {"validation"}
    assert of(after, "validation", "cat")
    assert {r.name for r in of(after, "test", "cat")} == {r.name for r in of(before, "test", "cat")}


def test_test_photos_keep_their_labels_and_are_marked(pets: Path) -> None:
    before = inventory(pets)
    dogs = of(before, "test", "dog")
    given = decisions(
        pets, (dogs[0], "class", "cat"), (dogs[1], "leave_out", ""), (dogs[2], "neither", "")
    )
    after = inventory(pets, given)
    assert [after[row.name].label for row in dogs] == ["dog"] * len(dogs)
    assert {after[row.name].verdict for row in dogs} == {"used"}
    marks = corrected_test_photos(list(after.values()), class_names(list(after.values())))
    assert marks == {dogs[0].name: 0, dogs[1].name: -1, dogs[2].name: -1}
    path = pets.parent / "manifest.csv"
    write_manifest(after.values(), path)
    assert corrected_test_photos(read_manifest(path), ["cat", "dog"]) == marks


def test_a_photo_that_was_replaced_or_renamed_is_not_corrected(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inventory(pets)
    cats = of(before, "train", "cat")
    given = decisions(pets, (cats[0], "class", "dog"), (cats[1], "class", "dog"))
    shutil.copy(pets / cats[2].name, pets / cats[0].name)
    (pets / cats[2].name).unlink()
    (pets / cats[1].name).rename(pets / "cat" / "renamed.jpg")
    capsys.readouterr()
    after = inventory(pets, given)
    assert "2 of 2 corrections do not count" in capsys.readouterr().err
    assert {row.label for row in after.values() if row.name.startswith("cat/")} == {"cat"}


def test_a_photo_elsewhere_gets_its_label_and_stays_there(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inventory(pets)
    places = [make_photo(tmp_path / "more" / f"{n}.jpg", 300 + n) for n in range(3)]
    contents = [place.read_bytes() for place in places]
    log = CorrectionsLog(tmp_path / "corrections.csv")
    for place, content in zip(places, contents, strict=True):
        log.decide(place.as_posix(), sha256(content).hexdigest(), "class", "dog")
    within = (pets / "cat").resolve() / "0.jpg"  # that has a label, under another name
    log.decide(within.as_posix(), "0" * 64, "class", "dog")
    shutil.copy(places[0], places[2])
    capsys.readouterr()
    after = inventory(pets, log.standing)
    assert "2 of 4 corrections do not count" in capsys.readouterr().err
    added = {name: row for name, row in after.items() if name not in before}
    assert [*added] == [place.as_posix() for place in places[:2]]
    assert {(row.label, row.verdict) for row in added.values()} == {("dog", "used")}
    photos = [photo for split in SPLITS for photo in photos_of([*after.values()], split, pets)]
    assert {photo.path for photo in photos if photo.name in added} == set(places[:2])
    assert [place.read_bytes() for place in places[:2]] == contents[:2]


def test_few_photos_of_neither_without_a_label_are_not_added(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inventory(pets)
    log = CorrectionsLog(tmp_path / "corrections.csv")
    places = [make_photo(tmp_path / "sofa" / f"{n}.jpg", 300 + n) for n in range(FEW_PHOTOS)]
    for number, place in enumerate(places, start=1):
        content = place.read_bytes()
        log.decide(place.as_posix(), sha256(content).hexdigest(), "neither")
        if number == FEW_PHOTOS - 1:
            assert {*inventory(pets, log.standing)} == {*before}
            assert f"{number} photos of neither are too few" in capsys.readouterr().err
    after = inventory(pets, log.standing)
    assert {after[place.as_posix()].label for place in places} == {"neither"}


def test_a_photo_of_neither_elsewhere_is_there_once(pets: Path, tmp_path: Path) -> None:
    place = make_photo(tmp_path / "sofa" / "1.jpg", 300)
    given = FolderReading([LabelledFile(place, place.as_posix(), "neither", None)], {}, [])
    log = CorrectionsLog(tmp_path / "corrections.csv")
    log.decide(place.as_posix(), sha256(place.read_bytes()).hexdigest(), "class", "dog")
    assert with_corrected(given, pets, log.standing).files == given.files


def test_one_file_in_two_classes_is_used_once_its_class_is_known(pets: Path) -> None:
    (row, *_) = of(inventory(pets), "train", "cat")
    shutil.copy(pets / row.name, pets / "dog" / "again.jpg")
    before = inventory(pets)
    assert before[row.name].code == before["dog/again.jpg"].code == "several_classes"
    after = inventory(pets, decisions(pets, (before["dog/again.jpg"], "class", "cat")))
    assert [after[name].verdict for name in (row.name, "dog/again.jpg")] == ["used", "skipped"]
    assert after["dog/again.jpg"].code == "copy"
    after = inventory(pets, decisions(pets, (before["dog/again.jpg"], "leave_out", "")))
    assert after[row.name].verdict == "used"


def test_few_photos_of_neither_are_left_out_and_ten_are_learned_from(pets: Path) -> None:
    before = inventory(pets)
    cats = of(before, "train", "cat")
    few = inventory(pets, decisions(pets, *[(row, "neither", "") for row in cats[:9]]))
    assert {few[row.name].code for row in cats[:9]} == {"left_out"}
    assert {few[row.name].label for row in cats[:9]} == {"cat"}
    enough = inventory(pets, decisions(pets, (cats[9], "neither", "")))
    assert [enough[row.name].label for row in cats[:10]] == ["neither"] * 10
    assert {enough[row.name].verdict for row in cats[:10]} == {"used"}


def test_a_class_that_corrections_empty_is_refused(pets: Path) -> None:
    before = inventory(pets)
    cats = [row for row in before.values() if row.label == "cat" and row.split != "test"]
    with pytest.raises(DataError, match="at least 5 usable photos"):
        inventory(pets, decisions(pets, *[(row, "leave_out", "") for row in cats]))


def test_a_new_class_is_learned_from_five_photos_on(pets: Path) -> None:
    before = inventory(pets)
    cats = of(before, "train", "cat")
    after = inventory(pets, decisions(pets, *[(row, "class", "fox") for row in cats[:6]]))
    assert class_names(list(after.values())) == ("cat", "dog", "fox")


def test_what_the_report_counts_is_what_a_person_said(pets: Path) -> None:
    before = inventory(pets)
    cats, dogs, tested = (
        of(before, "train", "cat"),
        of(before, "train", "dog"),
        of(before, "test", "dog"),
    )
    decided = [(row, "class", "fox") for row in cats[:8]]  # new: some of them are moved to test
    decided += [(cats[8], "right", ""), (cats[9], "class", "cat"), (cats[10], "leave_out", "")]
    decided += [(dogs[0], "class", "cat"), (dogs[1], "skip", "")]
    decided += [(row, "class", "cat") for row in tested[:2]]
    given = decisions(pets, *decided)
    rows = list(inventory(pets, given).values())
    assert any(row.split == "test" and row.label == "fox" for row in rows)
    found = correction_metrics(Run(pets.parent / "run"), rows, given, [])
    assert asdict(found) == {
        "relabelled": 9, "neither": 0, "left_out": 1, "right": 2, "test": 2, "others": 0,
        "validation": None,
    }  # fmt: skip


def test_photos_without_a_label_get_one(pets: Path) -> None:
    """Only with the content that the person saw; the others stay without one."""
    extra = class_folders(pets, {"unlabeled": 3}) / "unlabeled"
    before = inventory(pets)
    names = [f"unlabeled/{path.name}" for path in sorted(extra.iterdir())]
    assert {before[name].code for name in names} == {"no_class"}
    log = CorrectionsLog(pets.parent / "corrections.csv")
    log.decide(names[0], sha256((pets / names[0]).read_bytes()).hexdigest(), "class", "dog")
    log.decide(names[1], NO_CONTENT, "class", "dog")
    after = inventory(pets, log.standing)
    assert (after[names[0]].verdict, after[names[0]].label) == ("used", "dog")
    assert {after[name].code for name in names[1:]} == {"no_class"}
    for name in before.keys() - {names[0]}:
        assert after[name] == before[name]


def test_the_photos_that_give_the_scales_of_int8_stay_the_same(pets: Path) -> None:
    """Else one photo that is left out could give all photos other features."""
    before = inventory(pets)
    cats, dogs = of(before, "train", "cat"), of(before, "train", "dog")
    decided = [(row, "neither", "") for row in dogs[:12]]
    decided += [(cats[0], "leave_out", ""), (cats[1], "class", "dog")]
    after = inventory(pets, decisions(pets, *decided))
    assert len(of(after, "train", "neither")) == 12
    found, expected = (
        training_photos_before_corrections(list(rows.values()), pets) for rows in (after, before)
    )
    assert found == expected == photos_of(list(before.values()), "train", pets)


def test_corrections_of_nothing_change_nothing(pets: Path) -> None:
    before = inventory(pets)
    rows = list(before.values())
    given = decisions(pets, (rows[0], "skip", ""), (rows[1], "right", ""))
    assert inventory(pets, given) == before
