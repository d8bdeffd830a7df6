"""The decoder: every kind of file that photo folders hold gives pixels, or a reason."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded, make_photo, picture, shared_folder
from PIL import Image
from PIL.Image import Transpose

from app.core.config import MAX_IMAGE_SIZE
from app.core.errors import ImageError
from app.data import photo_file as reading
from app.data.decode import FORMATS, MAX_PIXELS, SUFFIXES, decode, load_image, read_image, resize
from tests.fuzz.bombs import png_chunk

ROOT = Path(__file__).parents[2]
# How to turn an upright picture so that its EXIF orientation turns it back.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def differ(pixels: np.ndarray, expected: Image.Image) -> float:
    """Return the mean difference in grey levels; a wrong turn gives tens, JPEG a few."""
    wanted = np.asarray(expected.convert("RGB"), dtype=float)
    assert pixels.shape == wanted.shape
    assert pixels.dtype == np.uint8
    return float(np.abs(pixels - wanted).mean())


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Build a PNG by hand: Pillow does not write every kind that it reads."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + png_chunk(b"IEND")


# ---- What decodes ----


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_gives_the_upright_picture(kind: str, orientation: int) -> None:
    upright = picture()
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert differ(read_image(encoded(stored, kind, exif=exif)), upright) < 5


def test_exif_does_not_turn_a_heic_which_its_container_has_turned_already() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert differ(read_image(encoded(picture(), "HEIF", exif=exif)), picture()) < 5


def test_an_unknown_orientation_leaves_the_picture_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert differ(read_image(encoded(picture(), "PNG", exif=exif)), picture()) == 0


def test_unreadable_exif_does_not_spoil_sound_pixels() -> None:
    data = encoded(picture(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert differ(read_image(data), picture()) < 3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0, "icc_profile": b"not a profile"}),
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
        ("JPEG2000", {}),
        ("JPEG2000", {"irreversible": True, "tile_size": (32, 32), "no_jp2": True}),
        ("HEIF", {"quality": 95}),
    ],
)
def test_every_format_decodes(kind: str, options: dict[str, Any]) -> None:
    pixels, found = decode(encoded(picture(), kind, **options))
    assert found == kind
    assert differ(pixels, picture()) < 5


def test_every_suffix_names_a_format_that_is_read() -> None:
    assert set(SUFFIXES.values()) <= {*FORMATS, "HEIF"}


def test_cmyk_is_not_inverted() -> None:
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert differ(read_image(data), picture()) < 5


def test_greyscale_becomes_three_equal_channels() -> None:
    grey = picture().convert("L")
    assert differ(read_image(encoded(grey, "PNG")), grey) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_saturated(kind: str) -> None:
    grey = picture().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert differ(read_image(encoded(deep, kind)), grey) <= 1


def test_16_bit_colour() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 32768, 0, 256, 0, 65535)
    pixels = read_image(png(2, 1, 16, 2, rows))
    assert pixels.tolist() == [[[255, 128, 0], [1, 0, 255]]]


def test_palette_gives_its_colours() -> None:
    palette = picture().quantize(16)
    assert differ(read_image(encoded(palette, "PNG")), palette) == 0


def half_clear(mode: str) -> Image.Image:
    """Return a black picture whose left half is transparent."""
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 4))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "LA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("WEBP", "RGBA")],
)
def test_transparency_is_laid_on_white(kind: str, mode: str) -> None:
    pixels = read_image(
        encoded(half_clear(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 0).all()


def test_half_transparent_is_mixed_with_white() -> None:
    data = encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "PNG")
    assert read_image(data).tolist() == [[[204, 204, 204]]]


@pytest.mark.parametrize(
    ("kind", "transparency"), [("PNG", 0), ("PNG", bytes([0, 255])), ("GIF", 0)]
)
def test_a_transparent_palette_entry_is_white(kind: str, transparency: int | bytes) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.paste(0, (0, 0, 2, 4))
    pixels = read_image(encoded(image, kind, transparency=transparency))
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 2:] == (200, 10, 20)).all()


@pytest.mark.parametrize(
    ("depth", "colour", "row", "clear"),
    [
        (1, 0, b"\x40", b"\0\0"),
        (8, 0, b"\0\xff", b"\0\0"),
        (8, 2, b"\0\0\0\xff\xff\xff", b"\0" * 6),
    ],
    ids=["1-bit", "grey", "colour"],
)
def test_a_transparent_colour_without_a_palette_is_white(
    depth: int, colour: int, row: bytes, clear: bytes
) -> None:
    data = png(2, 1, depth, colour, b"\0" + row, extra=png_chunk(b"tRNS", clear))
    assert read_image(data).tolist() == [[[255] * 3, [255] * 3]]


def test_1_bit_is_black_and_white() -> None:
    bits = picture().convert("1")
    pixels = read_image(encoded(bits, "PNG"))
    assert differ(pixels, bits) == 0
    assert set(np.unique(pixels)) == {0, 255}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert differ(read_image(data), frames[0]) < 5


@pytest.mark.parametrize("name", ["photo.png", "photo.JPG", "photo", "photo.txt", "photo.heic"])
def test_the_content_decides_not_the_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(picture(), "JPEG", quality=95))
    assert differ(read_image(path), picture()) < 3


def test_bytes_after_the_photo_do_no_harm() -> None:
    data = encoded(picture(), "JPEG")
    assert (read_image(data + b"garbage" * 1000) == read_image(data)).all()


def test_a_jpeg_without_a_jfif_header_is_read() -> None:
    data = encoded(picture(), "JPEG")
    length = int.from_bytes(data[4:6], "big")
    bare = data[:2] + data[4 + length :]
    assert b"JFIF" in data
    assert b"JFIF" not in bare
    assert (read_image(bare) == read_image(data)).all()


@pytest.mark.parametrize("size", [(1, 1), (3000, 7), (7, 3000), (1, 900)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_photo(tmp_path / "photo.jpg", size=size)
    assert read_image(path).shape == (size[1], size[0], 3)
    assert load_image(path, 224).shape == (224, 224, 3)


def test_resizing_the_array_equals_loading_the_file(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "photo.jpg", size=(300, 200))
    expected = resize(read_image(path), 64)
    assert (load_image(path, 64) == expected).all()
    assert (load_image(path.read_bytes(), 64) == expected).all()


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((2100, 2050), (1050, 1025)),
        ((2048, 2047), (2048, 2047)),
        ((8200, 4100), (2050, 1025)),
        ((3000, 900), (3000, 900)),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(
    size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    """At no --image-size is anything of it missing; the audit reads it in full."""
    data = encoded(picture().resize(size), "JPEG")
    whole, _ = decode(data)
    assert whole.shape == (*size[::-1], 3)
    assert read_image(data).shape == (*decoded[::-1], 3)
    for side in (64, 320, MAX_IMAGE_SIZE):
        assert np.abs(load_image(data, side).astype(int) - resize(whole, side)).mean() < 1
    assert read_image(encoded(picture().resize((2100, 2050)), "PNG")).shape == (2050, 2100, 3)


@pytest.mark.parametrize("orientation", [6, 8, 3])
def test_a_large_photo_of_a_phone_is_turned_upright(orientation: int) -> None:
    upright = picture().resize((2100, 2800))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(STORED[orientation])
    assert differ(read_image(encoded(stored, "JPEG", exif=exif)), upright.resize((1050, 1400))) < 5


@pytest.mark.parametrize("tenths", [3, 9])
def test_a_large_jpeg_that_is_cut_short_is_damaged(tenths: int) -> None:
    data = encoded(picture().resize((2100, 2050)), "JPEG")
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[: len(data) * tenths // 10])


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(resize(stripes, 8).astype(int) - 128).max() < 8  # nearest would give 0 or 255


# ---- What is refused, and why ----

JPEG = encoded(picture(size=(160, 120)), "JPEG")


def zip_of_text() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


def huge_jpeg() -> bytes:
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + b"\xff\xff\xff\xff" + JPEG[place + 4 :]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "zero bytes": (lambda: bytes(20_000), "20000 zero bytes"),
    "one byte": (lambda: b"\xff", "not a photo: unknown bytes"),
    "beginning": (lambda: b"\xff\xd8", "only the beginning of a JPEG"),
    "text": (lambda: b"Dear cat,\n", "not a photo: text"),
    "html": (lambda: b"\n<!DOCTYPE html><title>404</title>", "a web page"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "drawing"),
    "zip": (zip_of_text, "a zip archive"),
    "pdf": (lambda: b"%PDF-1.4\n", "a PDF document"),
    "thumbnails": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "thumbnail database"),
    "video": (lambda: b"\0\0\0\x18ftypmp42\0\0\0\0" + bytes(99), "not a photo"),
    "postscript": (lambda: encoded(picture(), "EPS"), "not read: a drawing"),
    "jpeg bomb": (huge_jpeg, "4,294,836,225 pixels"),
    "png bomb": (lambda: png(2**31 - 1, 2**31 - 1, 8, 2, b""), "pixels"),
    "1-bit bomb": (lambda: png(12_000, 12_000, 1, 0, bytes(1501 * 12_000)), "144,000,000 pixels"),
    "float": (lambda: encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point pixels"),
    "32 bits": (lambda: encoded(Image.new("I", (4, 4), 2**20), "TIFF"), "beyond 16 bits"),
    "negative": (lambda: encoded(Image.new("I", (4, 4), -1), "TIFF"), "beyond 16 bits"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_photo_is_refused_with_the_reason(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content())
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match=reason):
            read_image(source)
    with pytest.raises(ImageError, match=reason):  # the audit asks for the format too
        decode(path.read_bytes())


def test_the_limit_is_far_from_ordinary_photos() -> None:
    assert 50_000_000 < MAX_PIXELS < 12_000 * 12_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_truncated_file_is_refused(kind: str, tenths: int) -> None:
    data = encoded(picture(size=(160, 120)), kind)
    with pytest.raises(ImageError, match=r"damaged|not a photo"):
        read_image(data[: len(data) * tenths // 10])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a folder, not a photo"):
        read_image(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "none.jpg")


def test_a_dangling_link_is_refused_and_a_sound_one_read(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "none.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "sound.jpg").symlink_to(photo)
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "dangling.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "loop.jpg")
    assert differ(read_image(tmp_path / "sound.jpg"), picture()) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets in folders here")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(Path("s.jpg"))


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg"])
def test_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / name)


def test_a_file_too_large_for_any_photo_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_photo(tmp_path / "film.jpg")
    monkeypatch.setattr(reading, "MAX_BYTES", path.stat().st_size)
    read_image(path)
    monkeypatch.setattr(reading, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ImageError, match="larger than any photo"):
        read_image(path)


# ---- Whatever comes ----


def decodes_or_is_refused(data: bytes) -> None:
    try:
        pixels = read_image(data)
    except ImageError as error:
        assert str(error).strip()
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.size


MAGIC = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBP",
    b"BM",
    b"II*\0",
    b"P5 ",
    b"P6 9 9 255\n",
    b"\0\0\0\x18ftypheic",
    b"\0\0\0\x18ftypavif",
]


@settings(max_examples=300, deadline=None, database=None)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=400))
def test_random_bytes(magic: bytes, rest: bytes) -> None:
    decodes_or_is_refused(magic + rest)


SOUND = [
    encoded(picture(), "JPEG"),
    encoded(picture(), "JPEG", progressive=True),
    encoded(picture(size=(12, 8)), "PNG"),
    encoded(picture(size=(12, 8)).quantize(8), "PNG", transparency=0),
    encoded(picture(size=(12, 8)), "GIF"),
    encoded(picture(size=(12, 8)), "TIFF"),
    encoded(picture(), "WEBP"),
]


@settings(max_examples=400, deadline=None, database=None)
@given(
    data=st.sampled_from(SOUND),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_mutated_photos(data: bytes, changes: list[tuple[float, int]], keep: float) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(data))] = value
    decodes_or_is_refused(bytes(mutated[: round(keep * len(data))]))


def test_nothing_is_written_or_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"a.jpg": JPEG, "b.jpg": JPEG[:700], "c.jpg": b"text", "d.gif": SOUND[4]}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, ns=(1, 1))
        decodes_or_is_refused(data)
        try:
            read_image(tmp_path / name)
        except ImageError:
            continue
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == files
    assert {path.stat().st_mtime_ns for path in tmp_path.iterdir()} == {1}
    assert capfd.readouterr() == ("", "")


def test_no_warning_escapes(tmp_path: Path) -> None:
    """In a fresh process, where pytest's own filters do not overrule those of the module."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"  # announces five entries and ends in the first
    kinds = {
        "exif.jpg": encoded(picture(), "JPEG", exif=exif),
        "palette.png": encoded(picture().quantize(4), "PNG", transparency=b"\0\x80"),
        "tags.tif": encoded(picture(), "TIFF").replace(b"\x00\x01\x03\x00", b"\x00\x01\x0c\x00", 1),
        "deep.png": encoded(Image.new("I;16", (4, 4), 999), "PNG"),
        "cut.jpg": JPEG[:900],
    }
    for name, data in kinds.items():
        (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings(record=True) as remarks:  # else the test would test nothing
        warnings.simplefilter("always")
        Image.open(io.BytesIO(kinds["exif.jpg"])).getexif()
    assert remarks
    script = (
        "import sys; from pathlib import Path; from app.data.decode import ImageError, read_image\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_image(Path(name))\n"
        "    except ImageError as error: print(Path(name).name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, sorted(tmp_path.iterdir()))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "exif.jpg" not in done.stdout.split()
    assert "cut.jpg" in done.stdout.split()


# ---- The real files ----

REFUSED_IN_SHARED = {
    "11702_zero_bytes.jpg",
    "666_zero_bytes.jpg",
    "Thumbs.db",
    "bomb_12000x12000_1bit.png",
    "bomb_40000x40000_1bit.png",
    "cat_no_eoi.jpg",
    "desktop.ini",
    "doc_as.jpg",
    "dog_header_claims_0x0.jpg",
    "dog_header_claims_65535x65535.jpg",
    "dog_truncated_02pct.jpg",
    "dog_truncated_25pct.jpg",
    "dog_truncated_50pct.jpg",
    "dog_truncated_90pct.jpg",
    "dog_truncated_99pct.jpg",
    "html_404_as.jpg",
    "one_byte.jpg",
    "random_bytes.jpg",
    "soi_only.jpg",
    "svg_entity_bomb.svg",
    "text_as.jpg",
    "zeros_20k.jpg",
    "zip_as.jpg",
}


@pytest.mark.weights
def test_the_broken_files_are_decoded_or_refused() -> None:
    refused = set()
    for path in (shared_folder() / "data" / "broken").iterdir():
        try:
            read_image(path)
        except ImageError:
            refused.add(path.name)
    assert refused == REFUSED_IN_SHARED


@pytest.mark.weights
def test_the_real_dog_is_the_same_dog_in_every_kind() -> None:
    folder = shared_folder() / "data" / "broken"
    dog = load_image(folder / "DOG_UPPER.JPG", 64).astype(float)
    turned = [folder / f"dog_exif{number}.jpg" for number in STORED]
    others = [folder / name for name in ("dog.avif", "dog.heic", "dog.webp", "dog_cmyk.jpg")]
    for path in [*turned, *others]:
        assert np.abs(load_image(path, 64) - dog).mean() < 6, path.name
    grey = dog @ (0.299, 0.587, 0.114)
    for name in ("dog_gray16.png", "dog_gray.jpg", "dog_LA.png"):
        assert np.abs(load_image(folder / name, 64)[..., 0] - grey).mean() < 6, name
