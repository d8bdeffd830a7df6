"""The curve of labelling as a figure: measured numbers in, the same SVG each time."""

from pathlib import Path

import numpy as np

from benchmarks.labelling import draw


def test_the_curve_is_drawn_from_its_numbers(tmp_path: Path) -> None:
    random, queue = np.array([[0.5, 0.8], [0.6, 0.9]]), np.array([[0.7, 0.9], [0.8, 0.95]])
    paths = [tmp_path / name for name in ("one.svg", "same.svg", "other.svg")]
    for path, found in zip(paths, (queue, queue, random), strict=True):
        draw((10, 20), random, found, path)
    one, same, other = (path.read_text(encoding="utf-8") for path in paths)
    assert one == same != other
    assert "<svg" in one
    assert "<image" not in one
