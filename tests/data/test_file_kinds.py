"""A file that is not read is refused with the true reason; only text is called text."""

from __future__ import annotations

import struct

import pytest
from photos import encoded, picture
from PIL import Image

from app.core.errors import ImageError
from app.data.decode import decode
from app.data.manifest import REASONS

JPEG = encoded(picture(), "JPEG")
FRAME = JPEG.index(b"\xff\xc0")


def tiff(*tags: tuple[int, int, int]) -> bytes:
    """Return a TIFF with further tags: number, type (3, a short, or 1, a byte) and value."""
    image, info = picture(), Image.Exif()
    for number, kind, value in tags:
        info[number] = bytes([value] * 4) if kind == 1 else value
    return encoded(image, "TIFF", tiffinfo=info)


def box(brand: bytes, *others: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * len(others), b"ftyp", brand, 0) + b"".join(others)


ZEROS = bytes(600)
NOT_READ = {
    "a JPEG of 12 bits": JPEG[: FRAME + 4] + b"\x0c" + JPEG[FRAME + 5 :],
    "a JPEG of a rare kind (lossless)": JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
    "a JPEG of a rare kind (JPEG-LS)": b"\xff\xd8\xff\xf7\0\x0b\x08" + ZEROS,
    "a Photoshop file": b"8BPS\0\1" + ZEROS,
    "a JPEG XL picture": b"\xff\x0a\xfa\x1f" + ZEROS,
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + ZEROS,
    "an icon": encoded(picture(), "ICO"),
    "camera raw": b"II*\0\x10\0\0\0CR\2\0" + ZEROS,  # Canon CR2
    "a camera raw": box(b"crx ", b"isom") + ZEROS,  # Canon CR3
    "a camera raw file": b"FUJIFILMCCD-RAW 0201" + ZEROS,
    "camera raw file; exp": tiff((50706, 1, 1)),  # Adobe DNG
    "a camera raw file; export it": tiff((254, 3, 1), (330, 3, 8)),  # Nikon NEF, Sony ARW
    "a TIFF of a rare kind": b"MM\0*\0\0\0\x08" + ZEROS,
    "a drawing (EPS": b"\xc5\xd0\xd3\xc6" + ZEROS,
    "a picture of a rare kind": b"#?RADIANCE\n" + ZEROS,
    "measurements": bytes(128) + b"DICM" + ZEROS,
}
NO_PHOTO = {
    "a zip": b"PK\3\4" + ZEROS,
    "an archive": encoded(picture(), "JPEG")[:257].ljust(257).replace(b"\xff\xd8", b"ab")
    + b"ustar\0"
    + ZEROS,
    "an arch": b"Rar!\x1a\7" + ZEROS,
    "a video": box(b"mp42", b"isom") + ZEROS,
    "a vide": box(b"qt  ") + ZEROS,
    "a vid": b"\x1a\x45\xdf\xa3" + ZEROS,
    "a vi": (b"G@" + bytes(186)) * 3,
    "an audio file": b"ID3\4" + ZEROS,
    "macOS's notes": b"\0\5\x16\7\0\2\0\0Mac OS X" + ZEROS,
    "a Git LFS pointer; the photo was not fetched": b"version https://git-lfs.github.com/spec/v1\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s1--0.jpg\n",
    "a web page (HTML)": b"\n<!-- x --><!DOCTYPE html><title>404",
    "a web page": "\ufeff<html>".encode(),
    "a drawing (SVG)": b'<?xml version="1.0"?>\n<svg>',
    "a text (XML)": b"<a/>",
    "a program": b"MZ\x90\0\3" + ZEROS,
    "a program's data": b"SQLite format 3\0" + ZEROS,
    "text": b"name,label\n",
    "tex": "Größe\tübel".encode("cp1252"),
    "te": "猫".encode() * 600,
    "t": "猫と犬".encode("utf-16"),
    "unknown bytes": b"Dear cat,\0\n",
    "unknown": "Größe".encode("cp1252")[2:4] * 99,
    "damaged": b"",
}
del NO_PHOTO["damaged"]


@pytest.mark.parametrize("reason", NOT_READ)
def test_pictures_that_are_not_read_are_named(reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(NOT_READ[reason])
    assert str(caught.value).startswith("not read: ")
    assert reason in str(caught.value)
    assert "save it as JPEG or PNG" in str(caught.value)
    assert caught.value.code == "not_read" in REASONS


@pytest.mark.parametrize("reason", NO_PHOTO)
def test_what_is_no_picture_is_named(reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(NO_PHOTO[reason])
    assert str(caught.value).startswith(f"not a photo: {reason}")
    assert caught.value.code == "not_a_photo"


def test_a_jpeg_without_a_sound_header_is_damaged() -> None:
    with pytest.raises(ImageError, match="damaged: the header of a JPEG"):
        decode(JPEG[: FRAME + 5] + bytes(4) + JPEG[FRAME + 9 :])
