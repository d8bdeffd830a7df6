"""What an unfinished run keeps so that it can go on: records that prove themselves whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.atomic_files import whole
from app.core.console import say

_VALUES = "values"  # the name of the JSON among the arrays
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Record:
    """One record: values as JSON knows them, and arrays in their order."""

    values: dict[str, Any]
    arrays: list[NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """Records by name in a folder, each a file of its own: a SHA-256, then ``.npz`` data.

    A record appears whole or not at all, in place of an older one of that name. The zip format's
    own checksums do not suffice: of its directory some bits can turn unseen.

    Attributes:
        folder: made with the first record; None keeps nothing.
    """

    folder: Path | None

    def save(self, name: str, values: dict[str, Any], arrays: Iterable[NDArray[Any]] = ()) -> None:
        """Write a record; after an error, a full disk, say, the older one is still there."""
        if self.folder is None:
            return
        text = np.frombuffer(json.dumps(values).encode(), np.uint8)
        numbered = {str(number): array for number, array in enumerate(arrays)}
        with whole(_path(self.folder, name)) as temporary, temporary.open("w+b") as file:
            file.write(bytes(_DIGEST_BYTES))
            np.savez(file, allow_pickle=False, **{_VALUES: text}, **numbered)
            digest = _digest(file)
            file.seek(0)
            file.write(digest)

    def load(self, name: str) -> Record | None:
        """Return a record; None when there is none, or a damaged one, which is said."""
        if self.folder is None:
            return None
        path = _path(self.folder, name)
        try:
            with path.open("rb") as file:
                told = file.read(_DIGEST_BYTES)
                if told != _digest(file):
                    say(f"{path} is damaged; what it kept is computed again")
                    return None
                file.seek(_DIGEST_BYTES)
                with np.load(file, allow_pickle=False) as parts:
                    text = parts[_VALUES].tobytes()
                    arrays = [parts[str(number)] for number in range(len(parts.files) - 1)]
                    return Record(json.loads(text), arrays)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a record, if there is one."""
        if self.folder is not None:
            _path(self.folder, name).unlink(missing_ok=True)


KEEP_NOTHING = Checkpoint(None)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.record"


def _digest(file: BufferedReader | BufferedRandom) -> bytes:
    """Return the SHA-256 of what stands behind the digest's own place."""
    file.seek(_DIGEST_BYTES)
    return hashlib.file_digest(file, "sha256").digest()
