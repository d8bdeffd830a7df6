"""Small valid files of every format, to be broken."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a picture in a format."""
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """Return files by name: each format in the kinds that are coded differently."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    rgb = Image.fromarray(colours).resize((24, 16), Image.Resampling.BICUBIC)
    grey, palette = rgb.convert("L"), rgb.quantize(8)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngInfo()
    text.add_text("comment", "a dog", zip=True)
    turned = rgb.rotate(180)
    found = {
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg two pictures": encoded(rgb, "MPO", save_all=True, append_images=[turned]),
        "png": encoded(rgb, "PNG", exif=exif, pnginfo=text),
        "png palette": encoded(palette, "PNG", transparency=b"\0\x80"),
        "png 16 bits": encoded(deep, "PNG"),
        "png animated": encoded(rgb, "PNG", save_all=True, append_images=[turned]),
        "gif": encoded(palette, "GIF", transparency=0, comment=b"a dog"),
        "gif animated": encoded(rgb, "GIF", save_all=True, append_images=[grey]),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "ppm": encoded(rgb, "PPM"),
        "ppm plain": b"P3 2 1 200 # a dog\n1 2 3 4 5 6 ",
        "ppm odd": b"P6 2 1 200\n" + bytes(6),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "webp animated": encoded(rgb, "WEBP", save_all=True, append_images=[turned]),
        "heic": encoded(rgb, "HEIF"),
        "heic alpha": encoded(rgba, "HEIF"),
    }
    if features.check("avif"):
        found["avif"] = encoded(rgba, "AVIF", exif=exif)
    for packing in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_lzma", "zstd"):
        try:
            found[f"tiff {packing}"] = encoded(rgb, "TIFF", compression=packing, exif=exif)
        except (KeyError, OSError):  # this libtiff was built without it
            continue
    if features.check("jpg_2000"):
        found["jpeg2000"] = encoded(rgba, "JPEG2000")
        found["jpeg2000 bare"] = encoded(grey, "JPEG2000", no_jp2=True, tile_size=(16, 16))
    found["tiff fax"] = encoded(rgb.convert("1"), "TIFF", compression="group4")
    return found
