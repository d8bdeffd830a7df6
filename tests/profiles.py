"""Colour profiles made here (ICC.1): RGB by primaries, grey by its gamma, CMYK by a table."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import numpy as np

D50 = np.array([0.9642, 1, 0.8249])
P3 = [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]
SRGB = [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)]


def rgb_profile(primaries: Sequence[tuple[float, float]] = P3, gamma: float = 2.2) -> bytes:
    """Return a profile of three primaries (x, y) with white D65, adapted to D50."""

    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1, (1 - x - y) / y]

    bradford = np.array([
        [0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296],
    ])  # fmt: skip
    white = np.array(xyz(0.3127, 0.3290))
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ D50) / (bradford @ white)) @ bradford
    columns = np.array([xyz(*one) for one in primaries]).T
    matrix = adapt @ (columns * np.linalg.solve(columns, white))
    tags = {
        b"%cXYZ" % c: b"XYZ \0\0\0\0" + _s15(column)
        for c, column in zip(b"rgb", matrix.T, strict=True)
    }
    return _profile(b"mntrRGB XYZ ", tags | {b"%cTRC" % c: _gamma(gamma) for c in b"rgb"})


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntrGRAYXYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile(lightest: int = 255, points: int = 2) -> bytes:
    """Return a profile in which ink takes Lab's lightness (0 to 255), and no colour is left."""
    table = bytes(
        value
        for c, m, y, k in itertools.product(range(points), repeat=4)
        for value in (round(lightest * (1 - max(c, m, y, k) / (points - 1))), 128, 128)
    )
    unit = _s15([1, 0, 0, 0, 1, 0, 0, 0, 1])
    line = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, points, 0]) + unit + line * 4 + table + line * 3
    return _profile(b"prtrCMYKLab ", {b"A2B0": lut})


def _profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78),
        b"cprt": b"text\0\0\0\0no\0",
        b"wtpt": b"XYZ \0\0\0\0" + _s15(D50),
    } | tags
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI12s12s4s", start + len(body), b"lcms", 0x02400000, kind, b"", b"acsp")
    return head + bytes(28) + _s15(D50) + bytes(48) + table + body


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _s15(values: Sequence[float] | np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
