"""The drawn sample: the same each time, both kinds alike but for the animal's shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.core.errors import FetchError, UsageError
from app.data.sets.synthetic_pets import KINDS, Drawing, draw_animal, draw_sample

NUM_DRAWINGS = 24  # of each kind: enough for averages


@pytest.fixture(scope="module")
def drawings() -> dict[str, list[Drawing]]:
    return {
        kind: [draw_animal(kind, np.random.default_rng([7, i, j])) for j in range(NUM_DRAWINGS)]
        for i, kind in enumerate(KINDS)
    }


def test_boxes_lie_inside_and_hold_a_visible_part_of_the_picture(
    drawings: dict[str, list[Drawing]],
) -> None:
    for drawing in drawings["cat"] + drawings["dog"]:
        left, top, right, bottom = drawing.box
        width, height = drawing.image.size
        assert drawing.image.mode == "RGB"
        assert 240 <= width <= 400
        assert 240 <= height <= 400
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert max((right - left) / width, (bottom - top) / height) >= 0.5


def test_the_animal_is_what_is_inside_the_box() -> None:
    # Animals have strong outlines and backgrounds few, so outlines belong inside the boxes.
    inside, outside = [], []
    for seed in range(12):
        drawing = draw_animal("cat", np.random.default_rng(seed))
        grey = np.asarray(drawing.image.convert("L"), dtype=np.float64)
        dark = np.hypot(*np.gradient(grey)) > 45  # edges as strong as the drawn outlines
        left, top, right, bottom = drawing.box
        mask = np.zeros(grey.shape, dtype=bool)
        mask[top:bottom, left:right] = True
        inside.append(dark[mask].mean())
        outside.append(dark[~mask].mean())
    assert np.mean(inside) > 4 * np.mean(outside)


def test_sizes_places_and_shapes_vary(drawings: dict[str, list[Drawing]]) -> None:
    for kind in KINDS:
        boxes = np.array([drawing.box for drawing in drawings[kind]])
        sides = np.array([drawing.image.size for drawing in drawings[kind]])
        shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / sides.prod(axis=1)
        assert len({drawing.image.size for drawing in drawings[kind]}) > NUM_DRAWINGS / 2
        assert shares.max() > 2.5 * shares.min()
        assert np.ptp(boxes[:, 0]) > 80


def test_colour_alone_does_not_tell_the_kinds_apart(drawings: dict[str, list[Drawing]]) -> None:
    means = {
        kind: np.array([np.asarray(drawing.image).mean(axis=(0, 1)) for drawing in drawings[kind]])
        for kind in KINDS
    }
    # Standard error of the difference: averages of two samples from one distribution differ by
    # less than three of them.
    error = np.sqrt(sum(values.var(axis=0) / NUM_DRAWINGS for values in means.values()))
    assert np.all(np.abs(means["cat"].mean(axis=0) - means["dog"].mean(axis=0)) < 3 * error)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, per_class, seed in (("a", 3, 0), ("b", 3, 0), ("larger", 4, 0), ("other", 3, 1)):
        assert draw_sample(tmp_path / name, per_class=per_class, seed=seed) == 2 * per_class
    files = [f"{kind}/{kind}.{index}.jpg" for kind in KINDS for index in range(3)]
    found = sorted(path.relative_to(tmp_path / "a").as_posix() for path in tmp_path.glob("a/*/*"))
    assert found == sorted(files)
    for file in files:
        content = (tmp_path / "a" / file).read_bytes()
        assert (tmp_path / "b" / file).read_bytes() == content
        assert (tmp_path / "larger" / file).read_bytes() == content
        assert (tmp_path / "other" / file).read_bytes() != content
        with Image.open(tmp_path / "a" / file) as image:
            image.load()
            assert image.format == "JPEG"


def test_the_set_says_what_it_is(tmp_path: Path) -> None:
    draw_sample(tmp_path / "drawn", per_class=1, seed=5)
    assert "not photographs" in (tmp_path / "drawn/README.txt").read_text(encoding="utf-8")


def test_a_full_folder_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"the user's")
    with pytest.raises(FetchError, match="holds something already"):
        draw_sample(tmp_path, per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def test_an_interrupted_sample_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "drawn", per_class=1)
    assert list(tmp_path.iterdir()) == []


def test_impossible_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 picture"):
        draw_sample(tmp_path / "drawn", per_class=0)
    with pytest.raises(UsageError, match="seed of 0 or more"):
        draw_sample(tmp_path / "drawn", seed=-1)
    with pytest.raises(UsageError, match="cat, dog, got 'cow'"):
        draw_animal("cow", np.random.default_rng(0))
    assert list(tmp_path.iterdir()) == []
