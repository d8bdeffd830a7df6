"""Drawn cats and dogs: a small set to try the software with when there are no photos at hand.

The pictures are made here with Pillow and show no real animal. They are for trying out and for
tests, never for claims about accuracy. Everything but the animal's shape (background, coat, pose,
size, place, light) is drawn at random in the same way for both kinds, so that only the shape
tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
Point = tuple[float, float]
Floats = NDArray[np.float32]  # half the time of float64, and pixels have 8 bits anyway

COATS: tuple[Colour, ...] = (
    (208, 140, 76),  # ginger
    (132, 132, 138),  # grey
    (62, 58, 60),  # black
    (226, 214, 196),  # cream
    (128, 86, 56),  # brown
    (205, 168, 112),  # golden
)
EYES: tuple[Colour, ...] = ((150, 180, 60), (200, 160, 50), (96, 150, 190), (120, 170, 110))
PALE: Colour = (240, 232, 220)
DARK: Colour = (34, 28, 30)
NOSE_PINK: Colour = (224, 130, 138)
TONGUE: Colour = (226, 96, 112)


@dataclass(frozen=True)
class Drawing:
    """One drawn picture and where its animal is.

    Attributes:
        image: RGB, 240 to 400 pixels wide and high.
        box: (left, top, right, bottom) of the animal in pixels; right and bottom are exclusive.
    """

    image: Image.Image
    box: tuple[int, int, int, int]


def draw_sample(directory: Path, *, per_class: int = 120, seed: int = 0) -> int:
    """Write ``directory/cat/cat.0.jpg`` … and ``directory/dog/dog.0.jpg`` …, all or none.

    Use it to try the whole software without a network and without photos. The same seed gives
    the same bytes with the same Pillow. ``directory/README.txt`` says that these are drawings.

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

    Use it in tests that need to know where the animal is: a heat map should fall into ``box``.

    Args:
        kind: ``"cat"`` or ``"dog"``.
        generator: the source of all chance; the same state gives the same picture.

    Returns:
        The picture and the animal's place in it.

    Raises:
        UsageError: ``kind`` is neither.
    """
    if kind not in KINDS:
        raise UsageError(f"Expected a kind out of {', '.join(KINDS)}, got {kind!r}.")
    width, height = (int(side) for side in generator.integers(240, 401, size=2))
    scene = _background(generator, width, height)
    coat, ink, is_bust = _animal_layers(kind, generator)
    box = _place(generator, coat.size, (width, height), is_bust)
    size = (box[2] - box[0], box[3] - box[1])
    coat = _furry(generator, coat.resize(size, Image.Resampling.BOX))
    ink = ink.resize(size, Image.Resampling.BOX)
    scene.paste(coat, box[:2], coat)
    scene.paste(ink, box[:2], ink)
    return Drawing(_lit(generator, scene), box)


# ---- the pen: shapes in the animal's own units ------------------------------------------------


@dataclass(frozen=True)
class _Pen:
    """Draws on one layer in the animal's units: a head has radius 1, y points down.

    Attributes:
        layer: the RGBA picture.
        origin: where (0, 0) lies, in pixels.
        scale: pixels per unit.
        tilt: rotation in radians.
        mirror: 1 or -1; -1 swaps left and right.
    """

    layer: Image.Image
    origin: Point
    scale: float
    tilt: float
    mirror: int

    def at(self, x: float, y: float, size: float = 1.0) -> _Pen:
        """Return a pen whose (0, 0) is here, drawing ``size`` times as large."""
        return replace(self, origin=self.pixel((x, y)), scale=self.scale * size)

    def pixel(self, point: Point) -> Point:
        """Turn units into pixels."""
        x, y = point[0] * self.mirror, point[1]
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        return (
            self.origin[0] + self.scale * (x * cos - y * sin),
            self.origin[1] + self.scale * (x * sin + y * cos),
        )

    def polygon(self, points: Sequence[Point], fill: Colour, edge: Colour | None = None) -> None:
        """Fill an outline; ``edge`` draws it in another colour too."""
        pixels = [self.pixel(point) for point in points]
        draw = ImageDraw.Draw(self.layer)
        draw.polygon(pixels, fill=(*fill, 255))
        if edge is not None:
            width = max(1, round(self.scale * 0.05))
            draw.line([*pixels, pixels[0]], fill=(*edge, 255), width=width, joint="curve")

    def oval(
        self,
        centre: Point,
        radii: Point,
        fill: Colour,
        *,
        lean: float = 0.0,
        edge: Colour | None = None,
    ) -> None:
        """Fill an ellipse that leans by ``lean`` radians."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
        cos, sin = np.cos(lean), np.sin(lean)
        xs, ys = centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos
        self.polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill, edge)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draw a line of ``width`` units."""
        pixels = [self.pixel(point) for point in points]
        thickness = max(1, round(width * self.scale))
        ImageDraw.Draw(self.layer).line(pixels, fill=(*fill, 255), width=thickness, joint="curve")


@dataclass(frozen=True)
class _Artist:
    """What a drawing function needs: two pens with the same geometry, chance, and the coat.

    Attributes:
        coat: draws fur, which gets a pattern afterwards.
        ink: draws what lies on the fur: eyes, nose, whiskers, pale patches.
        generator: the source of chance.
        fur: the coat's colour.
    """

    coat: _Pen
    ink: _Pen
    generator: Generator
    fur: Colour

    def at(self, x: float, y: float, size: float = 1.0) -> _Artist:
        """Return an artist whose pens begin here, drawing ``size`` times as large."""
        return replace(self, coat=self.coat.at(x, y, size), ink=self.ink.at(x, y, size))

    @property
    def shade(self) -> Colour:
        """The coat's colour in shadow, for edges and far legs."""
        return _scaled(self.fur, 0.62)

    def between(self, low: float, high: float) -> float:
        """Draw a number between ``low`` and ``high``."""
        return float(self.generator.uniform(low, high))

    def fur_oval(self, centre: Point, radii: Point, lean: float = 0.0) -> None:
        """Draw a part of the body with a darker edge."""
        self.coat.oval(centre, radii, self.fur, lean=lean, edge=self.shade)


def _scaled(colour: Colour, factor: float) -> Colour:
    """Make a colour darker (below 1) or lighter (above 1)."""
    red, green, blue = (min(255, max(0, round(part * factor))) for part in colour)
    return red, green, blue


# ---- heads: what tells the two kinds apart ----------------------------------------------------


def _cat_head(artist: _Artist, turn: float) -> None:
    """Draw a small round face with pointed ears, slit pupils, a small pink nose and whiskers."""
    ear = artist.between(1.45, 1.75)
    for side in (-1, 1):
        outer = [(side * 1.0, -0.15), (side * 0.2, -0.8), (side * 0.92, -ear)]
        artist.coat.polygon(outer, artist.fur, artist.shade)
    artist.fur_oval((0, 0), (1.06, 0.88))
    for side in (-1, 1):
        inner = [(side * 0.9, -0.55), (side * 0.46, -0.8), (side * 0.86, -ear + 0.3)]
        artist.ink.polygon(inner, (214, 158, 152))
    _cat_eyes(artist, turn)
    middle = turn * 0.9
    for side in (-1, 1):
        artist.ink.oval((middle + side * 0.2, 0.46), (0.25, 0.2), PALE)
    artist.ink.polygon(
        [(middle - 0.13, 0.22), (middle + 0.13, 0.22), (middle, 0.36)], NOSE_PINK, DARK
    )
    for side in (-1, 1):
        mouth = [(middle, 0.36), (middle + side * 0.1, 0.52), (middle + side * 0.3, 0.5)]
        artist.ink.line(mouth, DARK, 0.035)
        for rise in (-0.22, 0.02, 0.26):
            whisker = [(middle + side * 0.3, 0.45), (middle + side * 1.5, 0.36 + rise)]
            artist.ink.line(whisker, PALE if sum(artist.fur) < 540 else DARK, 0.028)


def _cat_eyes(artist: _Artist, turn: float) -> None:
    """Draw two almond eyes with upright slits."""
    iris = EYES[int(artist.generator.integers(len(EYES)))]
    slit = artist.between(0.045, 0.1)
    for side in (-1, 1):
        x = side * 0.43 + turn * 0.5
        artist.ink.oval((x, -0.1), (0.27, 0.19), iris, lean=side * -0.25, edge=DARK)
        artist.ink.oval((x, -0.1), (slit, 0.17), DARK)
        artist.ink.oval((x + 0.06, -0.17), (0.045, 0.045), (255, 255, 255))


def _dog_head(artist: _Artist, turn: float) -> None:
    """Draw a long face with hanging ears, a protruding muzzle, a big dark nose and a tongue."""
    artist.fur_oval((0, -0.05), (0.84, 0.95))
    length, spread = artist.between(0.68, 0.95), artist.between(0.05, 0.3)
    for side in (-1, 1):
        hang = (side * (0.86 + spread / 2), -0.55 + length * 0.8)
        artist.coat.oval(
            hang, (0.31, length), artist.shade, lean=-side * spread, edge=_scaled(artist.fur, 0.4)
        )
    _dog_eyes(artist, turn)
    middle = turn * 1.3
    light = _scaled(artist.fur, 1.25) if artist.between(0, 1) < 0.5 else PALE
    if artist.between(0, 1) < 0.8:
        artist.ink.oval((middle + 0.05, 1.12), (0.2, 0.36), TONGUE, edge=_scaled(TONGUE, 0.6))
    artist.ink.oval((middle * 0.7, 0.42), (0.52, 0.5), light)
    artist.ink.oval((middle, 0.62), (0.5, 0.36), light, edge=_scaled(light, 0.6))
    artist.ink.oval((middle, 0.36), (0.27, 0.19), DARK)
    artist.ink.oval((middle - 0.07, 0.29), (0.08, 0.04), (150, 146, 150))
    artist.ink.line([(middle, 0.5), (middle, 0.75)], DARK, 0.05)
    for side in (-1, 1):
        mouth = [(middle, 0.75), (middle + side * 0.2, 0.84), (middle + side * 0.38, 0.74)]
        artist.ink.line(mouth, DARK, 0.05)


def _dog_eyes(artist: _Artist, turn: float) -> None:
    """Draw two round brown eyes with brows."""
    for side in (-1, 1):
        x = side * 0.36 + turn * 0.5
        artist.ink.oval((x, -0.28), (0.15, 0.15), (84, 52, 30), edge=DARK)
        artist.ink.oval((x, -0.28), (0.09, 0.09), DARK)
        artist.ink.oval((x + 0.05, -0.33), (0.04, 0.04), (255, 255, 255))
        brow = [(x - 0.16, -0.52), (x, -0.58), (x + 0.16, -0.52)]
        artist.ink.line(brow, artist.shade, 0.05)


_HEADS: dict[str, Callable[[_Artist, float], None]] = {"cat": _cat_head, "dog": _dog_head}


# ---- poses ------------------------------------------------------------------------------------


def _bust(artist: _Artist, kind: str) -> None:
    """Draw the head and the shoulders; the picture's lower edge cuts them off."""
    artist.fur_oval((0, 2.0), (1.35 if kind == "dog" else 1.15, 1.35))
    _HEADS[kind](artist, artist.between(-0.2, 0.2))


def _sitting(artist: _Artist, kind: str) -> None:
    """Draw the animal sitting and looking at us."""
    broad = 1.1 if kind == "dog" else 0.92
    _tail(artist.at(0.9 * broad, 2.9), kind)
    artist.fur_oval((0, 2.6), (1.2 * broad, 0.95))
    artist.fur_oval((0, 1.75), (0.85 * broad, 1.15))
    for side in (-1, 1):
        artist.fur_oval((side * 0.36 * broad, 2.65), (0.25 * broad, 0.85))
        artist.fur_oval((side * 0.42 * broad, 3.42), (0.34 * broad, 0.2))
    if artist.between(0, 1) < 0.5:
        artist.ink.oval((0, 1.75), (0.4, 0.65), PALE)  # a pale chest, which both kinds may have
    _HEADS[kind](artist, artist.between(-0.3, 0.3))


def _standing(artist: _Artist, kind: str) -> None:
    """Draw the animal from the side, its face turned to us."""
    long, leg = (1.75, 1.15) if kind == "dog" else (1.65, 0.85)
    ground = 1.15 + leg
    _tail(artist.at(1.0 + 1.85 * long, 0.75), kind)
    for x, colour in ((0.75, artist.shade), (1.9 * long, artist.shade)):
        artist.coat.oval((x + 0.3, ground), (0.22, leg), colour)
    artist.fur_oval((1.0 + long * 0.95, 1.2), (long, 0.82))
    artist.fur_oval((0.55, 0.75), (0.7, 0.85), lean=-0.6)
    for x in (0.75, 1.9 * long):
        artist.fur_oval((x, ground + 0.05), (0.25, leg))
        artist.fur_oval((x - 0.12, ground + leg), (0.33, 0.17))
    _HEADS[kind](artist, artist.between(-0.35, 0.0))


def _tail(artist: _Artist, kind: str) -> None:
    """Draw a long curling cat's tail or a shorter raised dog's tail, as a row of discs."""
    bend = artist.between(0.8, 1.2)
    if kind == "cat":
        corners, thick = ((0.0, 0.0), (1.5, 0.3), (0.5, -1.5 * bend), (1.4, -1.9 * bend)), 0.17
    else:
        corners, thick = ((0.0, 0.0), (0.5, -0.1), (0.9, -0.6 * bend), (0.8, -1.1 * bend)), 0.22
    for step in np.linspace(0, 1, 40).tolist():
        weights = ((1 - step) ** 3, 3 * step * (1 - step) ** 2, 3 * step**2 * (1 - step), step**3)
        x = sum(w * corner[0] for w, corner in zip(weights, corners, strict=True))
        y = sum(w * corner[1] for w, corner in zip(weights, corners, strict=True))
        radius = thick * (1.1 - 0.45 * step)
        artist.coat.oval((x, y), (radius, radius), artist.shade)


# Each pose: how it is drawn, where its middle is in units, and how far it reaches from there.
_POSES: tuple[tuple[Callable[[_Artist, str], None], Point, float], ...] = (
    (_bust, (0.0, 1.0), 2.9),
    (_sitting, (0.6, 1.0), 3.1),
    (_standing, (2.0, 0.9), 4.1),
)


def _animal_layers(kind: str, generator: Generator) -> tuple[Image.Image, Image.Image, bool]:
    """Draw the animal large: (coat, ink, is it a bust), cropped to what was drawn."""
    number = int(generator.choice(len(_POSES), p=(0.4, 0.35, 0.25)))
    pose, middle, reach = _POSES[number]
    tilt = float(generator.uniform(-0.16, 0.16))
    mirror = int(generator.choice((-1, 1)))
    fur = COATS[int(generator.integers(len(COATS)))]
    fur = _scaled(fur, float(generator.uniform(0.85, 1.12)))
    layers = [Image.new("RGBA", (LAYER, LAYER), (*fur, 0)) for _ in range(2)]
    centre, scale = (LAYER / 2, LAYER / 2), LAYER / 2 / reach
    pens = [_Pen(layer, centre, scale, tilt, mirror).at(-middle[0], -middle[1]) for layer in layers]
    pose(_Artist(pens[0], pens[1], generator, fur), kind)
    is_bust = pose is _bust
    box = _drawn_box(layers[0], layers[1])
    if is_bust:
        box = (box[0], box[1], box[2], round(box[3] - 0.3 * (box[3] - box[1])))
    coat, ink = (layer.crop(box) for layer in layers)
    return coat, ink, is_bust


def _drawn_box(coat: Image.Image, ink: Image.Image) -> tuple[int, int, int, int]:
    """Find the box around everything drawn on either layer."""
    boxes = [box for layer in (coat, ink) if (box := layer.getchannel("A").getbbox())]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _place(
    generator: Generator, size: tuple[int, int], frame: tuple[int, int], is_bust: bool
) -> tuple[int, int, int, int]:
    """Choose how large the animal is and where it lies: its box inside ``frame``, in pixels."""
    share = float(generator.uniform(0.55, 0.95))
    factor = share * min(frame[0] / size[0], frame[1] / size[1])
    width, height = (max(1, int(side * factor)) for side in size)
    left = int(generator.integers(0, frame[0] - width + 1))
    room = frame[1] - height
    # A bust is cut off by the lower edge; others stand in the lower part, where the ground is.
    top = room if is_bust else int(generator.integers(room // 2, room + 1))
    return left, top, left + width, top + height


# ---- coat, background and light: the same for both kinds --------------------------------------


def _noise(generator: Generator, width: int, height: int, cell: float) -> Floats:
    """Make smooth noise, about -1 to 1, shape (height, width), with bumps ``cell`` pixels wide."""
    shape = (max(2, round(height / cell)), max(2, round(width / cell)))
    small = Image.fromarray(generator.uniform(-1, 1, shape).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _furry(generator: Generator, coat: Image.Image) -> Image.Image:
    """Give a flat coat a pattern (plain, patches, stripes or spots) and the grain of fur."""
    width, height = coat.size
    pattern = str(generator.choice(("plain", "patches", "stripes", "spots")))
    tone = float(generator.choice((0.55, 1.5)))
    coarse = _noise(generator, width, height, max(width, height) / 5)
    if pattern == "patches":
        mask = coarse > 0.2
    elif pattern == "stripes":
        rows = np.arange(height)[:, None] / height
        mask = np.sin(rows * 55 + coarse * 3) > 0.55
    elif pattern == "spots":
        mask = _noise(generator, width, height, max(width, height) / 16) > 0.45
    else:
        mask = np.zeros((height, width), dtype=bool)
    grain = 1 + 0.10 * _noise(generator, width, height, 2.2) + 0.10 * coarse
    factor = np.where(mask, np.float32(tone), np.float32(1)) * grain
    pixels = np.asarray(coat, dtype=np.float32)
    colours = np.clip(pixels[..., :3] * factor[..., None], 0, 255)
    return Image.fromarray(np.dstack([colours, pixels[..., 3]]).astype(np.uint8))


def _background(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw one of several places, RGB."""
    place = (_grass, _sofa, _sky, _room, _plain)[int(generator.integers(5))]
    return place(generator, width, height)


def _shaded(generator: Generator, top: Colour, bottom: Colour, amount: Floats) -> Image.Image:
    """Blend from ``top`` (where ``amount`` is 0) to ``bottom`` (1), colours varied a little."""
    first, second = (
        np.array(colour, dtype=np.float32) * np.float32(generator.uniform(0.85, 1.1))
        for colour in (top, bottom)
    )
    blend = np.clip(amount, 0, 1)[..., None]
    return Image.fromarray(np.clip(first * (1 - blend) + second * blend, 0, 255).astype(np.uint8))


def _rows(width: int, height: int) -> Floats:
    """Return 0 at the top to 1 at the bottom, shape (height, width)."""
    return np.repeat(np.linspace(0, 1, height, dtype=np.float32)[:, None], width, axis=1)


def _grass(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw a lawn with blades."""
    amount = _rows(width, height) * 0.7 + 0.3 * _noise(generator, width, height, 30)
    scene = _shaded(generator, (140, 176, 96), (66, 118, 48), amount)
    draw = ImageDraw.Draw(scene)
    for _ in range(260):
        x, y = (float(generator.uniform(0, side)) for side in (width, height))
        tip = (x + generator.uniform(-5, 5), y - generator.uniform(5, 16))
        shade = float(generator.uniform(0.6, 1.3))
        draw.line([(x, y), tip], fill=_scaled((92, 142, 62), shade), width=1)
    return scene


def _sofa(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw a sofa's back, two cushions and a seat."""
    cloth = ((150, 70, 66), (78, 98, 138), (150, 132, 108), (86, 112, 100))
    colour = cloth[int(generator.integers(len(cloth)))]
    weave = 0.5 + 0.5 * _noise(generator, width, height, 3)
    scene = _shaded(generator, colour, _scaled(colour, 0.8), weave)
    draw = ImageDraw.Draw(scene)
    seat = round(height * float(generator.uniform(0.6, 0.8)))
    middle = round(width * float(generator.uniform(0.35, 0.65)))
    edge = _scaled(colour, 0.55)
    for left, right in ((-20, middle), (middle, width + 20)):
        draw.rounded_rectangle((left, 12, right, seat), radius=24, outline=edge, width=4)
    draw.line([(0, seat), (width, seat)], fill=edge, width=6)
    return scene


def _sky(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw a sky with clouds above a strip of ground."""
    clouds = _rows(width, height) * 0.5 + 0.8 * _noise(generator, width, height, 60)
    scene = _shaded(generator, (112, 162, 216), (228, 234, 238), clouds)
    horizon = round(height * float(generator.uniform(0.65, 0.9)))
    amount = 0.5 + 0.5 * _noise(generator, width, height - horizon, 12)
    scene.paste(_shaded(generator, (150, 134, 92), (112, 122, 70), amount), (0, horizon))
    return scene


def _room(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw a wall with a picture frame above a wooden floor."""
    walls = ((214, 204, 184), (176, 190, 196), (198, 176, 168), (158, 160, 152))
    wall = walls[int(generator.integers(len(walls)))]
    amount = 0.5 + 0.5 * _noise(generator, width, height, 40)
    scene = _shaded(generator, wall, _scaled(wall, 0.88), amount)
    floor = round(height * float(generator.uniform(0.6, 0.85)))
    grain = 0.5 + 0.5 * _noise(generator, width, height - floor, 6)
    scene.paste(_shaded(generator, (156, 112, 72), (120, 82, 50), grain), (0, floor))
    draw = ImageDraw.Draw(scene)
    for x in range(-width, 2 * width, 46):
        foot = width / 2 + (x - width / 2) * 1.8
        draw.line([(x, floor), (foot, height)], fill=(92, 62, 38), width=2)
    left, top = (int(generator.integers(8, side // 2)) for side in (width, floor))
    frame = (left, top, left + width // 4, top + floor // 4)
    draw.rectangle(frame, fill=_scaled(wall, 1.15), outline=(92, 72, 52), width=4)
    return scene


def _plain(generator: Generator, width: int, height: int) -> Image.Image:
    """Draw a blend of two random colours, out of focus."""
    grey, hue = generator.uniform(70, 210, size=(2, 1)), generator.uniform(-40, 40, size=(2, 3))
    first, second = ((int(red), int(green), int(blue)) for red, green, blue in grey + hue)
    amount = _rows(width, height) + 0.6 * _noise(generator, width, height, 50)
    return _shaded(generator, first, second, amount)


def _lit(generator: Generator, scene: Image.Image) -> Image.Image:
    """Light the whole picture from one side, tint it a little, and add a camera's noise."""
    width, height = scene.size
    angle = float(generator.uniform(0, 2 * np.pi))
    xs, ys = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = (1 + 0.2 * (xs * np.cos(angle) + ys * np.sin(angle))).astype(np.float32)
    tint = generator.uniform(0.9, 1.1) * generator.uniform(0.94, 1.06, size=3).astype(np.float32)
    noise = 4 * generator.standard_normal((height, width, 1), dtype=np.float32)
    pixels = np.asarray(scene, dtype=np.float32) * light[..., None] * tint + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
