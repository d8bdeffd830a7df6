"""``train.py --check``: everything about the photos, before any training; nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from photos import class_folders, make_photo

import train
from app.check import (
    MEASURED_SPEED,
    SECONDS_AN_EPOCH,
    _lines,
    check,
    duplicates,
    estimate,
)
from app.core import cli
from app.core.config import TrainConfig
from app.data.manifest import ManifestRow
from app.evaluation.calibration import SMALL_VALIDATION


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in splits, strangers, and one file of each kind that is left out."""
    root = tmp_path_factory.mktemp("pets")
    class_folders(root, {f"{s}_set/{p}": 10 for s in ("training", "test") for p in ("cat", "dog")})
    class_folders(root, {"neither/fox": 12, "single_prediction": 2, "@eaDir": 1})
    photo = (root / "training_set" / "cat" / "0.jpg").read_bytes()
    (root / "training_set" / "cat" / "copy.jpg").write_bytes(photo)
    (root / "test_set" / "dog" / "cut.jpg").write_bytes(photo[:300])
    (root / "readme.txt").write_text("cats and dogs")
    return root


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_json_counts_everything_and_nothing_is_written(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(pets)
    monkeypatch.chdir(tmp_path)
    assert cli.run(train.main, ["--data", str(pets), "--check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"data", "classes", "neither", "left_out", "duplicates", "estimate"}
    for label in ("cat", "dog"):
        counts = found["classes"][label]
        assert (counts["test"], counts["train"] + counts["validation"]) == (10, 10)
        assert counts["validation"]
    assert sum(found["neither"].values()) == 12
    assert found["left_out"] == {"copy": 1, "damaged": 1, "no_class": 3, "hidden": 1}
    assert found["duplicates"]["copies"] == 1
    files = sum(sum(each.values()) for each in (*found["classes"].values(), found["neither"]))
    assert files + sum(found["left_out"].values()) == len(before)
    assert all(number > 0 for number in found["estimate"].values())
    assert everything(pets) == before
    assert list(tmp_path.iterdir()) == []


def test_a_person_is_told_the_same(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(train.main, ["--data", str(pets), "--check", "--smoke"]) == 0
    out, said = capsys.readouterr()
    assert "class         train  validation        test" in out
    assert "neither" in out
    assert "left out: 6 files" in out
    assert "1  a copy of another file" not in said
    assert "1  a copy of another file: left out" in out
    assert "training would take about" in out
    assert "where fine-tuning pays" not in out  # validation is too small for a second round
    assert "2 photos without a label are left out (single_prediction/ 2)" in said
    assert "1 file is left out: hidden, or in folders of systems and programs" in said
    assert max(map(len, (*out.splitlines(), *said.splitlines()))) < 600


def test_what_would_stop_the_run_is_said_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path, {"cat": 12, "dog": 3})
    assert cli.run(train.main, ["--data", str(tmp_path), "--check", "--json"]) == 2
    out, said = capsys.readouterr()
    assert (out, "at least 5 usable photos" in said) == ("", True)


def test_to_exclude_test_photos_needs_a_list_of_them(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(train.main, ["--data", str(pets), "--check", "--exclude-from-test"]) == 2
    assert "expected --exclude-from-test beside --exclude FILE" in capsys.readouterr().err


def test_many_classes_and_many_names_make_short_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = class_folders(tmp_path / "many", {f"{number:03}": 10 for number in range(40)})
    train.main(["--data", str(many), "--check"])
    lines = capsys.readouterr()
    assert max(map(len, (*lines.out.splitlines(), *lines.err.splitlines()))) < 300
    for number in range(200):
        make_photo(tmp_path / "names" / f"cat_{number}_640x480.jpg", number, (8, 6))
    assert cli.run(train.main, ["--data", str(tmp_path / "names"), "--check"]) == 2
    said = capsys.readouterr().err
    assert "and 190 more" in said
    assert len(said) < 600


@pytest.mark.parametrize("argv", [["--data", "x", "--json"], ["--resume", "x", "--check"]])
def test_flags_that_mean_nothing_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.flags(argv)


def test_no_network_library_is_loaded(pets: Path) -> None:
    code = f"""
import sys, train
train.main(["--data", {str(pets)!r}, "--check", "--json"])
print([m for m in ("keras", "tensorflow", "onnxruntime", "sklearn") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def rows(train: int, validation: int, test: int) -> list[ManifestRow]:
    return [
        ManifestRow(f"{split}/{number}", "cat", split, "", "used")
        for split, count in (("train", train), ("validation", validation), ("test", test))
        for number in range(count)
    ]


def test_the_estimate_follows_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default settings, 5,000 photos: 8 minutes, 3 GB of disk, 2.3 GiB of memory."""
    monkeypatch.setattr("app.check._speed", lambda: MEASURED_SPEED)
    monkeypatch.setattr("app.check.has_vnni", lambda: True)
    config = TrainConfig(image_size=320)
    found = estimate(config, rows(2000, 1000, 2000))
    assert found.seconds == pytest.approx(8 * 60, rel=0.1)
    assert found.disk_bytes == pytest.approx(3.0e9, rel=0.05)
    assert found.memory_bytes == pytest.approx(2.33 * 2**30, rel=0.05)
    assert found.seconds_at_most > found.seconds + 2 * 2 * 2000 * SECONDS_AN_EPOCH["block5"]
    head = estimate(replace(config, stages=("head",)), rows(2000, 1000, 2000))
    assert head.seconds_at_most == head.seconds
    few = estimate(config, rows(2000, SMALL_VALIDATION - 1, 2000))
    assert few.seconds_at_most == few.seconds
    assert estimate(config, rows(2000, SMALL_VALIDATION, 0)).seconds_at_most > few.seconds
    assert head.seconds == pytest.approx(4 * 60, rel=0.2)
    assert head.disk_bytes < found.disk_bytes / 3
    off = estimate(replace(config, cache="off"), rows(2000, 1000, 2000))
    assert (off.seconds > found.seconds, off.disk_bytes < 1e9) == (True, True)
    small = estimate(replace(config, cache_limit=1.0), rows(2000, 1000, 2000))
    assert small.disk_bytes == off.disk_bytes
    (told,) = (line for line in _lines(config, rows(2000, 1000, 2000)) if "would take" in line)
    assert "take about 8 minutes (16 minutes where fine-tuning pays), 3.0 GB of disk" in told
    monkeypatch.setattr("app.check._speed", lambda: MEASURED_SPEED / 10)
    assert estimate(config, rows(2000, 1000, 2000)).seconds > 9 * 8 * 60


def test_duplicates_are_counted_by_kind() -> None:
    def row(name: str, label: str, group: str = "", code: str = "") -> ManifestRow:
        verdict = "skipped" if code else "used"
        return ManifestRow(name, label, "train", "", verdict, group=group, code=code)

    found = duplicates([
        row("a", "cat", "x"), row("b", "cat", "x"), row("c", "cat", "y"), row("d", "dog", "y"),
        row("e", "cat", "z"), row("f", "cat", "z", "near_duplicate"), row("g", "cat", "", "copy"),
        row("h", "dog", "", "several_classes"),
    ])  # fmt: skip
    assert (found.copies, found.near_duplicates_left_out) == (1, 1)
    assert (found.near_duplicates_used, found.in_several_classes) == (4, 3)


def test_check_needs_no_place_to_write(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(TrainConfig(data=pets, runs=pets / "training_set"), as_json=True)
    assert json.loads(capsys.readouterr().out)["data"] == str(pets)
