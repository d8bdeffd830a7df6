"""No file costs more than 512 MiB and two seconds, whatever it is."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import encoded, picture, shared_folder
from PIL import Image

from app.core.errors import ImageError
from app.data.decode import decode
from app.data.decode_limits import BYTES_A_PIXEL, MAX_SCANS, MAX_SLOW_PIXELS

ROOT = Path(__file__).parents[2]
SECONDS, MIB = 2.0, 512


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


PNG = encoded(picture(), "PNG")
JPEG = encoded(picture(), "JPEG")
PROGRESSIVE = encoded(picture(), "JPEG", progressive=True)


def within_png(content: bytes) -> bytes:
    return PNG[:33] + content + PNG[33:]


def more_scans(data: bytes, times: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


def run_length_bmp(width: int, height: int, body: bytes) -> bytes:
    data = encoded(Image.new("P", (1, 1)), "BMP")
    start = struct.unpack("<I", data[10:14])[0]
    head = bytearray(data[:start])
    head[18:26], head[30:34] = struct.pack("<ii", width, height), struct.pack("<I", 1)
    return bytes(head) + body


# ---- What is refused before it costs anything ----

ENDLESS: dict[str, Callable[[], bytes]] = {
    "2,000,000 empty chunks": lambda: within_png(chunk(b"prVt", b"") * 2_000_000),
    "2,000,000 empty pieces of pixels": lambda: within_png(chunk(b"IDAT", b"") * 2_000_000),
    "4,000,000 empty segments": lambda: JPEG[:2] + b"\xff\xef\0\2" * 4_000_000 + JPEG[2:],
    "30,000,000 fill bytes": lambda: JPEG[:2] + b"\xff" * 30_000_000 + JPEG[2:],
}
SLOW: dict[str, Callable[[], bytes]] = {
    "plain PPM": lambda: b"P3 3000 3000 255 " + b"1 " * 27_000_000,
    "PPM of 200 values": lambda: b"P6 3000 3000 200\n" + bytes(27_000_000),
    "BMP in runs of one": lambda: run_length_bmp(3000, 3000, b"\1\2" * 9_000_000),
    "BMP of ends of lines": lambda: run_length_bmp(60_000, 1000, b"\1\2\0\0" * 1000),
}


@pytest.mark.parametrize("content", ENDLESS.values(), ids=ENDLESS)
def test_endless_pieces_are_refused(content: Callable[[], bytes]) -> None:
    with pytest.raises(ImageError, match="more pieces than any photo"):
        decode(content())


@pytest.mark.parametrize("content", SLOW.values(), ids=SLOW)
def test_large_pictures_for_slow_decoders_are_refused(content: Callable[[], bytes]) -> None:
    with pytest.raises(ImageError, match="1 million that are read of such a file"):
        decode(content())


def test_small_pictures_for_slow_decoders_are_read() -> None:
    assert decode(b"P3 2 1 200 # a dog\n200 0 0 0 200 0")[0].tolist() == [
        [[255, 0, 0], [0, 255, 0]]
    ]
    assert decode(run_length_bmp(300, 1, b"\xff\0\x2d\0"))[0].shape == (1, 300, 3)
    assert MAX_SLOW_PIXELS > 640 * 480


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert decode(more_scans(PROGRESSIVE, MAX_SCANS - scans))[1] == "JPEG"
    with pytest.raises(ImageError, match="scans, as only bombs have"):
        decode(more_scans(PROGRESSIVE, MAX_SCANS - scans + 1))


def test_what_only_looks_like_a_scan_is_none() -> None:
    """In a comment, and in the film that some phones put behind a photo."""
    comment = b"\xff\xfe" + struct.pack(">H", 202) + b"\xff\xda" * 100
    film = b"\xff\xda" * 1000
    data = JPEG[:2] + comment + JPEG[2:] + film
    assert (decode(data)[0] == decode(JPEG)[0]).all()


def header(kind: str) -> bytes:
    """Return a file of one colour with more pixels than are read of its format."""
    most = MIB * 1024**2 // BYTES_A_PIXEL[kind]
    side = int(most**0.5) + 10
    return encoded(Image.new("RGB", (side, side)), kind, **FAST.get(kind, {}))


FAST = {
    "AVIF": {"speed": 10},
    "WEBP": {"lossless": True, "method": 0},
    "TIFF": {"compression": "tiff_deflate"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BYTES_A_PIXEL)
def test_each_format_has_its_limit(kind: str) -> None:
    with pytest.raises(ImageError, match=r"more than the (31|32|33|34|44|45|53|54) million"):
        decode(header(kind))


def test_strips_change_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    palette = picture().quantize(8)
    deep = Image.fromarray(np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40)
    files = [
        encoded(palette, "PNG", transparency=b"\0\x80"),
        encoded(deep, "PNG"),
        encoded(picture().convert("LA"), "PNG"),
        encoded(picture().convert("CMYK"), "JPEG"),
    ]
    whole = [decode(data)[0] for data in files]
    for pixels in (1, 48 * 5, 48 * 31):
        monkeypatch.setattr("app.data.decode.STRIP", pixels)
        assert all((decode(data)[0] == w).all() for data, w in zip(files, whole, strict=True))


# ---- What is decoded, and what it costs ----

# For each file that is named on standard input, in a child of its own: the end it came to, seconds
# of the processor and the growth of the peak memory in MiB.
MEASURE = """
import os, resource, sys, time
from pathlib import Path
from app.core.errors import ImageError
from app.data.decode import read_image
import pillow_heif
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
for name in sys.stdin.read().split("\\0"):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before, start = status("VmRSS"), time.process_time()
        try:
            read_image(Path(name))
            end = "decoded"
        except ImageError:
            end = "refused"
        seconds = time.process_time() - start
        print(end, f"{seconds:.2f}", (status("VmHWM") - before) // 1024, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("crashed 0 0")
"""


def costs(paths: list[Path]) -> dict[str, tuple[str, float, float]]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input="\0".join(map(str, paths)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + 10 * len(paths),
    )
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    return {
        path.name: (end, float(seconds), float(mib))
        for path, (end, seconds, mib) in zip(paths, lines, strict=True)
    }


def assert_cheap(paths: list[Path]) -> dict[str, tuple[str, float, float]]:
    measured = costs(paths)
    for name, (end, seconds, mib) in measured.items():
        print(f"{name:45}{end:10}{seconds:6.2f} s{mib:6.0f} MiB")
    dear = {name: cost for name, cost in measured.items() if cost[1] > SECONDS or cost[2] > MIB}
    assert dear == {}
    assert "crashed" not in {end for end, _, _ in measured.values()}
    return measured


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
FILL_ENDS = {"zero": b"\0", "restart": b"\xd0", "end of file": b"", "end of image": b"\xd9"}


@only_linux
@pytest.mark.parametrize("length", [60_000, 100_000, 20_000_000])
def test_a_run_of_fill_bytes_costs_no_more(tmp_path: Path, length: int) -> None:
    """A search that went back over the run took 45 s for 100 kB, and heeded no signal meanwhile.

    Recovered memory cards have such files: half a photo, and then erased flash.
    """
    header = JPEG.index(b"\xff\xda")
    start = header + 2 + int.from_bytes(JPEG[header + 2 : header + 4], "big")
    for name, ending in FILL_ENDS.items():
        rest = JPEG[start:] if ending else b""
        (tmp_path / name).write_bytes(JPEG[:start] + b"\xff" * length + ending + rest)
    assert_cheap(sorted(tmp_path.iterdir()))


@only_linux
@pytest.mark.weights
def test_no_broken_file_costs_more() -> None:
    paths = sorted((shared_folder() / "data" / "broken").iterdir())
    assert len(paths) > 60
    assert_cheap(paths)


def largest(kind: str, **options: Any) -> bytes:
    """Return a file of one colour, as large as is read, and hard on the decoder in memory."""
    mode, each = options.pop("mode", "RGB"), options.pop("each", BYTES_A_PIXEL.get(kind, 8.4))
    side = int((MIB * 1024**2 / each) ** 0.5) - 40
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.new(mode, (side, side), 1)
    image.paste(Image.fromarray(noise).convert(mode), (0, 0))
    return encoded(image, kind, **options)


TURNED = Image.Exif()
TURNED[0x0112] = 6
LARGEST: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: largest("JPEG"),
    "jpeg turned": lambda: largest("JPEG", exif=TURNED),
    "jpeg progressive cmyk": lambda: largest(
        "JPEG", mode="CMYK", progressive=True, subsampling=0, each=12.2
    ),
    "jpeg of 32 scans": lambda: more_scans(largest("JPEG", progressive=True, each=12.2), 22),
    "png": lambda: largest("PNG", compress_level=1),
    "png transparent": lambda: largest("PNG", mode="RGBA", compress_level=1, exif=TURNED),
    "png 16 bits": lambda: largest("PNG", mode="I;16", compress_level=1),
    "png palette": lambda: largest("PNG", mode="P", transparency=b"\0\x80", compress_level=1),
    "gif": lambda: largest("GIF", mode="P", transparency=1),
    "bmp": lambda: largest("BMP", each=11),
    "tiff": lambda: largest("TIFF", compression="tiff_lzw", exif=TURNED),
    "tiff 32 bits": lambda: largest("TIFF", mode="I", compression="tiff_deflate"),
    "webp": lambda: largest("WEBP", method=0),
    "webp lossless": lambda: largest("WEBP", mode="RGBA", lossless=True, method=0),
    "avif": lambda: largest("AVIF", speed=10),
    "heic": lambda: largest("HEIF", quality=50),
}


@only_linux
@pytest.mark.slow
def test_the_largest_that_are_read_cost_no_more(tmp_path: Path) -> None:
    for name, content in LARGEST.items():
        (tmp_path / name).write_bytes(content())
    measured = assert_cheap(sorted(tmp_path.iterdir()))
    assert {end for end, _, _ in measured.values()} == {"decoded"}


@only_linux
@pytest.mark.slow
def test_bombs_cost_no_more(tmp_path: Path) -> None:
    for name, content in (ENDLESS | SLOW).items():
        (tmp_path / name).write_bytes(content())
    (tmp_path / "zeros").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(150_000_000))
    (tmp_path / "a film").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(150_000_000))
    (tmp_path / "heic of zeros").write_bytes(b"\0\0\0\x18ftypheic" + bytes(150_000_000))
    (tmp_path / "comment.gif").write_bytes(
        encoded(Image.new("L", (9, 9)), "GIF")[:13] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 400_000
    )
    measured = assert_cheap(sorted(tmp_path.iterdir()))
    assert {end for end, _, _ in measured.values()} == {"refused"}


# ---- Nothing is said ----


def test_native_libraries_and_loggers_say_nothing(tmp_path: Path) -> None:
    """Libtiff prints on the file descriptor itself; Pillow's logger where nobody has set one up."""
    tiff = encoded(picture(), "TIFF", compression="tiff_deflate")
    tag = struct.pack("<HH", 277, 3)  # samples per pixel
    place = tiff.index(tag) + 8
    files = {
        "data.tif": re.sub(b"\x78\x9c.{8}", b"\x78\x9c" + bytes(8), tiff, count=1, flags=re.DOTALL),
        "samples.tif": tiff[:place] + b"\x03\x04" + tiff[place + 2 :],
        "fax.tif": encoded(picture().convert("1"), "TIFF", compression="group4")[:-40],
        "cut.jpg": JPEG[:-200],
        "cut.png": PNG[:-100],
        "cut.webp": encoded(picture(), "WEBP")[:-50],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys; from pathlib import Path; from app.data.decode import ImageError, read_image\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_image(Path(name))\n"
        "    except ImageError: print(Path(name).name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, sorted(tmp_path.iterdir()))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.stderr == ""
    assert {"data.tif", "samples.tif"} <= set(done.stdout.split())
