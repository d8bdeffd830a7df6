"""What a file is that is no photo, or a photo of a kind that is not read, in plain words.

A table of first bytes comes before every decoder: some take a camera's raw file for a small TIFF.
"""

from __future__ import annotations

import codecs
import re

from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from app.core.errors import ImageError
from app.core.text_file import decode_text
from app.data.photo_file import Header

_RAW = "a camera raw file; export it"
# The first bytes of pictures that are not read, as regular expressions.
_PICTURES: dict[bytes, str] = {
    rb"8BPS": "a Photoshop file",
    rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL picture",
    rb"\0\0[\1\2]\0[^\0]\0|icns": "an icon (ICO, CUR, ICNS)",
    rb"II\*\0.{4}CR|IIU\0|II(RO|RS)|MMOR|\0MRM|FUJIFILMCCD-RAW|FOVb|.{4}ftypcrx ": _RAW,
    rb"%!PS|\xc5\xd0\xd3\xc6": "a drawing (EPS, PostScript)",
    rb"(gimp xcf|DDS |v/1\x01|#\?RADIANCE|II\xbc\x01|BPG\xfb|qoif|P7\n|\xabKTX|FLIF|\x01\xda[\0\1]"
    rb"|\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF|RIFF.{4}(CDR|ACON))": "a picture of a rare kind",
    rb".{128}DICM|SIMPLE  =|\x89HDF|\x93NUMPY|MATLAB 5": "measurements (DICOM, FITS, HDF5, NumPy)",
}
# The same of what is no picture.
_OTHERS: dict[bytes, str] = {
    rb"PK(\x03\x04|\x05\x06|\x07\x08)": "a zip archive or an office document",
    rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh[1-9]|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar": "an archive",
    rb"%PDF": "a PDF document",
    rb"\xd0\xcf\x11\xe0": "an old Office document or a thumbnail database",
    rb"\0\x05\x16[\0\7]": "macOS's notes on a file (AppleDouble), not that file",
    rb".{4}ftyp(M4A|M4B|F4A)|ID3|\xff[\xf2\xf3\xfa\xfb]|fLaC|OggS|RIFF.{4}WAVE|MThd": (
        "an audio file"
    ),
    rb"(.{4}(moov|mdat|wide|pnot)|RIFF.{4}AVI |\x1a\x45\xdf\xa3|FLV\1|\0\0\1[\xb3\xba]|0&\xb2\x75"
    rb"|\x47[^I].{186}\x47.{187}\x47)": "a video",
    rb"MZ.[\0\1]|\x7fELF|L\0\0\0\1\x14\2\0|\xcf\xfa\xed\xfe": "a program or a shortcut to a file",
    rb"SQLite format 3\0|bplist0": "a program's data",
    rb"version https://git-lfs\.": "a Git LFS pointer; the photo was not fetched: git lfs pull",
    rb"/?(\S+/)?annex/objects/": "a git-annex pointer; the photo was not fetched: git annex get",
}
_KINDS = list((_PICTURES | _OTHERS).values())
_SIGNATURE = re.compile(
    b"|".join(b"(?P<k%d>%s)" % each for each in enumerate(_PICTURES | _OTHERS)), re.DOTALL
)
_LOOKED_AT = 1024
# Brands of ISO media files (ISO/IEC 14496-12, 4.3) that are pictures; the others are videos.
_PICTURE_BRANDS = {
    b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
    b"mif1", b"mif2", b"msf1", b"miaf",
}  # fmt: skip
# Frames that no usual program shows (ITU-T T.81, table B.1; T.87 for the last).
_RARE_FRAMES = {
    0xC3: "lossless", 0xC5: "in stages", 0xC6: "in stages", 0xC7: "lossless",
    0xCB: "lossless", 0xCD: "in stages", 0xCE: "in stages", 0xCF: "lossless", 0xF7: "JPEG-LS",
}  # fmt: skip
_DNG_VERSION, _SUB_DIRECTORIES, _SUBFILE = 50706, 330, 254
_SENSOR = {32803, 34892}  # photometric interpretations: a colour filter's samples, linear raw
# What a text in angle brackets has near its beginning, in lower case.
_MARKUP = {
    "<svg": "a drawing (SVG)", "<!doctype svg": "a drawing (SVG)",
    "<html": "a web page (HTML), as downloads that fail leave it",
    "<!doctype html": "a web page (HTML), as downloads that fail leave it", "<": "a text (XML)",
}  # fmt: skip
_CONTROLS = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd\ud800-\udfff]")


def refuse_other_kinds(data: bytes) -> None:
    """Raise ImageError when the first bytes show that a file's kind is not read."""
    if data.startswith(b"\xff\xd8"):
        return
    if found := _SIGNATURE.match(data[:_LOOKED_AT]):
        number = int(str(found.lastgroup)[1:])
        raise (_not_read if number < len(_PICTURES) else _not_a_photo)(_KINDS[number])
    if data[4:8] == b"ftyp":
        size = min(int.from_bytes(data[:4], "big"), _LOOKED_AT)
        if not {data[at : at + 4] for at in range(8, max(size, 12), 4)} & _PICTURE_BRANDS:
            raise _not_a_photo("a video")


def refuse_rare_jpeg(header: Header) -> None:
    """Raise ImageError when the frame of a JPEG is of a kind that is not read."""
    if header.frame in _RARE_FRAMES:
        raise _not_read(f"a JPEG of a rare kind ({_RARE_FRAMES[header.frame]})")
    if header.bits == 12:
        raise _not_read("a JPEG of 12 bits per colour")


def refuse_raw(image: TiffImageFile) -> None:
    """Raise ImageError when an opened TIFF is a camera's raw file: DNG, NEF, ARW, ...

    What could be read of it is a preview of a few thousand pixels.
    """
    tags = image.tag_v2
    preview = tags.get(_SUBFILE, 0) == 1 and _SUB_DIRECTORIES in tags
    if preview or _DNG_VERSION in tags or tags.get(PHOTOMETRIC_INTERPRETATION) in _SENSOR:
        raise _not_read(_RAW)


def unknown_kind(data: bytes) -> ImageError:
    """Return the error for a file that no decoder knows."""
    if data.startswith(b"\xff\xd8"):
        if b"\xff\xda" in data:  # a scan
            return ImageError("damaged: the header of a JPEG that makes no sense")
        return _not_a_photo("only the beginning of a JPEG")
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _not_read("a TIFF of a rare kind, such as camera raw")
    if not data.strip(b"\0"):
        return _not_a_photo(f"{len(data)} zero bytes")
    text = decode_text(data[:_LOOKED_AT])
    if _CONTROLS.search(text) or not (_is_unicode(data) or _mostly_ascii(text)):
        return _not_a_photo("unknown bytes")
    kinds = _MARKUP if text.lstrip().startswith("<") else {}
    return _not_a_photo(next((kinds[mark] for mark in kinds if mark in text.lower()), "text"))


def _is_unicode(data: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8 or has a mark of UTF-16."""
    try:
        data[:_LOOKED_AT].decode("utf-8")
    except UnicodeDecodeError as error:  # perhaps of a letter that is cut at the end
        return (
            data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            or error.end > _LOOKED_AT - 4
        )
    return True


def _mostly_ascii(text: str) -> bool:
    return sum(map(str.isascii, text)) > len(text) / 2


def _not_a_photo(kind: str) -> ImageError:
    return ImageError(f"not a photo: {kind}", "not_a_photo")


def _not_read(kind: str) -> ImageError:
    return ImageError(f"not read: {kind}; save it as JPEG or PNG, 8 bits", "not_read")
