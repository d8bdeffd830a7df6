"""Files that may cost more than they should: ``python -m tests.fuzz.costs --steps 100000``.

Every step repeats pieces (segments, chunks, blocks, tags, boxes) of a valid file up to a hundred
thousand times, and changes sizes, counts and lengths, so that the file stays one that a decoder
follows. It is decoded and resized, and must cost what its pixels and its bytes explain.
"""

from __future__ import annotations

import functools
import itertools
import random
import struct
import sys
import time
from collections.abc import Callable

from .bombs import BOMBS
from .mutations import NUMBERS, PNG, with_png_checksums
from .runner import Target, main
from .seeds import seeds

MAX_BYTES = 2_000_000  # of an input
MAX_REPEATS = 100_000
# What a photo may cost of the processor, in seconds: to begin with, a pixel, a byte.
START, A_PIXEL, A_BYTE = 0.15, 60e-9, 300e-9
MAX_PIXELS = 64_000_000  # that a damaged file may have had


def check(data: bytes) -> str:
    """Decode and resize once; return how it ended.

    Raises:
        ValueError: when it took longer than its bytes and pixels explain.
    """
    from app.core.errors import ImageError
    from app.data.decode import read_image, resize

    start, pixels = time.process_time(), 0
    try:
        image = read_image(data)
        resize(image, 224)
        end, pixels = "decoded", image.shape[0] * image.shape[1]
    except ImageError as error:
        if "\n" in str(error):
            raise ValueError(f"more than a line: {error!r}") from error
        end = "damaged" if str(error).startswith("damaged") else "refused"
        if end == "damaged":
            pixels = MAX_PIXELS
    seconds = time.process_time() - start
    most = START + A_PIXEL * pixels + A_BYTE * len(data)
    if seconds > most:
        raise ValueError(f"{seconds:.2f} s instead of {most:.2f} s: {end}")
    return end


@functools.cache
def valid() -> list[list[bytes]]:
    """Return the files that are changed, each as its pieces."""
    small = [bomb(number) for bomb in BOMBS.values() for number in (3, 300)]
    return [pieces(data) for data in [*seeds().values(), *small] if data]


def make(step: int) -> bytes:
    """Return the input of a step."""
    source = random.Random(step)
    if source.random() < 0.05:
        return source.choice(list(BOMBS.values()))(_many(source, 20_000))[:MAX_BYTES]
    parts = list(source.choice(valid()))
    for _ in range(source.choice([1, 2, 3, 5])):
        source.choice(CHANGES)(parts, source)
    return repaired(b"".join(parts)[:MAX_BYTES])


def pieces(data: bytes) -> list[bytes]:
    """Cut a file where its format does; joined they are the file."""
    for magic, places in PLACES.items():
        if magic in data[:8]:
            cuts = sorted({0, len(data), *(place for place in places(data) if place < len(data))})
            return [data[a:b] for a, b in itertools.pairwise(cuts)]
    return [data]


def repaired(data: bytes) -> bytes:
    """Give a changed file the checksums and the length that its decoder asks for first."""
    if data.startswith(PNG):
        return with_png_checksums(data)
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    return data


def _many(source: random.Random, most: int) -> int:
    """Return a number whose size is as likely as any other."""
    return int(most ** source.random())


def _repeat(parts: list[bytes], source: random.Random) -> None:
    place = source.randrange(len(parts))
    room = MAX_BYTES // max(1, len(parts[place]))
    parts[place : place + 1] = [parts[place]] * max(1, min(room, _many(source, MAX_REPEATS)))
    if len(parts) > 2 * MAX_REPEATS:
        del parts[2 * MAX_REPEATS :]


def _move(parts: list[bytes], source: random.Random) -> None:
    parts.insert(source.randrange(len(parts) + 1), source.choice(parts))


def _number(parts: list[bytes], source: random.Random) -> None:
    """Write a size, a count or a length into a piece, mostly into its beginning."""
    index = source.randrange(len(parts))
    part = bytearray(parts[index])
    width = source.choice([1, 2, 3, 4, 4, 8])
    value = source.choice([source.choice(NUMBERS), _many(source, 2**32), _many(source, 2**16)])
    place = source.randrange(max(1, min(len(part), source.choice([8, 30, 200]))))
    order = source.choice(["big", "little"])
    written = (value % 256**width).to_bytes(width, "big" if order == "big" else "little")
    part[place : place + width] = written
    parts[index] = bytes(part)


def _grow(parts: list[bytes], source: random.Random) -> None:
    """Make the content of a piece longer, with its length where most formats have it."""
    index = source.randrange(len(parts))
    part, grown = parts[index], _many(source, 500_000)
    filling = source.choice(
        [b"\0", b"\xff", b"#\n", b"\1x", b"8BIM", b"\xff\xd0", part[-8:] or b"a"]
    )
    longer = part + (filling * (grown // len(filling) + 1))[:grown]
    size = int.from_bytes(part[:4], "big") + grown
    if part[:1] == b"\xff" and len(longer) > 4:
        longer = longer[:65_537]
        longer = longer[:2] + struct.pack(">H", len(longer) - 2) + longer[4:]
    elif part[4:8].isalnum() and size < 2**32:  # a chunk of PNG, a box
        longer = struct.pack(">I", size) + longer[4:]
    elif part[:4].strip().isalnum():  # a chunk of RIFF
        longer = longer[:4] + struct.pack("<I", len(longer) - 8) + longer[8:]
    parts[index] = longer


def _shape(parts: list[bytes], source: random.Random) -> None:
    """Change width and height in a header of whatever format."""
    data = b"".join(parts)
    sides = [_many(source, 2 ** source.choice([8, 16, 24])) for _ in range(2)]
    for magic, (where, kind) in SHAPES.items():
        found = data.find(magic)
        if found >= 0:
            limit = 256 ** struct.calcsize(kind[:2]) - 1
            new = struct.pack(kind, *(min(side, limit) for side in sides))
            place = found + where
            parts[:] = pieces(data[:place] + new + data[place + len(new) :])
            return


CHANGES: list[Callable[[list[bytes], random.Random], None]] = [
    _repeat, _repeat, _repeat, _move, _number, _number, _grow, _shape,
]  # fmt: skip
# Where width and height are, from what stands before them.
SHAPES: dict[bytes, tuple[int, str]] = {
    b"IHDR": (4, ">II"),
    b"\xff\xc0\0\x11": (5, ">HH"),
    b"\xff\xc2\0\x11": (5, ">HH"),
    b"GIF8": (6, "<HH"),
    b"BM": (18, "<ii"),
    b"\x9d\x01\x2a": (3, "<HH"),
    b"ispe": (8, ">II"),
}


def _jpeg_places(data: bytes) -> list[int]:
    places, place = [2], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        places.append(place)
        if data[places[-2] + 1] == 0xDA:
            following = data.find(b"\xff\xc4", place)  # the tables of the next scan
            place = following if following > 0 else len(data)
            places.append(place)
    return places


def _chunk_places(data: bytes) -> list[int]:
    """Return where chunks of PNG, of RIFF, or boxes begin."""
    png, webp = data.startswith(PNG), data.startswith(b"RIFF")
    place = 8 if png else 12 if webp else 0
    places = [place]
    while place + 8 <= len(data) and len(places) < 1000:
        big = int.from_bytes(data[place : place + 4], "big")
        little = int.from_bytes(data[place + 4 : place + 8], "little")
        place += big + 12 if png else little + little % 2 + 8 if webp else max(8, big)
        places.append(place)
        if data[place + 4 : place + 8] == b"meta":
            places.append(place + 12)
            place += 12
    return places


def _gif_places(data: bytes) -> list[int]:
    places = [13 + (3 * 2 ** (data[10] % 8 + 1) if data[10] & 128 else 0)]
    for place in range(places[0], len(data) - 1):
        if data[place] == 0 and data[place + 1] in b"!,;":
            places.append(place + 1)
    return places


def _tiff_places(data: bytes) -> list[int]:
    """Return where the entries of the first directory begin."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        start, kind, size = struct.unpack_from(order + "Q", data, 8)[0], "Q", 20
    else:
        start, kind, size = struct.unpack_from(order + "I", data, 4)[0], "H", 12
    number = struct.unpack_from(order + kind, data, start)[0]
    first = start + struct.calcsize(kind)
    return [start, *(first + size * entry for entry in range(min(number, 1000) + 1))]


PLACES: dict[bytes, Callable[[bytes], list[int]]] = {
    b"\xff\xd8\xff": _jpeg_places,
    b"PNG": _chunk_places,
    b"RIFF": _chunk_places,
    b"ftyp": _chunk_places,
    b"GIF8": _gif_places,
    b"II*\0": _tiff_places,
    b"II+\0": _tiff_places,
    b"MM\0*": _tiff_places,
}

if __name__ == "__main__":
    sys.exit(main(Target("tests.fuzz.costs", make, check)))
