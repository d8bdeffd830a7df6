"""What a JPEG 2000 announces: tiles, blocks, precincts and layers, in all of its headers.

OpenJPEG makes room for each of them before it has seen a byte of it: blocks of 4 × 4 pixels take a
hundred times the memory of the usual ones, and 65,535 layers a hundred thousand times. Every
encoder writes far fewer. A marker that the standard does not have is refused too, since OpenJPEG
looks for the next one in its own way.

Source:
    ITU-T T.800, annexes A (markers) and I (the JP2 box).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.core.errors import ImageError

if TYPE_CHECKING:  # it imports this module
    from app.data.photo_file import Header

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"
MAX_TILES = 4_096  # each takes 5 kB before it is read
MAX_COMPONENTS = 4
MAX_LAYERS = 100
MIN_BLOCK = 4  # 16 pixels, as a power of two; the usual is 64
MIN_PRECINCT = 5  # 32 pixels of the whole picture; the usual is 128
_SIZ, _COD, _COC, _SOT, _SOD, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
# QCD, QCC, RGN, POC, TLM, PLM, PLT, PPM, PPT, CRG, COM, CAP, CPF.
_OTHERS = {
    0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF55, 0xFF57, 0xFF58, 0xFF60, 0xFF61, 0xFF63, 0xFF64,
    0xFF50, 0xFF59,
}  # fmt: skip


def walk_jpeg2000(data: bytes, header: Header) -> None:
    """Check every header of a JPEG 2000, as a file (JP2) or a bare codestream; count its pixels.

    Raises:
        ImageError: when it announces more pieces than a photo has.
    """
    place = 0 if data.startswith(CODESTREAM) else _codestream(data, header)
    if data[place : place + 4] != CODESTREAM:
        return  # the decoder reports the fault
    wide = 1  # bytes of a component's number
    for marker, body in _segments(data, place + 2, header):
        content = memoryview(data)[body + 2 : body + _number(data, body, 2)]
        if marker == _SIZ and len(content) >= 36:
            x1, y1, left, top, across, down, x0, y0, components = struct.unpack_from(
                ">8IH", content, 2
            )
            header.coded = max(header.coded, (x1 - left) * (y1 - top))
            tiles = -(-(x1 - x0) // max(1, across)) * -(-(y1 - y0) // max(1, down))
            bits = max((content[at] & 127 for at in range(36, len(content), 3)), default=0) + 1
            if components > MAX_COMPONENTS or tiles > MAX_TILES or bits > 16:
                raise _rare()
            wide = 1 if components < 257 else 2
        elif marker == _COD and len(content) >= 10:
            if struct.unpack_from(">H", content, 2)[0] > MAX_LAYERS:
                raise _rare()
            _check_blocks(content[0], content[5:])
        elif marker == _COC and len(content) >= 6 + wide:
            _check_blocks(content[wide], content[wide + 1 :])
        elif marker not in (_SIZ, _COD, _COC, _SOT, *_OTHERS):
            raise _rare()


def _codestream(data: bytes, header: Header) -> int:
    """Return where the codestream of a JP2 file begins; the file's length where there is none."""
    place = 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        body = place + 8
        if size == 1:
            size, body = _number(data, body, 8), body + 8
        header.count()
        if name == b"jp2c":
            return body
        if size < 8:
            break
        header.memory += 2 * min(size, len(data))
        place += size
    return len(data)


def _segments(data: bytes, place: int, header: Header) -> Iterator[tuple[int, int]]:
    """Yield each marker segment of the headers: the marker and where its length stands."""
    while place + 4 <= len(data):
        marker, body = _number(data, place, 2), place + 2
        if marker == _END:
            return
        header.count()
        yield marker, body
        if marker == _SOT:
            length = _number(data, body + 4, 4)
            end = place + length if length else len(data)
            place += 12
            while place + 4 <= len(data) and (inner := _number(data, place, 2)) != _SOD:
                header.count()
                yield inner, place + 2
                place += 2 + max(2, _number(data, place + 2, 2))
            place = max(end, place + 2)
        else:
            place += 2 + max(2, _number(data, body, 2))


def _check_blocks(style: int, content: memoryview) -> None:
    """Refuse small code-blocks and precincts; ``content`` begins with the number of levels."""
    levels, across, down = content[0], content[1] + 2, content[2] + 2
    precincts = content[5 : 6 + levels] if style & 1 else b""
    # From the smallest picture, of which the precincts may be smaller, to the whole one.
    sides = [min(each & 15, each >> 4) + levels - at for at, each in enumerate(precincts)]
    if levels > 32 or min(across, down) < MIN_BLOCK or min(sides, default=15) < MIN_PRECINCT:
        raise _rare()


def _rare() -> ImageError:
    return ImageError("cut into more pieces than any photo; save it again", "too_costly")


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "big")
