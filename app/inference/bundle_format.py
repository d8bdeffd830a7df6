"""The bundle's description: what ``bundle.json`` says, for the writer and the reader alike."""

from __future__ import annotations

import errno
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from app.core.errors import BundleError
from app.core.labels import is_reserved
from app.core.records import as_record, read_json, write_record
from app.core.run_folder import DESCRIPTION_FILE

FORMAT_VERSION = 3
AGAIN = "train again, or use the version of this project that wrote it"
CONFIDENCE, NOVELTY = "confidence", "novelty"  # the names of the thresholds
ONNX_FILE, INT8_FILE, KERAS_FILE = "model.onnx", "model.int8.onnx", "classifier.keras"
DAMAGED = "the bundle is damaged: copy it again, or train again"

Name = Annotated[str, Meta(min_length=1)]
# One that stays in its folder on every system.
FileName = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\\:\x00]+\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


@dataclass(frozen=True)
class Bundle:
    """A classifier that describes itself.

    Attributes:
        format_version: of this description; a reader refuses another one.
        classes: names in the order of the probabilities.
        image_size: height and width in pixels that photos are resized to.
        temperature: which the logits of both models are already divided by.
        thresholds: ``novelty``, above which an answer is ``neither``, and ``confidence``, below
            which it is ``unsure``.
        sha256: of each file of the bundle.
        versions: of the libraries that made it.
        why_no_int8: why there is no ``model.int8.onnx``; empty where there is one.
    """

    format_version: int
    classes: Annotated[tuple[Name, ...], Meta(min_length=2)]
    image_size: Annotated[int, Meta(ge=1, le=10_000)]
    temperature: Annotated[float, Meta(gt=0)]
    thresholds: dict[str, float]
    sha256: dict[FileName, Digest]
    versions: dict[str, str]
    why_no_int8: str

    def __post_init__(self) -> None:
        """Refuse what the types of the fields cannot."""
        if len(set(self.classes)) < len(self.classes) or any(map(is_reserved, self.classes)):
            raise ValueError(
                "classes to be different names, none of them neither or unsure; received "
                f"{', '.join(self.classes)}"
            )
        if set(self.thresholds) != {CONFIDENCE, NOVELTY}:
            raise ValueError(
                f"thresholds to be {CONFIDENCE} and {NOVELTY}; received "
                f"{', '.join(self.thresholds) or 'none'}"
            )

    @property
    def has_int8(self) -> bool:
        """Say whether there is a ``model.int8.onnx``."""
        return INT8_FILE in self.sha256

    def write(self, folder: Path) -> None:
        """Write ``bundle.json`` into ``folder``."""
        write_record(self, folder / DESCRIPTION_FILE)

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read and check ``bundle.json``.

        Raises:
            BundleError: when it is missing, damaged, or of another format version; a newer one
                needs a newer version of this project.
        """
        path = folder / DESCRIPTION_FILE
        try:
            _refuse_irregular(path)
            values = read_json(path, BundleError, DAMAGED)
        except FileNotFoundError:
            raise BundleError(
                f"expected a bundle ({ONNX_FILE}, {DESCRIPTION_FILE}); received {folder}, which "
                "has none; train.py makes one: python train.py --data DIR"
            ) from None
        except OSError as error:
            raise BundleError(
                f"expected a readable {path}; received a damaged one ({error}); {DAMAGED}"
            ) from error
        known = FORMAT_VERSION
        version = values.get("format_version", known) if isinstance(values, dict) else known
        if version != known:
            newer = isinstance(version, int) and version > known
            raise BundleError(
                f"expected a bundle of format version {known}; received {version!r} "
                f"in {path}; "
                + (f"get a version of this project that reads {version}" if newer else AGAIN)
            )
        bundle = as_record(values, cls, path, BundleError, DAMAGED, exact=True)
        if ONNX_FILE not in bundle.sha256:
            raise BundleError(f"expected in {path} sha256 to name {ONNX_FILE}; {DAMAGED}")
        return bundle

    def check_file(self, folder: Path, name: str) -> Path:
        """Return the path of a bundle's file after comparing its SHA-256.

        Raises:
            BundleError: when it is missing or was changed.
        """
        path = folder / name
        try:
            _refuse_irregular(path)
            found = file_sha256(path)
        except OSError as error:
            raise BundleError(
                f"expected {path}; received none that can be read ({error.strerror}); train again"
            ) from error
        if found != self.sha256.get(name):
            raise BundleError(
                f"expected {path} with SHA-256 {self.sha256.get(name)}; received {found}: the file "
                "was changed or cut short; copy the bundle again, or train again"
            )
        return path


def _refuse_irregular(path: Path) -> None:
    """Raise ``OSError`` for a pipe or a device: to read it could take for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says so itself
        raise OSError(errno.EINVAL, "not a regular file")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
