"""What is installed and what the processor can do, known without loading anything."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from app.core.errors import UsageError

BACKENDS = ("tensorflow", "torch", "jax")  # those that train
NO_BFLOAT16 = (
    "expected --precision auto or float32 under jax on a processor; received bfloat16, which is no "
    "faster there and gives NaN with some versions; KERAS_BACKEND=tensorflow or torch can do it"
)
_VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}  # multiply 8-bit numbers and add up in 32 bits


def require_backend() -> None:
    """Refuse to begin where Keras has no backend to train with.

    Raises:
        UsageError: when the chosen backend is none of ``BACKENDS`` or is not installed.
    """
    chosen = chosen_backend()
    if chosen in BACKENDS and find_spec(chosen):
        return
    installed = [name for name in BACKENDS if find_spec(name)]
    wrong = "which is not installed" if chosen in BACKENDS else "which cannot train"
    mend = (
        f"choose one that is: KERAS_BACKEND={installed[0]}"
        if installed
        else "python -m pip install -r requirements.txt"
    )
    raise UsageError(
        f"expected a backend of Keras out of {', '.join(BACKENDS)}; received {chosen}, {wrong}; "
        f"{mend}"
    )


def require_package(package: str, what_for: str, otherwise: str = "") -> None:
    """Refuse to begin where a package is not installed.

    Args:
        package: its name for pip.
        what_for: what needs it.
        otherwise: what else helps.

    Raises:
        UsageError: with the command that installs it.
    """
    if find_spec(package.replace("-", "_")) is None:
        raise UsageError(
            f"expected the package {package} for {what_for}; received a Python without it; "
            f"python -m pip install {package}{otherwise}"
        )


def require_engine(engine: str) -> None:
    """Refuse what runs models, ``onnxruntime`` or ``openvino``, where it is not installed.

    Raises:
        UsageError: with the command that installs it.
    """
    if engine != "auto":
        require_package(engine, f"--engine {engine}", ", or leave --engine out")


def require_precision(precision: str) -> None:
    """Refuse bfloat16 under JAX on a processor, as ``app.network.device.resolve_precision`` will.

    Where a plugin may give JAX a GPU it is not refused yet: only JAX itself knows.

    Raises:
        UsageError: when that is what would be computed with.
    """
    if precision == "bfloat16" and chosen_backend() == "jax" and not jax_may_have_gpu():
        raise UsageError(NO_BFLOAT16)


def jax_may_have_gpu() -> bool:
    """Return whether JAX could find a GPU: it is not limited to the processor and has a plugin."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    # JAX's own package computes on processors; for anything else it looks in these places.
    return bool(
        find_spec("jax_plugins")
        or entry_points(group="jax_plugins")
        or os.environ.get("PJRT_NAMES_AND_LIBRARY_PATHS")
    )


def chosen_backend() -> str:
    """Return the backend's name as Keras finds it: ``KERAS_BACKEND``, else ``keras.json``."""
    if named := os.environ.get("KERAS_BACKEND"):
        return named
    try:
        settings = (keras_home() / "keras.json").read_text(encoding="utf-8")
        return str(json.loads(settings)["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def keras_home() -> Path:
    """Return the folder of Keras's settings and downloads; it may not exist yet."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()


def other_versions(backend: str, versions: Mapping[str, str]) -> str:
    """Return what a run was made with and what is here instead, in words; empty if all is equal."""
    made = {"backend": backend, **versions}
    now = {name: installed_version(name) for name in versions} | {"backend": chosen_backend()}
    return ", ".join(
        f"{name} {old} (now {now[name]})" for name, old in made.items() if old != now[name]
    )


def installed_version(name: str) -> str:
    """Return the version of Python or of a library."""
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:  # tensorflow-cpu and the like bring the module by another name
        return "unknown"


def has_vnni() -> bool:
    """Return whether an x86 processor has instructions for int8.

    Without them int8 is slow, and wrong where two products of full 8-bit numbers are added up in
    16 bits. Outside Linux NumPy tells, which does not know AVX-VNNI, that of processors without
    AVX-512.
    """
    if flags := cpu_info("flags"):
        return bool(_VNNI_FLAGS & set(flags.split()))
    return _known_to_numpy("AVX512VNNI")


def has_dot_product() -> bool:
    """Return whether an ARM processor has instructions for int8; int8 was never tried on one."""
    return _known_to_numpy("ASIMDDP")


def _known_to_numpy(feature: str) -> bool:
    """Return whether NumPy finds an instruction set on this processor; NumPy has no public way."""
    try:
        from numpy._core._multiarray_umath import (  # type: ignore[import-not-found]
            __cpu_features__ as found,
        )
    except ImportError:
        return False
    return bool(found.get(feature))


def processor_name() -> str:
    """Return the model of the processor, such as ``AMD EPYC``."""
    return cpu_info("model name") or platform.processor() or platform.machine()


def cpu_info(field: str) -> str:
    """Return a field of Linux's /proc/cpuinfo; empty on other systems."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def usable_cores() -> int:
    """Return on how many processor cores this process may run, 1 or more."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1
