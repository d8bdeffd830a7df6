"""Small pictures and folders of them for the tests, and the real ones beside the checkout."""

from __future__ import annotations

import base64
import io
import re
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from app.data.manifest import Photo
from app.data.sets.synthetic_pets import draw_sample

TELLTALE = (255, 0, 255)  # the colour of photos that are looked for; drawings have nothing like it


def picture(seed: int = 0, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Return a smooth picture without symmetry: it survives JPEG, and turning it shows."""
    colours = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def make_photo(path: Path, seed: int = 0, size: tuple[int, int] = (48, 32)) -> Path:
    """Save a picture in the format of its suffix; another seed gives another picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def telltale_photo() -> bytes:
    """Return a JPEG of one colour, which is found again wherever it is shown."""
    file = io.BytesIO()
    Image.new("RGB", (60, 40), TELLTALE).save(file, "JPEG", quality=95)
    return file.getvalue()


def pictures(page: str) -> list[NDArray[np.uint8]]:
    """Return all JPEGs in a page or notebook, decoded."""
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    files = (io.BytesIO(base64.b64decode(text)) for text in found)
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def shows_telltale(pixels: NDArray[np.uint8]) -> bool:
    """Say whether a picture has the telltale colour, lighter or darker, anywhere."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return bool(((np.minimum(red, blue) - green) > 150).any())


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a picture in a format; skip the test where it cannot be written."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_photo(path: Path, target: int = 0) -> Photo:
    """Return a file as the audit would: with the hash of its content."""
    return Photo(path, path.name, sha256(path.read_bytes()).hexdigest(), target)


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    """Fill folders such as ``cat`` or ``train/cat`` with so many JPEGs, no two of them alike."""
    for folder, count in counts.items():
        for number in range(count):
            make_photo(root / folder / f"{number}.jpg", zlib.crc32(f"{folder}/{number}".encode()))
    return root


def drawn_photos(folder: Path, per_class: int = 12) -> Path:
    """Draw pets of each class, the dogs bluish: random filters see colours, not shapes."""
    draw_sample(folder, per_class=per_class)
    for path in folder.glob("dog/*.jpg"):
        with Image.open(path) as image:
            Image.blend(image, Image.new("RGB", image.size, "navy"), 0.3).save(path)
    return folder


def drawn_splits(root: Path, per_split: int = 12) -> Path:
    """Draw cats and dogs into ``root/photos/SPLIT/CLASS``, so many of each; return ``photos``."""
    splits = ("train", "validation", "test")
    drawn, photos = drawn_photos(root / "drawn", len(splits) * per_split), root / "photos"
    for number, split in enumerate(splits):
        for label in ("cat", "dog"):
            (photos / split / label).mkdir(parents=True)
            for place in range(per_split * number, per_split * (number + 1)):
                name = f"{label}.{place}.jpg"
                (drawn / label / name).rename(photos / split / label / name)
    return photos


def shared_folder() -> Path:
    """Return the folder of real photos and weights beside the checkout, or skip the test."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the photos belong to others and are not in the repository")
    return folder
