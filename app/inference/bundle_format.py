"""The bundle's description: what ``bundle.json`` says, for the writer and the reader alike."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from app.core.atomic_files import write_json
from app.core.errors import BundleError
from app.core.labels import RESERVED
from app.core.run_folder import DESCRIPTION_FILE

FORMAT_VERSION = 3
AGAIN = "train again, or use the version of this project that wrote it"
CONFIDENCE, NOVELTY = "confidence", "novelty"  # the names of the thresholds
ONNX_FILE, INT8_FILE, KERAS_FILE = "model.onnx", "model.int8.onnx", "classifier.keras"


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
    classes: tuple[str, ...]
    image_size: int
    temperature: float
    thresholds: dict[str, float]
    sha256: dict[str, str]
    versions: dict[str, str]
    why_no_int8: str

    @property
    def has_int8(self) -> bool:
        """Say whether there is a ``model.int8.onnx``."""
        return INT8_FILE in self.sha256

    def write(self, folder: Path) -> None:
        """Write ``bundle.json`` into ``folder``."""
        write_json(dataclasses.asdict(self), folder / DESCRIPTION_FILE)

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
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["format_version"]
            if version != FORMAT_VERSION:
                newer = isinstance(version, int) and version > FORMAT_VERSION
                raise BundleError(
                    f"expected a bundle of format version {FORMAT_VERSION}; received {version!r} "
                    f"in {path}; "
                    + (f"get a version of this project that reads {version}" if newer else AGAIN)
                )
            if type(values["classes"]) is not list:
                raise ValueError("classes makes no sense")
            bundle = cls(**{**values, "classes": tuple(values["classes"])})
            if fault := _fault(bundle):
                raise ValueError(f"{fault} makes no sense")
            return bundle
        except FileNotFoundError:
            raise BundleError(
                f"expected a bundle ({ONNX_FILE}, {DESCRIPTION_FILE}); received {folder}, which "
                "has none; train.py makes one: python train.py --data DIR"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(
                f"expected a readable {path}; received a damaged one ({error}); train again"
            ) from error

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


def _fault(bundle: Bundle) -> str:
    """Name the first field of a foreign ``bundle.json`` that cannot be right; empty when all can.

    Values are looked at by type: JSON may hold anything, and ``True`` would pass for a number.
    """
    names, size, temperature = bundle.classes, bundle.image_size, bundle.temperature
    digests = bundle.sha256
    right = {
        "classes": all(type(name) is str and name for name in names)
        and len(set(names)) == len(names) >= 2
        and not RESERVED & set(names),
        "image_size": type(size) is int and 1 <= size <= 10_000,
        "temperature": _is_number(temperature) and temperature > 0,
        "thresholds": type(bundle.thresholds) is dict
        and set(bundle.thresholds) == {CONFIDENCE, NOVELTY}
        and all(map(_is_number, bundle.thresholds.values())),
        "sha256": type(digests) is dict
        and ONNX_FILE in digests
        and all(map(_is_plain_name, digests))
        and all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests.values()),
        "versions": type(bundle.versions) is dict
        and all(type(version) is str for version in bundle.versions.values()),
        "why_no_int8": type(bundle.why_no_int8) is str,
    }
    return next((field for field, holds in right.items() if not holds), "")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(str(value)))


def _is_plain_name(name: str) -> bool:
    """Say whether a file name stays in its folder on every system."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
