"""What a HEIF or AVIF announces: its boxes, and the AV1 streams that they point at.

An AV1 decoder makes room for what the stream announces, whatever the boxes around it hold: an AVIF
of 64 × 64 pixels and 3 kB took 968 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.core.errors import ImageError

if TYPE_CHECKING:  # it imports this module
    from app.data.photo_file import Header

MAX_ITEM_PIECES = 8_192  # 1,000 tiles: each item is looked up among all
# Boxes that hold boxes, and how many bytes come before the first of them.
_CONTAINERS = {
    b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"dinf": 0, b"dref": 8, b"grpl": 0,
    b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8, b"edts": 0,
}  # fmt: skip
# Boxes that are lists, by the bytes of their shortest entry.
_LISTS = {
    b"iloc": 6, b"ipma": 3, b"stts": 8, b"ctts": 8, b"stsz": 4, b"stsc": 12, b"stco": 4, b"co64": 8,
    b"stss": 4, b"elst": 12, b"sbgp": 8, b"dimg": 2, b"thmb": 2, b"auxl": 2, b"cdsc": 2, b"prem": 2,
}  # fmt: skip
_SEQUENCE_HEADER = 1
_SEQUENCE_HEADER_BYTES = 512  # more than 32 operating points with everything that they may have

_Extent = tuple[int, int]  # where something begins, and its length
_Item = tuple[bool, list[_Extent]]  # whether in the idat box, and the extents


def walk_boxes(data: bytes, header: Header) -> None:
    """Count the boxes and list entries of a HEIF or AVIF, its metadata and the pixels it holds.

    Raises:
        ImageError: when it has more pieces or metadata than a photo has.
    """
    todo, kinds, items, idat = [(0, len(data))], dict[int, bytes](), dict[int, _Item](), 0
    tracks: list[_Extent] = []
    while todo:
        place, end = todo.pop()
        codec, chunk, sample = b"", 0, 0  # of a track
        while place + 8 <= end:
            size, name = struct.unpack_from(">I4s", data, place)
            body = place + 8
            if size == 1 and body + 8 <= end:
                size, body = _number(data, body, 8), body + 8
            stop = min(place + size, end) if size else end
            if stop < body:
                break
            place = stop
            header.count(most=MAX_ITEM_PIECES)
            if name in _CONTAINERS:
                todo.append((body + _CONTAINERS[name], stop))
            if name in _LISTS:
                header.count((stop - body) // _LISTS[name], MAX_ITEM_PIECES)
            if name == b"iinf":
                todo.append((body + (8 if data[body : body + 1] > b"\0" else 6), stop))
            elif name == b"infe":
                wide = 2 if data[body : body + 1] == b"\2" else 4
                kind = body + 6 + wide
                kinds[_number(data, body + 4, wide)] = data[kind : kind + 4]
            elif name == b"iloc":
                items.update(_items(data[body:stop]))
            elif name == b"idat":
                idat = body
            elif name == b"colr":
                header.memory += 3 * (stop - body)
            elif name == b"stsd":
                codec = data[body + 12 : body + 16]
            elif name in (b"stco", b"co64"):
                chunk = _number(data, body + 8, _LISTS[name])
            elif name == b"stsz":
                alike, number, first = (_number(data, body + at, 4) for at in (4, 8, 12))
                sample = alike or first
                header.count(number if alike else 0, MAX_ITEM_PIECES)
        if codec == b"av01":
            tracks.append((chunk, sample))
    joined = 0
    for item, (within, extents) in items.items():
        length = sum(size for _, size in extents)
        if kinds.get(item) in (b"Exif", b"mime"):
            header.exif(length)
            header.memory += 8 * length
        if kinds.get(item) == b"av01":
            joined += length if len(extents) > 1 else 0
            if joined > len(data):
                raise ImageError("more pieces of pixels than there are bytes; save it again")
            _walk_stream(data, header, [(idat * within + place, size) for place, size in extents])
    for track in tracks:
        _walk_stream(data, header, [track])


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "big")


def _items(box: bytes) -> Iterator[tuple[int, _Item]]:
    """Yield the items of an ``iloc`` box (ISO/IEC 14496-12, 8.11.3)."""
    if len(box) < 8:
        return
    version, wide = box[0], 4 if box[0] == 2 else 2
    offset_size, length_size = box[4] >> 4, box[4] & 15
    base_size, index_size = box[5] >> 4, box[5] & 15 if version else 0
    each = index_size + offset_size + length_size
    place = 6 + wide
    for _ in range(_number(box, 6, wide)):
        item, place = _number(box, place, wide), place + wide
        within = version > 0 and box[place + 1 : place + 2] == b"\1"
        place += 4 if version else 2
        base, place = _number(box, place, base_size), place + base_size
        number, place = _number(box, place, 2), place + 2
        if place > len(box):
            return
        end = place + each * number
        offsets = range(place + index_size, min(end, len(box)) + index_size, each or 1)
        yield item, (within, [
            (base + _number(box, at, offset_size), _number(box, at + offset_size, length_size))
            for at in offsets
        ])  # fmt: skip
        place = end


def _walk_stream(data: bytes, header: Header, extents: list[_Extent]) -> None:
    """Find the largest picture that an AV1 stream of open bitstream units announces.

    Source:
        AV1 Bitstream & Decoding Process Specification, 5.3 (open bitstream unit), 4.10.5 (leb128).
    """
    parts = [memoryview(data)[place : place + size] for place, size in extents]
    stream = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    place = 0
    while place < len(stream):
        header.count(most=MAX_ITEM_PIECES)
        head = stream[place]
        place += 2 if head & 4 else 1
        size = len(stream) - place
        if head & 2:
            size = shift = 0
            for byte in stream[place : place + 8]:
                place += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            unit = bytes(stream[place : place + min(size, _SEQUENCE_HEADER_BYTES)])
            header.coded = max(header.coded, _sequence_pixels(unit))
        place += size


class _Bits:
    """Reads numbers of so many bits; zeros beyond the end."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, bits: int) -> int:
        self.left -= bits
        shifted = self.value >> self.left if self.left >= 0 else 0
        return shifted & ((1 << bits) - 1)


def _sequence_pixels(unit: bytes) -> int:
    """Return the most pixels that a sequence header allows (the same, 5.5.1 to 5.5.5)."""
    read = _Bits(unit).read
    read(4)  # profile, still picture
    if read(1):  # reduced header
        read(5)
    else:
        delay_bits = 0
        if read(1):  # timing
            read(64)
            if read(1):
                zeros = 0
                while zeros < 32 and not read(1):
                    zeros += 1
                read(zeros)
            if read(1):  # decoder model
                delay_bits = read(5) + 1
                read(42)
        display_delay = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if display_delay and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    return (read(width_bits) + 1) * (read(height_bits) + 1)
