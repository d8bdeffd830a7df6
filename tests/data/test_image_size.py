import pytest

from app.core.config import LARGEST_AUTO_SIZE
from app.data.folder_layout import Split
from app.data.image_size import fitting_image_size
from app.data.manifest import ManifestRow, Verdict


def row(
    width: int, height: int, verdict: Verdict = "used", label: str = "cat", split: Split = "train"
) -> ManifestRow:
    return ManifestRow("a.jpg", label, split, "", verdict, width=width, height=height)


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((500, 374), 320),
        ((128, 128), 160),
        ((8, 8), 160),
        ((200, 1000), 192),
        ((4000, 3000), LARGEST_AUTO_SIZE),
    ],
)
def test_the_shorter_side_decides(sides: tuple[int, int], size: int) -> None:
    assert fitting_image_size([row(*sides)]) == fitting_image_size([row(*sides[::-1])]) == size


def test_the_median_of_the_classes_training_photos_counts() -> None:
    """Nothing is chosen by test photos, nor by what shows none of the classes."""
    rows = [row(200, 200), row(220, 230), row(9000, 9000), *[row(0, 0, "skipped")] * 9]
    rows += [row(8, 8, split="test"), row(8, 8, label="neither")] * 9
    assert fitting_image_size(rows) == 224
    assert fitting_image_size([]) == LARGEST_AUTO_SIZE
