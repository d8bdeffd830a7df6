"""libtiff prints a line on stderr for every oddity of a file; Pillow raises, but lets it print."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
from collections.abc import Iterator
from pathlib import Path

import PIL


@functools.cache
def silence() -> None:
    """Let the libtiff that Pillow uses say nothing; what is wrong comes as an exception as well.

    Where Pillow has it built in (Windows), there is no way to reach it, and nothing happens.
    """
    for path in _libraries():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
                setter(None)


def _libraries() -> Iterator[str]:
    """Yield where libtiff may lie: with a wheel of Pillow, or in the system."""
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        yield from map(str, folder.glob("libtiff*"))
    found = ctypes.util.find_library("tiff")
    if found:
        yield found
