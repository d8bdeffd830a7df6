"""Embedded colour profiles: what every viewer shows is what the network gets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from photos import encoded, picture
from PIL import Image, ImageCms
from profiles import SRGB, cmyk_profile, grey_profile, rgb_profile

from app.data import colour
from app.data.decode import decode

ORANGE = (200, 60, 40)  # in sRGB


def stored(profile: bytes, mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    """Return a file whose pixels are ``ORANGE``, or its grey, in the colours of a profile."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = Image.new("RGB", (64, 32), ORANGE)
    image = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), opened, renderingIntent=1, outputMode=mode
    )
    return encoded(image, kind, icc_profile=profile, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("HEIF", {"quality": 100, "chroma": 444}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_wide_colours_become_those_that_viewers_show(kind: str, options: dict[str, Any]) -> None:
    data = stored(rgb_profile(), kind=kind, **options)
    assert np.abs(decode(data)[0].astype(int) - ORANGE).max() <= 2


def test_transparency_palettes_and_orientation_stay() -> None:
    profile, exif = rgb_profile(), Image.Exif()
    wide = Image.open(io.BytesIO(stored(profile)))
    exif[0x0112] = 6
    wide.putalpha(Image.linear_gradient("L").resize((64, 32)))
    pixels = decode(encoded(wide, "PNG", icc_profile=profile, exif=exif))[0]
    assert pixels.shape == (64, 32, 3)
    assert np.abs(pixels[:, -1].astype(int) - 255).max() <= 5  # white shines through
    assert np.abs(pixels[:, 0].astype(int) - ORANGE).max() <= 5
    palette = wide.convert("RGB").quantize(4)
    pixels = decode(encoded(palette, "PNG", icc_profile=profile))[0]
    assert np.abs(pixels.astype(int) - ORANGE).max() <= 2


def test_grey_and_cmyk_have_profiles_too() -> None:
    grey = encoded(Image.new("L", (8, 8), 128), "PNG", icc_profile=grey_profile(1.0))
    assert (np.abs(decode(grey)[0].astype(int) - 188) <= 1).all()  # half the light
    deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert (decode(encoded(deep, "PNG", icc_profile=grey_profile(1.0)))[0] == decode(grey)[0]).all()
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert decode(encoded(cyan, "TIFF"))[0][0, 0].tolist() == [0, 255, 255]  # as before
    inked = decode(encoded(cyan, "TIFF", icc_profile=cmyk_profile()))[0]
    assert inked.max() == 0  # with this ink it is black
    paper = Image.new("CMYK", (8, 8))
    assert decode(encoded(paper, "JPEG", icc_profile=cmyk_profile()))[0].min() >= 254


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile" * 20),
        ("RGB", rgb_profile()[:200]),
        ("RGB", grey_profile(1.0)),  # of other numbers than the pixels
        ("L", rgb_profile()),
        ("CMYK", rgb_profile()),
        ("RGB", rgb_profile() + b"mpet"),
        ("RGB", rgb_profile() + bytes(colour.MAX_PROFILE)),
    ],
)
def test_a_profile_that_says_nothing_changes_nothing(mode: str, profile: bytes) -> None:
    image = picture().convert(mode)
    without = decode(encoded(image, "TIFF"))[0]
    assert (decode(encoded(image, "TIFF", icc_profile=profile))[0] == without).all()


def test_a_profile_that_is_srgb_itself_costs_no_conversion() -> None:
    image = picture()
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert colour.profile_transform(image) is None
    image.info["icc_profile"] = rgb_profile(SRGB)  # its gamma is another one
    assert colour.profile_transform(image) is not None


def test_pictures_too_large_to_convert_keep_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "PNG", icc_profile=rgb_profile())
    converted = decode(data)[0]
    monkeypatch.setitem(colour.MAX_PIXELS, "RGB", picture().width * picture().height - 1)
    assert (decode(data)[0] == np.asarray(picture())).all()
    assert (converted != np.asarray(picture())).any()
