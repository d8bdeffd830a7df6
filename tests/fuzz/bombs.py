"""Valid files of every format with as many small pieces as one wants, or of any shape."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from .seeds import encoded

Bomb = Callable[[int], bytes]

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
SMALL = Image.fromarray(COLOURS).resize((24, 16), Image.Resampling.BICUBIC)


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    """Return a chunk with its length and its right CRC-32."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a black PNG of any shape, packed without ever holding its pixels."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer, row = zlib.compressobj(1), bytes(1 + (width * bits + 7) // 8)
    rows = max(1, 1_000_000 // len(row))
    body = [packer.compress(row * rows) for _ in range(height // rows)]
    body += [packer.compress(row * (height % rows)), packer.flush()]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = png_chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    chunks = png_chunk(b"IHDR", head) + palette + png_chunk(b"IDAT", b"".join(body))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND")


def in_png(content: bytes, *, after: bool = False) -> bytes:
    """Put chunks into a small PNG, before its pixels or after them."""
    data = encoded(SMALL, "PNG")
    place = len(data) - 12 if after else 33
    return data[:place] + content + data[place:]


def in_jpeg(content: bytes) -> bytes:
    """Put segments into a small JPEG, before all others."""
    data = encoded(SMALL, "JPEG")
    return data[:2] + content + data[2:]


def segment(marker: int, content: bytes = b"") -> bytes:
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def in_gif(content: bytes) -> bytes:
    """Put blocks into a small GIF, before its first frame."""
    data = encoded(SMALL.quantize(4), "GIF")
    place = 13 + 3 * 2 ** (data[10] % 8 + 1)
    return data[:place] + content + data[place:]


def riff(content: bytes) -> bytes:
    """Wrap chunks as a WebP file."""
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


def riff_chunk(name: bytes, content: bytes = b"") -> bytes:
    """Return a RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def in_webp(content: bytes, *, flags: int = 0) -> bytes:
    """Put chunks into a small WebP with an extended header."""
    picture = encoded(SMALL, "WEBP")[12:]
    head = struct.pack("<I", flags) + (23).to_bytes(3, "little") + (15).to_bytes(3, "little")
    return riff(riff_chunk(b"VP8X", head) + picture + content)


def animated_webp(frames: int) -> bytes:
    """Return a WebP of so many small frames."""
    picture = encoded(Image.new("RGB", (1, 1)), "WEBP")[12:]
    frame = riff_chunk(b"ANMF", bytes(12) + b"\x0a\0\0\0" + picture)
    head = riff_chunk(b"VP8X", struct.pack("<I", 2) + bytes(6))
    return riff(head + riff_chunk(b"ANIM", bytes(6)) + frame * frames)


Entry = tuple[int, int, int, bytes]  # tag, type, count, and all its values


def tiff(
    entries: list[Entry],
    *,
    order: str = "<",
    big: bool = False,
    width: int = 64,
    height: int = 64,
    compression: int = 1,
    pixels: bytes | None = None,
) -> bytes:
    """Return a grey TIFF; entries of the same tag replace the usual ones."""
    kind, size = ("Q", 8) if big else ("I", 4)
    start = 16 if big else 8
    pixels = bytes(width * height) if pixels is None else pixels
    usual = {
        256: struct.pack(order + "I", width),
        257: struct.pack(order + "I", height),
        258: struct.pack(order + "I", 8),
        259: struct.pack(order + "I", compression),
        262: struct.pack(order + "I", 1),
        273: struct.pack(order + "I", start),
        277: struct.pack(order + "I", 1),
        278: struct.pack(order + "I", height),
        279: struct.pack(order + "I", len(pixels)),
    }
    own = {entry[0] for entry in entries}
    usual_entries = [(tag, 4, 1, value) for tag, value in usual.items() if tag not in own]
    if {322, 323, 324} & own:
        usual_entries = [entry for entry in usual_entries if entry[0] not in (273, 278, 279)]
    everything = sorted(usual_entries + entries, key=lambda entry: entry[0])
    mark = b"II" if order == "<" else b"MM"
    directory = start + len(pixels) + len(pixels) % 2
    head = struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), directory
    )
    rows = [struct.pack(order + ("Q" if big else "H"), len(everything))]
    far, place = [], directory + (8 + 20 * len(everything) + 8 if big else 6 + 12 * len(everything))
    for tag, type_, count, value in everything:
        if len(value) > size:
            far.append(value)
            value, place = struct.pack(order + kind, place), place + len(value)
        rows.append(struct.pack(f"{order}HH{kind}", tag, type_, count) + value.ljust(size, b"\0"))
    rows.append(bytes(size))
    return mark + head + pixels + bytes(len(pixels) % 2) + b"".join(rows + far)


def box(name: bytes, content: bytes = b"") -> bytes:
    """Return a box of an ISO base media file."""
    return struct.pack(">I", len(content) + 8) + name + content


def in_meta(data: bytes, content: bytes) -> bytes:
    """Put boxes at the end of the ``meta`` box of a HEIF or AVIF, and move what is behind it."""
    place = data.index(b"meta") - 4
    size = int.from_bytes(data[place : place + 4], "big")
    moved = bytearray(data[place : place + size])
    locations = moved.index(b"iloc")
    grown = struct.pack(">I", size + len(content))
    # One item or two with one extent each, four bytes an offset: as Pillow and libheif write them.
    for item in range(locations, len(moved) - 4):
        offset = int.from_bytes(moved[item : item + 4], "big")
        if place + size <= offset < len(data) and item < locations + 60:
            moved[item : item + 4] = (offset + len(content)).to_bytes(4, "big")
    return data[:place] + grown + bytes(moved[4:]) + content + data[place + size :]


def items(number: int) -> bytes:
    """Return an ``iinf`` box that lists so many items."""
    entry = box(b"infe", b"\2\0\0\0" + b"\0\1\0\0" + b"av01" + b"\0")
    entries = b"".join(
        entry[:12] + struct.pack(">H", item % 65_536) + entry[14:] for item in range(number)
    )
    return box(b"iinf", b"\1\0\0\0" + struct.pack(">I", number) + entries)


def bmp_runs(width: int, height: int, body: bytes) -> bytes:
    """Return a BMP in run-length encoding."""
    data = encoded(Image.new("P", (1, 1)), "BMP")
    start = struct.unpack("<I", data[10:14])[0]
    head = bytearray(data[:start])
    head[18:26], head[30:34] = struct.pack("<ii", width, height), struct.pack("<I", 1)
    return bytes(head) + body


def _tags(number: int, order: str = "<") -> list[Entry]:
    return [(30_000 + tag % 35_000, 3, 1, b"\1\0") for tag in range(min(number, 65_000))]


def _exif(number: int) -> bytes:
    """Return an Exif segment whose resolution is so many fractions."""
    count = min(number, 8_000)
    entry = struct.pack("<HHII", 0x011A, 5, count, 26)
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + bytes(4) + struct.pack("<II", 72, 1) * count


BOMBS: dict[str, Bomb] = {
    "jpeg exif segments": lambda n: in_jpeg(segment(0xE1, b"Exif\0\0" + b"A" * 50) * n),
    "jpeg exif segments, large": lambda n: in_jpeg(
        segment(0xE1, b"Exif\0\0" + b"A" * 65_000) * (n // 1000)
    ),
    "jpeg comments": lambda n: in_jpeg(segment(0xFE, b"a dog") * n),
    "jpeg empty segments": lambda n: in_jpeg(segment(0xEF) * n),
    "jpeg profiles": lambda n: in_jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(20)) * n),
    "jpeg xmp": lambda n: in_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") * n),
    "jpeg tables": lambda n: in_jpeg(segment(0xDB, b"\0" + b"\1" * 64) * n),
    "jpeg photoshop": lambda n: in_jpeg(
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\0\0\0\0\0\0\0" * 5_000) * (n // 5_000)
    ),
    "jpeg exif fractions": lambda n: in_jpeg(segment(0xE1, _exif(n))),
    "jpeg behind starts": lambda n: in_jpeg(
        b"\xff\xd8\xff\xff" + segment(0xE1, b"Exif\0\0" + b"A" * 50) * n
    ),
    "jpeg restarts": lambda n: in_jpeg(b"\xff\xd0" * n),
    "jpeg junk": lambda n: in_jpeg(b"\1" * n),
    "jpeg escapes": lambda n: in_jpeg(b"\xff\0" * n),
    "jpeg frames": lambda n: in_jpeg(segment(0xC0, b"\x08\0\x10\0\x18\1\1\x11\0") * n),
    "png chunks": lambda n: in_png(png_chunk(b"prVt") * n),
    "png chunks after": lambda n: in_png(png_chunk(b"prVt") * n, after=True),
    "png pixels": lambda n: in_png(png_chunk(b"IDAT") * n),
    "png text": lambda n: in_png(
        b"".join(png_chunk(b"tEXt", b"%d\0dog" % number) for number in range(n))
    ),
    "png packed text": lambda n: in_png(
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * (n // 1_000)
    ),
    "png wide text": lambda n: in_png(
        png_chunk(b"iTXt", b"a\0\0\0\0\0" + "\U0001f415".encode() + b"a" * (n * 20))
    ),
    "png wide keywords": lambda n: in_png(
        png_chunk(b"iTXt", b"a\0\0\0\0" + "\U0001f415".encode() + b"a" * (n * 20) + b"\0")
    ),
    "png profiles": lambda n: in_png(
        png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000))) * (n // 100)
    ),
    "png frames": lambda n: in_png(
        png_chunk(b"acTL", struct.pack(">II", n, 0))
        + b"".join(
            png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 24, 16, 0, 0, 0, 0, 0, 0))
            for number in range(n)
        )
    ),
    "gif extensions": lambda n: in_gif(b"\x21\xf9\x04\0\0\0\0\0" * n),
    "gif comment": lambda n: in_gif(b"\x21\xfe" + b"\1x" * n + b"\0"),
    "gif comments": lambda n: in_gif(b"\x21\xfe\1x\0" * n),
    "webp chunks": lambda n: in_webp(riff_chunk(b"dogs") * n),
    "webp exif": lambda n: in_webp(riff_chunk(b"EXIF", b"II*\0") * n, flags=8),
    "webp frames": animated_webp,
    "tiff strips": lambda n: tiff(
        [(273, 4, n, struct.pack("<I", 8) * n), (278, 4, 1, struct.pack("<I", 1))]
    ),
    "tiff strips, big endian": lambda n: tiff(
        [(273, 4, n, struct.pack(">I", 8) * n), (278, 4, 1, struct.pack(">I", 1))], order=">"
    ),
    "bigtiff strips": lambda n: tiff(
        [(273, 16, n, struct.pack("<Q", 16) * n), (278, 4, 1, struct.pack("<I", 1))], big=True
    ),
    "tiff packed strips": lambda n: tiff(
        [(273, 4, n, struct.pack("<I", 8) * n), (278, 4, 1, struct.pack("<I", 1))], compression=8
    ),
    "tiff fractions": lambda n: tiff([(282, 5, n, struct.pack("<II", 72, 1) * n)]),
    "tiff signed bytes": lambda n: tiff([(65_000, 6, n, bytes(n))]),
    "tiff tags": lambda n: tiff(_tags(n)),
    "tiff exif": lambda n: tiff(
        [
            (34665, 4, 1, struct.pack("<I", 8)),  # the directory is where the pixels are
        ],
        pixels=(
            struct.pack("<HHHII", 1, 33434, 5, n, 64) + bytes(42) + struct.pack("<II", 1, 9) * n
        ),
        width=9,
        height=2,
    ),
    "tiff tiles": lambda n: tiff(
        [
            (322, 4, 1, struct.pack("<I", 16)),
            (323, 4, 1, struct.pack("<I", 16)),
            (324, 4, n, struct.pack("<I", 8) * n),
            (325, 4, n, struct.pack("<I", 256) * n),
        ]
    ),
    "tiff large tile": lambda n: tiff(
        [
            (322, 4, 1, struct.pack("<I", n // 16 * 16)),
            (323, 4, 1, struct.pack("<I", 160)),
            (324, 4, 1, struct.pack("<I", 8)),
            (325, 4, 1, struct.pack("<I", 300_000)),
        ],
        compression=8,
        pixels=zlib.compress(bytes(n // 16 * 16 * 160), 1),
    ),
    "bmp runs": lambda n: bmp_runs(24, 16, b"\xff\1" * n),
    "bmp ends of lines": lambda n: bmp_runs(24, 16, b"\0\2\0\0" * n),
    "ppm comments": lambda n: b"P6 " + b"#a\n" * n + b"24 16 255\n" + bytes(24 * 16 * 3),
    "ppm plain comments": lambda n: b"P3 24 16 255\n" + b"#\n" * n + b"1 " * 24 * 16 * 3,
    "ppm spaces": lambda n: b"P3 24 16 255\n" + b" " * n * 20 + b"1 " * 24 * 16 * 3,
    "avif items": lambda n: in_meta(encoded(SMALL, "AVIF"), items(n)),
    "avif boxes": lambda n: in_meta(encoded(SMALL, "AVIF"), box(b"dogs") * n),
    "avif boxes after": lambda n: encoded(SMALL, "AVIF") + box(b"dogs") * n,
    "heic items": lambda n: in_meta(encoded(SMALL, "HEIF"), items(n)),
    "heic boxes": lambda n: in_meta(encoded(SMALL, "HEIF"), box(b"dogs") * n),
    "heic boxes after": lambda n: encoded(SMALL, "HEIF") + box(b"dogs") * n,
}
