"""Breaking valid files in the ways that reach deep into decoders; the same for the same seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence

INTERESTING = [0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]
PNG = b"\x89PNG\r\n\x1a\n"


def mutated(data: bytes, others: Sequence[bytes], source: random.Random) -> bytes:
    """Return ``data`` with one to eight changes; a PNG mostly gets right checksums again."""
    result = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 3, 5, 8])):
        source.choice(CHANGES)(result, others, source)
        if not result:
            break
    if result.startswith(PNG) and source.random() < 0.8:
        return with_png_checksums(bytes(result))
    return bytes(result)


def with_png_checksums(data: bytes) -> bytes:
    """Return a PNG with a right CRC-32 behind each chunk, without which nothing else is read."""
    result, place = bytearray(data), len(PNG)
    while place + 12 <= len(result):
        end = place + 8 + int.from_bytes(result[place : place + 4], "big")
        if end + 4 > len(result):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(result[place + 4 : end]))
        place = end + 4
    return bytes(result)


def _place(data: bytearray, source: random.Random) -> int:
    """Choose a place, headers more often than their share."""
    within = len(data) if source.random() < 0.5 else min(len(data), 128)
    return source.randrange(max(1, within))


def _flip(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    data[_place(data, source)] ^= 1 << source.randrange(8)


def _set(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    data[_place(data, source)] = source.choice(INTERESTING)


def _number(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    """Write a number at the edge of its kind, as lengths, sizes and offsets are attacked."""
    width = source.choice([2, 4])
    value = source.choice(NUMBERS) & (256**width - 1)
    place = _place(data, source)
    data[place : place + width] = value.to_bytes(width, source.choice(["big", "little"]))


def _cut(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    del data[_place(data, source) :]


def _remove(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    place = _place(data, source)
    del data[place : place + source.randint(1, 40)]


def _repeat(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    place = _place(data, source)
    piece = data[place : place + source.randint(1, 60)] * source.choice([1, 2, 20])
    data[place:place] = piece


def _splice(data: bytearray, others: Sequence[bytes], source: random.Random) -> None:
    other = source.choice(others)
    start = source.randrange(len(other))
    place = _place(data, source)
    data[place : place + source.randint(0, 40)] = other[start : start + source.randint(1, 80)]


CHANGES = [_flip, _flip, _set, _number, _number, _cut, _remove, _repeat, _splice]
