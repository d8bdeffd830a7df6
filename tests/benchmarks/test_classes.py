"""The benchmark of any classes: its pictures, its splits, its table."""

from __future__ import annotations

import numpy as np
import pytest
from photos import class_folders
from PIL import Image

from app.core.errors import UsageError
from app.core.run_folder import Run
from app.data.manifest import ManifestRow, write_manifest
from app.evaluation.metrics import score
from benchmarks.classes import Row, _photos, _table, copy_splits, draw_digits


def test_digits_are_enlarged(tmp_path):
    folder = draw_digits(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == list("0123456789")
    files = list(folder.glob("*/*.png"))
    assert len(files) == 1797
    with Image.open(files[0]) as image:
        assert image.size == (64, 64)
        assert np.ptp(np.asarray(image)) > 200


def test_the_recipe_sees_the_splits_of_the_run(tmp_path):
    data = class_folders(tmp_path / "data", {"cat": 3, "dog": 3})
    finished = Run(tmp_path / "run")
    finished.folder.mkdir()
    splits = {"0": "train", "1": "validation", "2": "test"}
    rows = [
        ManifestRow(f"{label}/{n}.jpg", label, split, "", "used")
        for label in ("cat", "dog")
        for n, split in splits.items()
    ]
    skipped = ManifestRow("cat/9.jpg", "cat", "", "", "skipped", "damaged")
    write_manifest([*rows, skipped], finished.manifest)
    target = copy_splits(finished, data, tmp_path / "split")
    for n, split in splits.items():
        for label in ("cat", "dog"):
            (copied,) = (target / split / label).iterdir()
            assert copied.read_bytes() == (data / label / f"{n}.jpg").read_bytes()


def test_the_table_tells_times_as_parts_of_the_recipes():
    test = score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    rows = [
        Row("pets", name, seconds, test, size)
        for name, seconds, size in (("head", 5, 320), ("default", 15, 320), ("recipe", 10, 160))
    ]
    lines = _table(rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["0.50", "1.50", "1.00"]
    assert "1.0000" in lines[2]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="expected a folder of photos, digits or drawn"):
        _photos(str(tmp_path / "none"), tmp_path / "made")
