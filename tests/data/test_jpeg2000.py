"""What a JPEG 2000 announces is checked in every header before the decoder makes room for it."""

from __future__ import annotations

import struct

import pytest
from photos import encoded, picture

from app.core.errors import ImageError
from app.data.decode import decode
from app.data.photo_file import walk

PLAIN = encoded(picture(), "JPEG2000", no_jp2=True)
CODING = PLAIN.index(b"\xff\x52")
TILE = PLAIN.index(b"\xff\x90")
PRECINCTS = encoded(picture(), "JPEG2000", no_jp2=True, precinct_size=(32, 32))
AFTER = CODING + 2 + int.from_bytes(PLAIN[CODING + 2 : CODING + 4], "big")
SMALL_BLOCKS = struct.pack(">HH2B5B", 0xFF53, 9, 0, 0, 0, 0, 0, 0, 1)  # COC: 4 × 4


def in_tile(segment: bytes) -> bytes:
    """Put a segment into the header of the only tile, and make that longer."""
    length = int.from_bytes(PLAIN[TILE + 6 : TILE + 10], "big") + len(segment)
    head = PLAIN[: TILE + 6] + length.to_bytes(4, "big") + PLAIN[TILE + 10 : TILE + 12]
    return head + segment + PLAIN[TILE + 12 :]


BOMBS = {
    "small blocks": encoded(picture(), "JPEG2000", codeblock_size=(8, 64)),
    "small blocks of a component": PLAIN[:AFTER] + SMALL_BLOCKS + PLAIN[AFTER:],
    "small blocks of a tile": in_tile(SMALL_BLOCKS),
    "small precincts": PRECINCTS.replace(b"\x44\x55\xff", b"\x44\x45\xff"),
    "layers": PLAIN[: CODING + 6] + b"\xff\xff" + PLAIN[CODING + 8 :],
    "tiles": PLAIN[:8] + struct.pack(">6I", 99, 99, 0, 0, 1, 1) + PLAIN[32:],
    "components": PLAIN[:40] + b"\x40\0" + PLAIN[42:],
    "levels": PLAIN[: CODING + 9] + b"\xff" + PLAIN[CODING + 10 :],
    "a marker of no standard": PLAIN[:AFTER] + b"\xff\x30\0\2" + PLAIN[AFTER:],
}


@pytest.mark.parametrize("name", BOMBS)
def test_more_than_any_encoder_writes_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.data.decode.Image.open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match="more pieces than any photo"):
        decode(BOMBS[name])


def test_precincts_shrink_with_the_picture() -> None:
    assert decode(PRECINCTS)[0].shape == (32, 48, 3)


def test_pixels_are_those_of_the_stream() -> None:
    assert walk(PLAIN).coded == walk(encoded(picture(), "JPEG2000")).coded == 48 * 32
    large = PLAIN[:8] + struct.pack(">II", 60_000, 60_000) + PLAIN[16:24]
    with pytest.raises(ImageError, match=r"3,600,000,000 pixels"):
        decode(large + struct.pack(">II", 60_000, 60_000) + PLAIN[32:])


def test_a_file_that_is_long_for_its_pixels_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    decode(PLAIN)
    monkeypatch.setattr("app.data.decode.MAX_JPEG2000", 3 * len(PLAIN) + 48 * 32 - 1)
    with pytest.raises(ImageError, match="announces 1,536 pixels"):
        decode(PLAIN)
