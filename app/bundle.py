"""The bundle's description: what ``bundle.json`` says, for the writer and the reader alike."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from app.atomic import write_json
from app.errors import BundleError

FORMAT_VERSION = 2
CONFIDENCE, NOVELTY = "confidence", "novelty"  # the names of the thresholds
STRANGE = 0.5  # the novelty from which on something is a stranger, by its construction
ONNX_FILE, KERAS_FILE, DESCRIPTION_FILE = "model.onnx", "classifier.keras", "bundle.json"


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
    """

    format_version: int
    classes: tuple[str, ...]
    image_size: int
    temperature: float
    thresholds: dict[str, float]
    sha256: dict[str, str]
    versions: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write ``bundle.json`` into ``folder``."""
        write_json(dataclasses.asdict(self), folder / DESCRIPTION_FILE)

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read and check ``bundle.json``.

        Raises:
            BundleError: when it is missing, damaged, or of another format version.
        """
        path = folder / DESCRIPTION_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["format_version"]
            if version != FORMAT_VERSION:
                raise BundleError(
                    f"expected a bundle of format version {FORMAT_VERSION}; received {version} in "
                    f"{path}; train again, or use the version of this project that wrote it"
                )
            bundle = cls(**{**values, "classes": tuple(values["classes"])})
            if len(bundle.classes) < 2 or not 1 <= bundle.image_size <= 10_000:
                raise ValueError("classes or image_size make no sense")
            return bundle
        except FileNotFoundError:
            raise BundleError(
                f"expected a bundle ({ONNX_FILE}, {DESCRIPTION_FILE}); received {folder}, which "
                "has none; train.py makes one: python train.py --data DIR"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
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
            found = file_sha256(path)
        except OSError as error:
            raise BundleError(
                f"expected {path}; received none ({error.strerror}); train again"
            ) from error
        if found != self.sha256.get(name):
            raise BundleError(
                f"expected {path} with SHA-256 {self.sha256.get(name)}; received {found}: the file "
                "was changed or cut short; copy the bundle again, or train again"
            )
        return path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
