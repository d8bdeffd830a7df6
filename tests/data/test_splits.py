"""Contract 7: three disjoint splits, stratified, seeded, decided by each photo's content."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photos import class_folders
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from app.core.errors import DataError
from app.data.audit import audit
from app.data.folder_layout import SPLITS, find_files
from app.data.manifest import ManifestRow, class_names, photos_of
from app.data.splits import MAX_RATIO, SHARES, assign_splits, class_weights, imbalance


def photo(name: str, label: str, split: str = "", **more: str) -> ManifestRow:
    content = hashlib.sha256(name.encode()).hexdigest()
    return ManifestRow(**{"name": name, "label": label, "split": split, "sha256": content,
                          "verdict": "used", **more})  # fmt: skip


def photos(label: str, count: int, split: str = "") -> list[ManifestRow]:
    return [photo(f"{split}/{label}/{number}.jpg", label, split) for number in range(count)]


def counts(rows: list[ManifestRow]) -> Counter[tuple[str, str]]:
    return Counter((row.label, row.split) for row in rows if row.verdict == "used")


def test_shares_add_up() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert tuple(SHARES) == SPLITS


def test_splits_are_stratified_and_nothing_else_changes() -> None:
    rows = photos("cat", 3000) + photos("dog", 1000)
    divided = assign_splits(rows, seed=0)
    for label, total in (("cat", 3000), ("dog", 1000)):
        for split, share in SHARES.items():
            assert counts(divided)[label, split] / total == pytest.approx(share, abs=0.03)
    without = [{**vars(row), "split": ""} for row in divided]
    assert without == [vars(row) for row in rows]


def test_the_seed_decides() -> None:
    rows = photos("cat", 200) + photos("dog", 200)
    assert assign_splits(rows, seed=3) == assign_splits(rows, seed=3)
    assert assign_splits(rows, seed=3) != assign_splits(rows, seed=4)


def test_adding_and_reordering_photos_moves_none_of_the_others() -> None:
    few = photos("cat", 200) + photos("dog", 200)
    more = [*photos("bird", 50), *reversed(photos("cat", 300)), *photos("dog", 200)]
    before = {row.name: row.split for row in assign_splits(few, seed=0)}
    after = {row.name: row.split for row in assign_splits(more, seed=0)}
    assert before.items() <= after.items()


def test_renaming_photos_moves_none() -> None:
    rows = photos("cat", 100) + photos("dog", 100)
    renamed = [photo(f"new/{row.name}", row.label, sha256=row.sha256) for row in rows]
    assert [row.split for row in assign_splits(rows, seed=0)] == [
        row.split for row in assign_splits(renamed, seed=0)
    ]


def test_given_splits_stay() -> None:
    rows = [row for s in SPLITS for label in ("cat", "dog") for row in photos(label, 20, s)]
    assert assign_splits(rows, seed=0) == rows


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_missing_split_is_taken_from_train(missing: str) -> None:
    given = "test" if missing == "validation" else "validation"
    rows = [
        row
        for label in ("cat", "dog")
        for row in photos(label, 500, "train") + photos(label, 40, given)
    ]
    divided = assign_splits(rows, seed=0)
    for label in ("cat", "dog"):
        assert counts(divided)[label, given] == 40
        assert counts(divided)[label, missing] / 500 == pytest.approx(0.1, abs=0.04)
    moved = {b.split for a, b in zip(rows, divided, strict=True) if a != b}
    assert moved == {missing}


def test_a_class_without_a_usable_photo_in_a_given_split_gets_some_from_train() -> None:
    rows = [row for s in SPLITS for label in ("cat", "dog") for row in photos(label, 20, s)]
    rows = [
        photo(row.name, row.label, row.split, verdict="skipped", reason="damaged")
        if (row.label, row.split) == ("dog", "validation")
        else row
        for row in rows
    ]
    divided = counts(assign_splits(rows, seed=0))
    assert divided["dog", "validation"] >= 1
    assert divided["dog", "train"] + divided["dog", "validation"] == 20
    assert divided["cat", "train"] == 20


def test_a_class_without_photos_to_train_on_is_refused() -> None:
    rows = photos("cat", 20, "train") + photos("dog", 20, "validation") + photos("dog", 9, "test")
    with pytest.raises(DataError, match=r"photos of dog to train on; received 29"):
        assign_splits(rows, seed=0)


@pytest.mark.parametrize("seed", range(50))
def test_tiny_classes_have_a_photo_in_each_split(seed: int) -> None:
    divided = counts(assign_splits(photos("cat", 10) + photos("dog", 12), seed=seed))
    assert all(divided[label, split] for label in ("cat", "dog") for split in SPLITS)


def test_skipped_files_get_no_split() -> None:
    skipped = photo("cat/bad.jpg", "cat", verdict="skipped", reason="damaged")
    divided = assign_splits([skipped, *photos("cat", 20), *photos("dog", 20)], seed=0)
    assert divided[0] == skipped


def test_the_three_splits_of_a_folder_share_no_photo(tmp_path: Path) -> None:
    """From disk to training: copies under other names are on one side, or nowhere."""
    class_folders(tmp_path, {"cat": 30, "dog": 30})
    for number in range(30):
        copy = tmp_path / "cat" / f"copy {number}.jpg"
        copy.write_bytes((tmp_path / "cat" / f"{number}.jpg").read_bytes())
    rows = assign_splits(audit(find_files(tmp_path)), seed=0)
    assert class_names(rows) == ("cat", "dog")
    contents = [p.content for split in SPLITS for p in photos_of(rows, split, tmp_path)]
    assert len(contents) == len(set(contents)) == 60
    for split in SPLITS:
        found = photos_of(rows, split, tmp_path)
        assert {p.target for p in found} == {0, 1}
        assert all(p.path.is_file() and p.target == ("dog" in p.name) for p in found)


# ---- near-duplicates: a group is on one side ----


def in_groups(rows: list[ManifestRow], size: int) -> list[ManifestRow]:
    """Make near-duplicates of each ``size`` rows that follow one another."""
    return [
        photo(row.name, row.label, row.split, group=rows[number // size * size].sha256)
        for number, row in enumerate(rows)
    ]


def sides(rows: list[ManifestRow]) -> list[set[str]]:
    """The splits that each group of near-duplicates lies in."""
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.group:
            found.setdefault(row.group, set()).add(row.split)
    return list(found.values())


def test_near_duplicates_are_on_one_side() -> None:
    rows = in_groups(photos("cat", 300), 3) + photos("dog", 100)
    divided = assign_splits(rows, seed=0)
    assert all(len(splits) == 1 for splits in sides(divided))
    for split, share in SHARES.items():
        assert counts(divided)["cat", split] / 300 == pytest.approx(share, abs=0.07)


def test_near_duplicates_of_train_stay_together_when_a_split_is_missing() -> None:
    rows = in_groups(photos("cat", 300, "train"), 2) + photos("dog", 100, "train")
    rows += photos("cat", 30, "validation") + photos("dog", 30, "validation")
    divided = assign_splits(rows, seed=0)
    assert all(len(splits) == 1 for splits in sides(divided))
    assert {"test"} in sides(divided)


@pytest.mark.parametrize("seed", range(30))
def test_near_duplicates_in_two_classes_are_on_one_side(seed: int) -> None:
    """In so small classes most splits get the photo whose number is nearest."""
    cats, dogs = photos("cat", 10), photos("dog", 10)
    group = {"group": cats[0].sha256}
    mixed = [photo(row.name, row.label, **group) for row in (*cats[:2], dogs[0])]
    divided = assign_splits([*mixed, *cats[2:], *dogs[1:]], seed=seed)
    assert len({row.split for row in divided[:3]}) == 1
    assert all(counts(divided)[label, split] for label in ("cat", "dog") for split in SPLITS)


def test_a_tiny_class_parts_with_photos_that_have_no_near_duplicates() -> None:
    """A group of ten leaves train only where its own number says so: in 20 % of all cases."""
    cats = photos("cat", 12)
    rows = [*in_groups(cats[:10], 10), *cats[10:], *photos("dog", 12)]
    places = []
    for seed in range(200):
        divided = assign_splits(rows, seed=seed)
        (place,) = {row.split for row in divided[:10]}
        assert {place, *(row.split for row in divided[10:12])} == set(SPLITS)
        places.append(place)
    assert places.count("train") == pytest.approx(160, abs=15)


def test_a_class_of_one_picture_has_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match=r"photos of cat to train on; .*near-duplicates stay"):
        assign_splits(in_groups(photos("cat", 12), 12) + photos("dog", 12), seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_on_disk_are_on_one_side(tmp_path: Path, seed: int) -> None:
    class_folders(tmp_path, {"cat": 10, "dog": 10})
    generator = np.random.default_rng(seed)
    for number in range(20):
        image = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        for quality in (60, 80):
            path = tmp_path / ("cat", "dog")[number % 2] / f"{number} {quality}.jpg"
            image.resize((160, 120)).save(path, quality=quality)
    divided = assign_splits(audit(find_files(tmp_path)), seed=seed)
    assert len(sides(divided)) == 20
    assert all(len(splits) == 1 for splits in sides(divided))


# ---- Classes out of balance ----


def labels_of(**counts: int) -> list[str]:
    return [label for label, count in counts.items() for _ in range(count)]


def test_up_to_one_to_three_nothing_is_weighted() -> None:
    assert MAX_RATIO == 3
    assert class_weights(labels_of(cat=30, dog=10)) is None
    assert class_weights(labels_of(cat=30, dog=20, bird=10)) is None
    assert class_weights(labels_of(cat=31, dog=10)) is not None
    assert class_weights(labels_of(cat=31, dog=20, bird=10)) is not None


@pytest.mark.parametrize("counts", [{"dog": 90, "cat": 10}, {"cat": 5, "wolf": 17, "dog": 200}])
def test_the_weights_are_the_balanced_ones(counts: dict[str, int]) -> None:
    names = np.array(sorted(counts))
    expected = compute_class_weight("balanced", classes=names, y=labels_of(**counts))
    weights = class_weights(labels_of(**counts))
    assert weights is not None
    assert list(weights) == names.tolist()
    np.testing.assert_allclose(list(weights.values()), expected)


def test_the_imbalance_is_that_of_the_largest_and_the_smallest() -> None:
    assert imbalance(labels_of(cat=12, dog=8, bird=4)) == 3
    assert imbalance(labels_of(cat=4, dog=4)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_of_five_photos_three_are_trained_on(seed: int) -> None:
    divided = counts(assign_splits(photos("cat", 5) + photos("dog", 40), seed=seed))
    assert [divided["cat", split] for split in SPLITS] == [3, 1, 1]
