"""No file costs more than 512 MiB and two seconds to decode and resize, whatever it is."""

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
from profiles import cmyk_profile, rgb_profile

from app.core.errors import ImageError
from app.data.decode import BYTES_A_PIXEL, MAX_SIDE, MAX_SLOW_PIXELS, decode
from app.data.photo_file import MAX_EXIF, MAX_NUMBERS, MAX_PIECES, MAX_SCANS, walk
from tests.fuzz.bombs import BOMBS, bmp_runs, in_jpeg, in_png, png, png_chunk, segment, tiff

ROOT = Path(__file__).parents[2]
SECONDS, MIB = 2.0, 512


PNG = encoded(picture(), "PNG")
JPEG = encoded(picture(), "JPEG")
PROGRESSIVE = encoded(picture(), "JPEG", progressive=True)


def more_scans(data: bytes, times: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


# ---- What is refused before it costs anything ----

SLOW: dict[str, Callable[[], bytes]] = {
    "plain PPM": lambda: b"P3 3000 3000 255 " + b"1 " * 27_000_000,
    "PPM of 200 values": lambda: b"P6 3000 3000 200\n" + bytes(27_000_000),
    "BMP in runs of one": lambda: bmp_runs(3000, 3000, b"\1\2" * 9_000_000),
    "BMP of ends of lines": lambda: bmp_runs(60_000, 1000, b"\1\2\0\0" * 1000),
}
# How many pieces of each bomb are more than any photo has; else the most that are read.
ENOUGH = {"png profiles": 10_000, "png packed text": 70_000, "tiff large tile": 600_000}
# As many as one likes are read, in linear time, or they are far too many only by the million.
READ = {
    "jpeg photoshop", "jpeg exif fractions", "jpeg restarts", "jpeg junk", "jpeg escapes",
    "png wide text", "png wide keywords", "bmp runs", "bmp ends of lines", "ppm comments",
    "ppm spaces",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in READ])
def test_too_many_pieces_are_refused_before_a_decoder_sees_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a decoder saw it")

    data = BOMBS[name](ENOUGH.get(name, 140_000))
    monkeypatch.setattr("app.data.decode.Image.open", opened)
    with pytest.raises(ImageError, match=r"than any (photo|camera).*; save it again"):
        decode(data)


@pytest.mark.parametrize("name", [name for name in BOMBS if "behind" not in name])
def test_a_few_pieces_are_no_reason_to_refuse(name: str) -> None:
    try:
        decode(BOMBS[name](3))
    except ImageError as error:
        assert str(error).startswith(("damaged", "not a photo"))


@pytest.mark.parametrize("content", SLOW.values(), ids=SLOW)
def test_large_pictures_for_slow_decoders_are_refused(content: Callable[[], bytes]) -> None:
    with pytest.raises(ImageError, match="1,000,000 that are read of such a file"):
        decode(content())


def test_small_pictures_for_slow_decoders_are_read() -> None:
    assert decode(b"P3 2 1 200 # a dog\n200 0 0 0 200 0")[0].tolist() == [
        [[255, 0, 0], [0, 255, 0]]
    ]
    assert decode(bmp_runs(300, 1, b"\xff\0\x2d\0"))[0].shape == (1, 300, 3)
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
    with pytest.raises(ImageError, match=r"more than the (3[1-4]|4[45]|5[34]),\d{3},\d{3} that"):
        decode(header(kind))


def test_a_directory_that_points_at_itself_ends() -> None:
    """Exif of a TIFF, here its own first directory, in each byte order and as BigTIFF."""
    for order, big in (("<", False), (">", False), ("<", True), (">", True)):
        start = 16 if big else 8
        own = start + 64 * 64
        data = tiff([(34665, 4, 1, struct.pack(order + "I", own))], order=order, big=big)
        assert walk(data).pieces == 10


def test_tags_are_counted_once_for_each_directory() -> None:
    fractions = struct.pack("<II", 72, 1) * (MAX_NUMBERS - 9)
    assert walk(tiff([(282, 5, MAX_NUMBERS - 9, fractions)])).numbers == MAX_NUMBERS
    with pytest.raises(ImageError, match="more numbers in its tags"):
        walk(tiff([(282, 5, MAX_NUMBERS - 8, fractions + bytes(8))]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "HEIF"])
def test_what_stands_behind_a_photo_is_not_counted(kind: str) -> None:
    data = encoded(picture(), kind)
    for behind in (bytes(1_000_000), JPEG * 2_000):
        assert (decode(data + behind)[0] == decode(data)[0]).all()


def test_usual_headers_are_far_from_the_limits() -> None:
    """A PNG in pieces of 8 kB, a JPEG with a profile of 4 MB, a TIFF in strips of one row."""
    profile = [b"ICC_PROFILE\0" + bytes([n, 64]) + bytes(65_000) for n in range(1, 65)]
    assert walk(in_jpeg(b"".join(segment(0xE2, part) for part in profile))).pieces < 100
    sixteen_megabytes = in_png(png_chunk(b"IDAT", bytes(8192)) * 2_000)
    assert walk(sixteen_megabytes).pieces < MAX_PIECES / 10
    rows = struct.pack("<I", 8) * 20_000
    sides = {"width": 20_000, "height": 20_000, "pixels": b""}
    in_strips = tiff([(273, 4, 20_000, rows), (279, 4, 20_000, rows)], **sides)
    assert walk(in_strips).numbers < MAX_NUMBERS


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_that_no_camera_writes_is_refused(kind: str) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    assert decode(encoded(picture(), kind, exif=exif + bytes(60_000)))[1] == kind
    if kind != "TIFF":  # its Exif are directories, and their numbers are counted
        with pytest.raises(ImageError, match="more Exif than any camera writes"):
            decode(encoded(picture(), kind, exif=exif + bytes(MAX_EXIF)))


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": "4:4:4"}, {"quality": 100}, {"save_all": True}],
    ids=["usual", "colours whole", "lossless", "animated"],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_stream_within_an_avif_is_measured(mode: str, options: dict[str, Any]) -> None:
    for size in ((1, 1), (24, 16), (301, 200)):
        image = picture(size=size).convert(mode)
        more = {"append_images": [image.rotate(180)]} if "save_all" in options else {}
        assert walk(encoded(image, "AVIF", **options, **more)).coded == size[0] * size[1]


def test_an_avif_that_announces_less_than_its_stream_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The decoder makes room for what the stream says: 968 MiB for what looked like 64 × 64."""
    data = bytearray(encoded(picture(size=(300, 200)), "AVIF"))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", 64, 64)
    decode(bytes(data))
    monkeypatch.setattr("app.data.decode.MAX_PIXELS", 64 * 64)
    with pytest.raises(ImageError, match=r"announces 60,000 pixels"):
        decode(bytes(data))


def test_strips_change_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    palette = picture().quantize(8)
    deep = Image.fromarray(np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40)
    files = [
        encoded(palette, "PNG", transparency=b"\0\x80"),
        encoded(deep, "PNG"),
        encoded(picture().convert("LA"), "PNG"),
        encoded(picture().convert("CMYK"), "JPEG"),
    ]
    exif = Image.Exif()
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        files.append(encoded(picture(), "PNG", exif=exif))
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
from app.data.decode import load_image
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
            load_image(Path(name), 224)
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
def test_a_run_of_fill_bytes_costs_no_more(tmp_path: Path) -> None:
    """A search that went back over the run took 45 s for 100 kB, and heeded no signal meanwhile.

    Recovered memory cards have such files: half a photo, and then erased flash.
    """
    header = JPEG.index(b"\xff\xda")
    start = header + 2 + int.from_bytes(JPEG[header + 2 : header + 4], "big")
    cases = [(length, name) for length in (30_000, 100_000) for name in FILL_ENDS]
    for length, name in [*cases, (20_000_000, "zero"), (20_000_000, "end of file")]:
        rest = FILL_ENDS[name] + JPEG[start:] if FILL_ENDS[name] else b""
        (tmp_path / f"{length} {name}").write_bytes(JPEG[:start] + b"\xff" * length + rest)
    assert_cheap(sorted(tmp_path.iterdir()))


def extreme_shapes() -> dict[str, bytes]:
    """Return a line of pixels, upright and lying, as long as each format or we allow it."""
    found = {"1x20M.png": png(1, 20_000_000), "20Mx1.png": png(20_000_000, 1)}
    found["tall.png"] = png(1, MAX_SIDE + 1)
    longest = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 16_384, "HEIF": 8_192}
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "HEIF"):
        long, short = longest.get(kind, MAX_SIDE), 64 if kind in ("AVIF", "HEIF") else 1
        for size in ((short, long), (long, short)):
            found[f"{size[0]}x{size[1]} {kind}"] = encoded(Image.new("RGB", size), kind)
    return found


@only_linux
def test_lines_of_pixels_cost_no_more(tmp_path: Path) -> None:
    """A PNG of 1 × 64,000,000 pixels took 1.9 GiB: pointers and coefficients for each row."""
    for name, data in extreme_shapes().items():
        (tmp_path / name).write_bytes(data)
    measured = assert_cheap(sorted(tmp_path.iterdir()))
    refused = {name for name, (end, _, _) in measured.items() if end == "refused"}
    assert refused == {"1x20M.png", "20Mx1.png", "tall.png"}


@only_linux
@pytest.mark.parametrize("name", ["jpeg exif segments", "tiff strips", "tiff fractions"])
def test_metadata_costs_no_more(name: str, tmp_path: Path) -> None:
    """What Pillow joins one by one, or makes a tuple of, before it is asked for a pixel."""
    (tmp_path / name).write_bytes(BOMBS[name](300_000 if name.startswith("jpeg") else 1_000_000))
    assert_cheap([tmp_path / name])


@only_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_metadata_by_the_million_costs_no_more(name: str, tmp_path: Path) -> None:
    for number in (60_000, 1_000_000):
        (tmp_path / str(number)).write_bytes(BOMBS[name](number))
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


def noise(side: int) -> Image.Image:
    """Return a picture that cannot be packed."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def one_scan(data: bytes) -> bytes:
    """Cut a progressive JPEG behind its first scan: all coefficients are held nevertheless."""
    return data[: data.index(b"\xff\xc4", data.index(b"\xff\xda"))] + b"\xff\xd9"


def deep_tiff(side: int) -> bytes:
    """Return an RGBA TIFF of 16 bits a sample, in one strip."""
    samples = [(258, 3, 4, struct.pack("<4H", *[16] * 4)), (277, 3, 1, struct.pack("<H", 4))]
    kinds = [(262, 3, 1, struct.pack("<H", 2)), (338, 3, 1, struct.pack("<H", 2))]
    packed = zlib.compress(bytes(side * side * 8), 1)
    return tiff(samples + kinds, width=side, height=side, compression=8, pixels=packed)


TURNED = Image.Exif()
TURNED[0x0112] = 6
LARGEST: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: largest("JPEG"),
    "jpeg turned": lambda: largest("JPEG", exif=TURNED),
    "jpeg progressive cmyk": lambda: largest(
        "JPEG", mode="CMYK", progressive=True, subsampling=0, each=12.2
    ),
    "jpeg of 32 scans": lambda: more_scans(largest("JPEG", progressive=True, each=12.2), 22),
    "jpeg in one progressive scan": lambda: one_scan(
        largest("JPEG", progressive=True, subsampling=0, each=12.2)
    ),
    "png tall": lambda: png(970, MAX_SIDE, colour=6),
    "png wide": lambda: png(MAX_SIDE, 970, colour=6),
    "png": lambda: largest("PNG", compress_level=1),
    "png transparent": lambda: largest("PNG", mode="RGBA", compress_level=1, exif=TURNED),
    "png 16 bits": lambda: largest("PNG", mode="I;16", compress_level=1),
    "png palette": lambda: largest("PNG", mode="P", transparency=b"\0\x80", compress_level=1),
    "gif": lambda: largest("GIF", mode="P", transparency=1),
    "bmp": lambda: largest("BMP", each=11),
    "tiff": lambda: largest("TIFF", compression="tiff_lzw", exif=TURNED),
    "tiff 32 bits": lambda: largest("TIFF", mode="I", compression="tiff_deflate"),
    "tiff of 16 bits": lambda: deep_tiff(5_700),
    "webp": lambda: largest("WEBP", method=0),
    "webp and a film": lambda: largest("WEBP", method=0, each=40) + bytes(100_000_000),
    "png of text": lambda: BOMBS["png wide text"](1_200_000),
    "webp lossless": lambda: largest("WEBP", mode="RGBA", lossless=True, method=0, each=18.5),
    "avif": lambda: largest("AVIF", speed=10),
    "heic": lambda: largest("HEIF", quality=50),
    "jpeg2000": lambda: largest("JPEG2000", mode="RGBA", each=30.2),
    "jpeg2000 of noise": lambda: encoded(noise(1_900), "JPEG2000"),
    "jpeg2000 in tiles": lambda: largest(
        "JPEG2000", each=30.2, tile_size=(128, 128), codeblock_size=(16, 16)
    ),
    "jpeg2000 of 16 bits": lambda: largest("JPEG2000", mode="I;16", each=30.2),
    # As many pixels as are converted, app.data.colour.MAX_PIXELS.
    "jpeg wide colours": lambda: largest("JPEG", each=10.75, icc_profile=rgb_profile()),
    "png wide colours": lambda: largest(
        "PNG", mode="RGBA", compress_level=1, exif=TURNED, each=10.75, icc_profile=rgb_profile()
    ),
    "jpeg for a press": lambda: largest(
        "JPEG", mode="CMYK", progressive=True, each=22.5, icc_profile=cmyk_profile(points=17)
    ),
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
    for name, content in SLOW.items():
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
