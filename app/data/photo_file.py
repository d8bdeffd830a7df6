"""A photo's file before any decoder sees it: its bytes, and what its headers announce.

Decoders take pieces (segments, chunks, blocks, boxes, tags, frames) one by one in Python, or join
or search them quadratically. So the pieces are counted, and all metadata counts as memory, in as
many copies as the decoder makes of it. The walk takes linear time, holds no copies, goes where the
decoder goes, and ends silently where a file makes no sense: the decoder reports the fault.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ImageError
from app.data.heif_boxes import walk_boxes
from app.data.jpeg2000_markers import CODESTREAM, SIGNATURE, walk_jpeg2000

# 53 million pixels as RGB, not packed; a video among the photos fills no memory. Decoders copy
# parts of a file once or twice: three times this stays under 512 MiB.
MAX_BYTES = 160_000_000
MAX_PIECES = 65_536  # a PNG of 160 MB in the usual pieces of 8 kB has 20,000
MAX_SEGMENTS = 4_096  # of a JPEG: 160 MB of the largest would be 2,400
MAX_NUMBERS = 131_072  # two for each row of the tallest picture: its place and length
MAX_EXIF = 2**20  # a JPEG segment of it has 64 kB; twenty times what the largest cameras write
MAX_EXIF_SEGMENTS = 16  # Pillow joins them one by one
MAX_SCANS = 32  # encoders write 10, or 18 in CMYK; each costs 28 ms at 62 million pixels
MAX_UNPACKED = 64 * 2**20  # Pillow's own limit for text; profiles count here, too
MAX_COMMENTS = 1_000  # of a plain PPM: Pillow copies up to 1 MB for each

# Without "\xff+": that goes back over a run of fill bytes from each byte of it, and holds the GIL.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
# libjpeg begins a run of fill bytes anew with every 64 KiB that it is given: 20 MB took 3 s.
_FILL = b"\xff" * 32_768
_ALONE = {0x01, 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)}  # markers without a length
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}

_PNG_UNPACKED = 2**20  # at most of each chunk: Pillow's MAX_TEXT_CHUNK
_TEXT_COPIES = 8  # four as bytes, and a str of four bytes a character
_DEFLATE = 1032  # bytes at most that deflate makes of one

# Bytes of a value by the type of a TIFF's tag, and the types that Pillow leaves as bytes.
_TIFF_SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
_TIFF_BYTES = {1, 2, 7}
_TIFF_DIRECTORIES = {34665, 34853, 40965}  # Exif, GPS, Interoperability: Pillow reads them all
_TILE_BYTES = 8  # a pixel: four samples of 16 bits
_NUMBER_BYTES = 200  # that a fraction takes in Python


@dataclass
class Header:
    """What the walk has counted; its methods raise ImageError for what is too much."""

    pieces: int = 0  # segments, chunks, blocks, boxes, tags and frames
    numbers: int = 0  # values of tags that become numbers
    unpacked: int = 0  # bytes that packed metadata may become
    memory: int = 0  # bytes that decoders may take for metadata, beside the file
    coded: int = 0  # pixels of the largest picture in a stream of AV1 or JPEG 2000
    held: bool = False  # whether a JPEG's coefficients are all held until its end
    frame: int = 0  # the marker of a JPEG's first frame, which says how it is coded
    bits: int = 0  # a JPEG's bits a colour

    def count(self, pieces: int = 1, most: int = MAX_PIECES) -> None:
        """Add pieces, of which a file may have ``most``."""
        self.pieces += pieces
        if self.pieces > most:
            raise ImageError("cut into more pieces than any photo; save it again")

    def unpack(self, packed: int, most: int, copies: int) -> None:
        """Add metadata packed by deflate, of which at most ``most`` bytes are unpacked."""
        unpacked = min(most, packed * _DEFLATE)
        self.unpacked += unpacked
        self.memory += unpacked * copies
        if self.unpacked > MAX_UNPACKED:
            raise ImageError("more packed text and profiles than any photo has; save it again")

    def tag(self, numbers: int) -> None:
        """Add the numbers of a tag."""
        self.numbers += numbers
        self.memory += numbers * _NUMBER_BYTES
        if self.numbers > MAX_NUMBERS:
            raise ImageError("more numbers in its tags than any photo has; save it again")

    def exif(self, length: int) -> None:
        """Refuse Exif of more bytes than cameras write; nothing is added."""
        if length > MAX_EXIF:
            raise ImageError("more Exif than any camera writes; save it again")


def read_bytes(path: Path) -> bytes:
    """Read a file's bytes.

    Raises:
        ImageError: when it is missing, unreadable, no regular file, or too large for a photo.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            next(path.iterdir(), None)  # raises if it cannot be listed
            raise ImageError("a folder, not a photo", "unreadable")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could wait for ever
            raise ImageError("not a regular file", "unreadable")
        if (size := status.st_size) > MAX_BYTES:
            raise ImageError(f"{size:,} bytes, larger than any photo that is read", "too_costly")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"cannot be read: {reason}", "unreadable") from error


def walk(data: bytes) -> Header:
    """Read the headers of a whole file.

    Raises:
        ImageError: when it has more pieces or metadata than a photo has.
    """
    header = Header()
    for magic, of_format in _WALKS.items():
        if data.startswith(magic):
            of_format(data, header)
    if data[4:8] == b"ftyp":
        walk_boxes(data, header)
    return header


def _jpeg(data: bytes, header: Header) -> None:
    """Walk as Pillow does up to the first scan, and from there as libjpeg does."""
    place, exif, scans, components = 2, 0, 0, 0
    while True:
        found = _MARKER.search(data, place)
        end = found.start() if found else len(data)
        if any(data.startswith(_FILL, at) for at in range(place, end - len(_FILL) + 1, len(_FILL))):
            raise ImageError("a long run of bytes 255, as erased memory has; save it again")
        if not found or (scans and found[1] == b"\xd9"):
            return
        header.count(most=MAX_SEGMENTS)
        marker, place = found[1][0], found.end()
        if marker == 0xF7:  # of JPEG-LS
            header.frame = header.frame or marker
        if marker in _ALONE:
            continue
        body, length = place + 2, max(2, int.from_bytes(data[place : place + 2], "big"))
        place += length
        if marker == 0xE1 and data.startswith(b"Exif\0\0", body):
            exif += 1
            if exif > MAX_EXIF_SEGMENTS:
                raise ImageError("more Exif than any camera writes; save it again")
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            header.memory += 2 * length
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC) and body + 5 < len(data):
            components = data[body + 5]
            header.frame, header.bits = header.frame or marker, header.bits or data[body]
            header.held |= marker in _PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            header.held |= scans > 1 or data[body : body + 1] < bytes([components])
            if scans > MAX_SCANS:
                raise ImageError(f"more than {MAX_SCANS} scans, as only bombs have; save it again")


def _png(data: bytes, header: Header) -> None:
    place = 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        header.count()
        if name == b"IEND":
            return
        if name == b"eXIf":
            header.exif(length)
        if name in (b"iCCP", b"zTXt", b"iTXt"):
            header.unpack(length, _PNG_UNPACKED, _TEXT_COPIES)
        if name != b"IDAT":
            header.memory += length * (_TEXT_COPIES if name[1:] in (b"EXt", b"TXt") else 2)


def _gif(data: bytes, header: Header) -> None:
    """Walk to the first frame; what follows it is not read."""
    place = 13 + (3 * 2 ** (data[10] % 8 + 1) if len(data) > 10 and data[10] & 128 else 0)
    while place < len(data) and data[place] not in b",;":
        header.count()
        extension = data[place] == 0x21
        place += 2 if extension else 1
        while extension and place < len(data):
            length = data[place]
            place += 1 + length
            header.count()
            header.memory += 3 * length
            extension = length > 0


def _webp(data: bytes, header: Header) -> None:
    place, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    header.memory += len(data)  # Pillow keeps a second one
    while place + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, place)
        place += 8 + length + length % 2
        header.count()
        if name in (b"EXIF", b"ICCP", b"XMP "):
            header.memory += 2 * min(length, len(data))
        if name == b"EXIF":
            header.exif(length)


def _tiff(data: bytes, header: Header) -> None:
    """Walk the first directory, and those of Exif that it points at."""
    order = "<" if data[:2] == b"II" else ">"
    # Pillow looks for the mark of BigTIFF at one place, libtiff at another.
    for big in {data[2:3] == b"+", b"+" in data[2:4]}:
        sizes: dict[int, list[int]] = {}
        todo, seen = list(_number(data, 8 if big else 4, order, 8 if big else 4)), set[int]()
        while todo:
            place = todo.pop()
            if place in seen:
                continue
            seen.add(place)
            for tag, value in _tags(data, place, order, big, header):
                sizes.setdefault(tag, []).append(value)
                if tag in _TIFF_DIRECTORIES:
                    todo.append(value)
        width, length = (min(sizes.get(tag, [0])) for tag in (256, 257))
        # libtiff unpacks whole tiles, however little of them the picture needs.
        across, down = (max(1, *sizes.get(tag, []), 1) for tag in (322, 323))
        tiles = -(-width // across) * across * -(-length // down) * down
        header.memory += _TILE_BYTES * (tiles - width * length)


def _tags(
    data: bytes, place: int, order: str, big: bool, header: Header
) -> Iterator[tuple[int, int]]:
    """Yield the tags of a directory that have integers, and the first one of each."""
    entry, inline = (f"{order}HHQ8x", 8) if big else (f"{order}HHI4x", 4)
    size = struct.calcsize(entry)
    for number in _number(data, place, order, 8 if big else 2):
        place += 8 if big else 2
        for at in range(place, min(place + number * size, len(data) - size + 1), size):
            tag, kind, count = struct.unpack_from(entry, data, at)
            header.count()
            length = count * _TIFF_SIZES.get(kind, 0)
            if not 0 < length <= len(data):
                continue  # Pillow and libtiff pass over it
            if kind in _TIFF_BYTES:
                header.memory += 4 * length
            else:
                header.tag(count)
            where = at + size - inline
            if length > inline:
                where = next(_number(data, where, order, inline))
            for value in _number(data, where, order, _TIFF_SIZES[kind]):
                yield tag, value


def _number(data: bytes, place: int, order: str, size: int) -> Iterator[int]:
    """Yield the number at a place; nothing beyond the end."""
    if place + size <= len(data):
        yield int.from_bytes(data[place : place + size], "little" if order == "<" else "big")


def _plain_ppm(data: bytes, _: Header) -> None:
    if data.count(b"#") > MAX_COMMENTS:
        raise ImageError("more comments than any photo has; save it again")


_WALKS: dict[bytes, Callable[[bytes, Header], None]] = {
    b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png, b"GIF8": _gif, b"RIFF": _webp,
    SIGNATURE: walk_jpeg2000, CODESTREAM: walk_jpeg2000,
    b"II": _tiff, b"MM": _tiff, b"P1": _plain_ppm, b"P2": _plain_ppm, b"P3": _plain_ppm,
}  # fmt: skip
