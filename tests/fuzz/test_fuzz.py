"""The fuzzing harness finds what it is made to find, and a few thousand steps find nothing."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.core.errors import ImageError
from app.data.decode import decode
from tests.fuzz import bundles, costs, images, mutations
from tests.fuzz.runner import Target, fuzz

COSTS = Target("tests.fuzz.costs", costs.make, costs.check)


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        (Target("tests.fuzz.images", images.make, images.check), 4000),
        (Target("tests.fuzz.bundles", bundles.make, bundles.check), 1000),
        (COSTS, 100),
        pytest.param(COSTS, 10_000, marks=pytest.mark.slow),  # a few minutes
    ],
    ids=["images", "bundles", "costs", "costs for minutes"],
)
def test_a_few_thousand_steps_find_nothing(target: Target, steps: int, tmp_path: Path) -> None:
    found = fuzz(target, 0, steps, tmp_path)
    assert found == 0, [path.read_text() for path in tmp_path.glob("*.txt")]


def test_steps_are_repeatable_and_differ() -> None:
    assert images.make(7) == images.make(7) != images.make(8)
    assert bundles.make(7) == bundles.make(7) != bundles.make(8)
    assert costs.make(7) == costs.make(7) != costs.make(8)


def test_files_are_cut_into_their_pieces() -> None:
    for data in images.valid():
        assert b"".join(costs.pieces(data)) == data
    png = next(data for data in images.valid() if data.startswith(mutations.PNG))
    names = [part[4:8] for part in costs.pieces(png)[1:]]
    assert (names[0], names[-1]) == (b"IHDR", b"IEND")


def test_a_file_that_its_bytes_and_pixels_do_not_explain_is_a_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "START", -1.0)
    with pytest.raises(ValueError, match="s instead of"):
        costs.check(b"no photo")


def test_every_seed_is_sound() -> None:
    assert "refused" not in map(images.check, images.valid())
    about = bundles.description(bundles.small_model())
    assert bundles.check(len(about).to_bytes(4, "big") + about + bundles.small_model()) == "answers"


def test_a_png_gets_right_checksums() -> None:
    png = next(data for data in images.valid() if data.startswith(mutations.PNG))
    assert mutations.with_png_checksums(png) == png
    broken = png[:-1] + bytes([png[-1] ^ 1])
    assert mutations.with_png_checksums(broken) == png


CRASHES = {
    "a crash": "import os; os.abort()",
    "an exception": "1 / 0",
    "words on stderr": "import sys; print('libtiff: oh', file=sys.stderr)",
    "words on stdout": "print('falling back')",
    "a warning": "import warnings; warnings.warn('oh')",
    "memory": "kept.append(bytearray(1200 * 1024**2))",
}


@pytest.mark.parametrize("fault", CRASHES.values(), ids=CRASHES)
def test_the_runner_keeps_the_input_that_did_it(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "kept" in fault and sys.platform != "linux":
        pytest.skip("peaks are read from /proc")
    (tmp_path / "faulty.py").write_text(
        "import sys\nfrom tests.fuzz.runner import Target, main\nkept = []\n"
        "def check(data):\n"
        f"    if data == b'3':\n        {fault}\n"
        "    return 'fine'\n"
        "target = Target('faulty', lambda step: str(step).encode(), check)\n"
        "if __name__ == '__main__': sys.exit(main(target))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    target = Target("faulty", lambda step: str(step).encode(), lambda _: "fine")
    finds = tmp_path / "finds"
    assert fuzz(target, 0, 6, finds) == 1
    (find,) = finds.glob("*.bin")
    if "words" not in fault and "stderr" not in fault and "falling" not in fault:
        assert (find.name, find.read_bytes()) == ("3.bin", b"3")


# ---- What it found ----


def test_a_gif_whose_first_frame_is_huge_is_refused_before_pillow_makes_a_canvas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps 425,900 and 818,372: 1.2 GB for 117 bytes, which looked like 24×16 pixels."""

    def fill(*_: object) -> None:
        raise MemoryError("a canvas was made")

    monkeypatch.setattr(Image.core, "fill", fill)
    screen = b"GIF89a" + struct.pack("<HHBBB", 24, 16, 0, 0, 0)
    dispose_to_background = b"\x21\xf9\x04\x08\0\0\0\0"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 52_000, 33_000, 0) + b"\x02\x02\x44\x01\0;"
    with pytest.raises(ImageError, match="1,716,000,000 pixels"):
        decode(screen + dispose_to_background + frame)
