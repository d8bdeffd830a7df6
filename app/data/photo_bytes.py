"""A file's bytes, or the reason why there are none; needs no library, so it answers at once."""

from __future__ import annotations

import stat
from pathlib import Path

from app.core.errors import ImageError

# 53 million pixels as RGB, not packed; a film among the photos fills no memory. Decoders copy parts
# of a file once or twice: three times this stays under 512 MiB.
MAX_BYTES = 160_000_000


def read_bytes(path: Path) -> bytes:
    """Read a file's bytes.

    Raises:
        ImageError: when it is missing, unreadable, no regular file, or too large for a photo.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            next(path.iterdir(), None)  # says why if it cannot be listed
            raise ImageError("a folder, not a photo", "unreadable")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could wait for ever
            raise ImageError("not a regular file", "unreadable")
        if status.st_size > MAX_BYTES:
            raise ImageError(
                f"{status.st_size:,} bytes, larger than any photo that is read", "too_costly"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"cannot be read: {reason}", "unreadable") from error
