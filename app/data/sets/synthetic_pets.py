"""Drawn cats and dogs, to try the software and to test it; never for claims about accuracy.

Everything but the animal's shape (background, coat, pose, size, place, light) is drawn at random in
the same way for both kinds, so that only the shape distinguishes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.core.atomic_files import whole_folder
from app.core.console import progress_bar
from app.core.errors import UsageError

KINDS = ("cat", "dog")
NOTE = """Drawings, not photographs: {count} pictures by `python -m app fetch drawn`, seed {seed}.
They are for trying out the software, never for claims about accuracy.
"""
LAYER = 600  # pixels; animals are drawn this large and reduced about two times, which smooths
JPEG_QUALITY = 90

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
Floats = NDArray[np.floating[Any]]

# Ginger, grey, black, cream, brown, golden.
COATS = ((208, 140, 76), (132, 132, 138), (62, 58, 60), (226, 214, 196), (128, 86, 56),
         (205, 168, 112))  # fmt: skip
EYES = ((150, 180, 60), (200, 160, 50), (96, 150, 190), (120, 170, 110))
BROWN, DARK, PALE, PINK = (84, 52, 30), (34, 28, 30), (240, 232, 220), (224, 130, 138)
# Top, bottom and ground of a meadow, a room, a sofa and a street.
SCENES = np.array([
    [(112, 162, 216), (228, 234, 238), (92, 142, 62)],
    [(214, 204, 184), (176, 190, 196), (138, 97, 61)],
    [(150, 70, 66), (96, 84, 120), (122, 60, 58)],
    [(120, 150, 140), (190, 176, 160), (128, 128, 126)],
])  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One drawn picture and where its animal is."""

    image: Image.Image  # RGB, 240 to 400 pixels wide and high
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels; the latter two exclusive


def draw_sample(directory: Path, *, per_class: int = 120, seed: int = 0) -> int:
    """Write ``directory/cat/cat.0.jpg`` … and ``directory/dog/dog.0.jpg`` …, all or none.

    The same seed gives the same bytes with the same Pillow. ``directory/README.txt`` marks the
    pictures as drawings.

    Args:
        directory: a folder that does not exist yet or is empty.
        per_class: pictures of each kind, at least 1.
        seed: at least 0; another seed gives other pictures.

    Returns:
        How many pictures were written: twice ``per_class``.

    Raises:
        UsageError: ``per_class`` is below 1 or ``seed`` below 0.
        FetchError: ``directory`` holds something already or cannot be written.
    """
    if per_class < 1 or seed < 0:
        raise UsageError(
            f"Expected at least 1 picture per class and a seed of 0 or more, got {per_class} and"
            f" {seed}."
        )
    with whole_folder(directory) as folder, progress_bar() as bar:
        task = bar.add_task("Drawing", total=len(KINDS) * per_class)
        (folder / "README.txt").write_text(sample_note(per_class, seed), encoding="utf-8")
        for number, kind in enumerate(KINDS):
            (folder / kind).mkdir()
            for index in range(per_class):
                # Every picture has its own generator, so a larger set begins with the smaller one.
                drawing = draw_animal(kind, np.random.default_rng([seed, number, index]))
                file = folder / kind / f"{kind}.{index}.jpg"
                drawing.image.save(file, quality=JPEG_QUALITY)
                bar.advance(task)
    return len(KINDS) * per_class


def sample_note(per_class: int, seed: int) -> str:
    """Return the text of the set's README.txt, which identifies it."""
    return NOTE.format(count=len(KINDS) * per_class, seed=seed)


def draw_animal(kind: str, generator: Generator) -> Drawing:
    """Draw one picture of a cat or a dog.

    Args:
        kind: one of ``KINDS``.
        generator: the source of all chance; the same state gives the same picture.

    Raises:
        UsageError: ``kind`` is neither.
    """
    if kind not in KINDS:
        raise UsageError(f"Expected a kind out of {', '.join(KINDS)}, got {kind!r}.")
    width, height = (int(side) for side in generator.integers(240, 401, size=2))
    scene = _background(generator, width, height)
    pose = int(generator.choice(3, p=(0.4, 0.35, 0.25)))
    coat, ink = _animal(generator, kind == "dog", pose)
    share = float(generator.uniform(0.55, 0.95))
    factor = share * min(width / coat.width, height / coat.height)
    size = max(1, int(coat.width * factor)), max(1, int(coat.height * factor))
    room = height - size[1]
    left = int(generator.integers(0, width - size[0] + 1))
    # A head alone is cut off by the lower edge; others stand in the lower part.
    top = room if pose == 0 else int(generator.integers(room // 2, room + 1))
    coat = _furry(generator, coat.resize(size, Image.Resampling.BOX))
    ink = ink.resize(size, Image.Resampling.BOX)
    for layer in (coat, ink):
        scene.paste(layer, (left, top), layer)
    light = generator.uniform(0.8, 1.1) * generator.uniform(0.94, 1.06, size=3)
    noise = 4 * generator.standard_normal((height, width, 1))  # as a camera has it
    lit = _image(np.asarray(scene) * light + noise)
    return Drawing(lit, (left, top, left + size[0], top + size[1]))


@dataclass(frozen=True)
class _Sketch:
    """An animal that is being drawn, in its own units: a head has radius 1, y points down."""

    coat: Image.Image  # the RGBA layer of fur, which gets a pattern afterwards
    ink: Image.Image  # the RGBA layer of what lies on the fur: eyes, nose, whiskers, pale patches
    origin: NDArray[np.float64]  # where (0, 0) lies on both, in pixels
    axes: NDArray[np.float64]  # the pixels of one unit to the right and of one unit down, (2, 2)
    fur: Colour
    shade: Colour  # of fur in shadow: edges, tails and far legs

    def line(self, points: Points, colour: Colour, width: float, *, fur: bool = False) -> None:
        """Draw a line of ``width`` units, on the ink unless it is fur."""
        thickness = max(1, round(width * float(np.hypot(*self.axes[0]))))
        self._draw(fur).line(self._pixels(points), colour, thickness, joint="curve")

    def fill(self, points: Points, colour: Colour, edge: Colour, *, fur: bool = False) -> None:
        """Fill an outline and draw it, on the ink unless it is fur."""
        self._draw(fur).polygon(self._pixels(points), colour)
        self.line([*points, points[0]], edge, 0.05, fur=fur)

    def body(self, *ovals: tuple[float, float, float, float]) -> None:
        """Draw parts of the body: ovals (x, y, half the width, half the height) of fur."""
        for oval in ovals:
            self.fill(_oval(*oval), self.fur, self.shade, fur=True)

    def _draw(self, fur: bool) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.coat if fur else self.ink)

    def _pixels(self, points: Points) -> list[tuple[float, ...]]:
        return [tuple(pixel) for pixel in (np.array(points) @ self.axes + self.origin).tolist()]


def _oval(x: float, y: float, across: float, down: float, lean: float = 0.0) -> Points:
    """Return the outline of an ellipse that leans by ``lean`` radians."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    u, v = across * np.cos(angle), down * np.sin(angle)
    cos, sin = np.cos(lean), np.sin(lean)
    return list(zip(x + u * cos - v * sin, y + u * sin + v * cos, strict=True))


def _scaled(colour: Colour, factor: float) -> Colour:
    """Make a colour darker (below 1) or lighter (above 1)."""
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _cat_head(sketch: _Sketch, turn: float, ear: float, iris: Colour) -> None:
    """Draw a round face with pointed ears, slit pupils, a small pink nose and whiskers."""
    for side in (-1, 1):
        outer = ((side, -0.15), (side * 0.2, -0.8), (side * 0.92, -ear))
        sketch.fill(outer, sketch.fur, sketch.shade, fur=True)
    sketch.body((0, 0, 1.06, 0.88))
    for side in (-1, 1):
        inner = ((side * 0.9, -0.55), (side * 0.46, -0.8), (side * 0.86, 0.3 - ear))
        sketch.fill(inner, PINK, sketch.shade)
        eye, mouth = side * 0.43 + turn * 0.5, turn * 0.9 + side * 0.2
        sketch.fill(_oval(eye, -0.1, 0.27, 0.19, -0.25 * side), iris, DARK)
        sketch.fill(_oval(eye, -0.1, 0.05, 0.16), DARK, DARK)
        sketch.fill(_oval(mouth, 0.46, 0.25, 0.2), PALE, PALE)
        for rise in (-0.22, 0.02, 0.26):
            whisker = ((mouth, 0.45), (mouth + side * 1.3, 0.36 + rise))
            sketch.line(whisker, PALE if sum(sketch.fur) < 540 else DARK, 0.028)
    nose = ((turn * 0.9 - 0.13, 0.22), (turn * 0.9 + 0.13, 0.22), (turn * 0.9, 0.36))
    sketch.fill(nose, PINK, DARK)


def _dog_head(sketch: _Sketch, turn: float, ear: float, light: Colour) -> None:
    """Draw a long face with hanging ears, a protruding muzzle, a big dark nose and a tongue."""
    sketch.body((0, -0.05, 0.84, 0.95))
    for side in (-1, 1):
        hanging = _oval(side * 0.95, ear * 0.8 - 0.55, 0.31, ear, -0.18 * side)
        sketch.fill(hanging, sketch.shade, _scaled(sketch.fur, 0.4), fur=True)
        eye = side * 0.36 + turn * 0.5
        sketch.fill(_oval(eye, -0.28, 0.15, 0.15), BROWN, DARK)
        sketch.fill(_oval(eye, -0.28, 0.08, 0.08), DARK, DARK)
    middle = turn * 1.3
    sketch.fill(_oval(middle + 0.05, 1.12, 0.2, 0.36), PINK, _scaled(PINK, 0.6))
    sketch.fill(_oval(middle, 0.55, 0.52, 0.45), light, _scaled(light, 0.6))
    sketch.fill(_oval(middle, 0.36, 0.27, 0.19), DARK, DARK)
    mouth = ((-0.38, 0.74), (-0.2, 0.84), (0, 0.75), (0, 0.5), (0, 0.75), (0.2, 0.84), (0.38, 0.74))
    sketch.line([(middle + x, y) for x, y in mouth], DARK, 0.05)


def _tail(sketch: _Sketch, x: float, y: float, is_dog: bool) -> None:
    """Draw a long curling cat's tail or a shorter raised dog's tail."""
    t = np.linspace(0, 1, 24)
    across, rise, width = (0.8, 1.2, 0.36) if is_dog else (1.2, 1.8, 0.26)
    xs = x + across * t + (not is_dog) * 0.4 * np.sin(6 * t)
    points = list(zip(xs, y - rise * t**2, strict=True))
    sketch.line(points, sketch.shade, width, fur=True)


def _animal(generator: Generator, is_dog: bool, pose: int) -> tuple[Image.Image, Image.Image]:
    """Draw an animal large: its head (pose 0), sitting (1) or standing (2); its coat and its ink.

    Each pose is also drawn mirrored, and tilted a little.
    """
    middle, reach = (((0, 1.0), 2.9), ((0.6, 1.0), 3.1), ((2.0, 0.9), 4.1))[pose]
    tilt, mirror = float(generator.uniform(-0.16, 0.16)), int(generator.choice((-1, 1)))
    cos, sin = np.cos(tilt), np.sin(tilt)
    axes = LAYER / 2 / reach * np.array([(mirror * cos, mirror * sin), (-sin, cos)])
    fur = _scaled(COATS[int(generator.integers(len(COATS)))], float(generator.uniform(0.85, 1.12)))
    coat, ink = (Image.new("RGBA", (LAYER, LAYER), (*fur, 0)) for _ in range(2))
    origin, shade = LAYER / 2 - np.array(middle) @ axes, _scaled(fur, 0.62)
    sketch = _Sketch(coat, ink, origin, axes, fur, shade)
    broad, leg = (1.1, 1.15) if is_dog else (0.92, 0.85)
    if pose == 0:
        sketch.body((0, 2.0, 1.25 * broad, 1.35))
    elif pose == 1:
        _tail(sketch, 0.9 * broad, 2.9, is_dog)
        sketch.body((0, 2.6, 1.2 * broad, 0.95), (0, 1.75, 0.85 * broad, 1.15))
        for x in (-0.4 * broad, 0.4 * broad):
            sketch.body((x, 2.65, 0.25 * broad, 0.85), (x, 3.42, 0.34 * broad, 0.2))
    else:
        _tail(sketch, 4.1, 0.75, is_dog)
        for x in (1.05, 3.5):
            sketch.fill(_oval(x, 1.15 + leg, 0.22, leg), shade, shade, fur=True)
        sketch.body((2.6, 1.2, 1.7, 0.82), (0.55, 0.75, 0.75, 0.8))
        for x in (0.75, 3.2):
            sketch.body((x, 1.2 + leg, 0.25, leg), (x - 0.12, 1.15 + 2 * leg, 0.33, 0.17))
    turn, ear, light = (float(number) for number in generator.uniform(0, 1, size=3))
    if is_dog:
        _dog_head(sketch, 0.5 * turn - 0.3, 0.68 + 0.27 * ear, _scaled(fur, 1 + 0.4 * light))
    else:
        _cat_head(sketch, 0.5 * turn - 0.3, 1.45 + 0.3 * ear, EYES[int(light * len(EYES))])
    left, top, right, bottom = Image.alpha_composite(coat, ink).getbbox() or (0, 0, LAYER, LAYER)
    box = (left, top, right, bottom - round(0.3 * (bottom - top)) * (pose == 0))
    return coat.crop(box), ink.crop(box)


def _noise(generator: Generator, width: int, height: int, cell: float) -> Floats:
    """Make smooth noise, about -1 to 1, shape (height, width), with bumps ``cell`` pixels wide."""
    shape = (max(2, round(height / cell)), max(2, round(width / cell)))
    small = Image.fromarray(generator.uniform(-1, 1, shape).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _furry(generator: Generator, coat: Image.Image) -> Image.Image:
    """Give a flat coat a pattern (none, patches, stripes or spots) and the grain of fur."""
    width, height = coat.size
    coarse = _noise(generator, width, height, max(width, height) / 5)
    fine = _noise(generator, width, height, max(width, height) / 16)
    stripes = np.sin(np.arange(height)[:, None] / height * 55 + coarse * 3)
    masks = (coarse > np.inf, coarse > 0.2, stripes > 0.55, fine > 0.45)
    mask = masks[int(generator.integers(len(masks)))]
    tone = np.float32(generator.choice((0.55, 1.5)))
    grain = 1 + 0.1 * _noise(generator, width, height, 2.2) + 0.1 * coarse
    pixels = np.array(coat, dtype=np.float32)
    pixels[..., :3] *= (np.where(mask, tone, np.float32(1)) * grain)[..., None]
    return _image(pixels)


def _background(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw something out of focus above a strip of ground, RGB."""
    tones = generator.uniform(0.75, 1.15, size=(3, 1))
    top, bottom, ground = SCENES[int(generator.integers(len(SCENES)))] * tones
    down = np.linspace(0, 1, height)[:, None]
    cell = float(generator.uniform(15, 70))
    amount = np.clip(down + 0.6 * _noise(generator, width, height, cell), 0, 1)[..., None]
    grain = 1 + 0.2 * _noise(generator, width, height, 8)[..., None]
    is_ground = (down > generator.uniform(0.55, 0.9))[..., None]
    return _image(np.where(is_ground, ground * grain, top * (1 - amount) + bottom * amount))


def _image(pixels: Floats) -> Image.Image:
    """Return pixels as an image, cut off at 0 and 255."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
