"""Which backend Keras will load and what it refuses, told before the seconds that loading takes."""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from app.core.errors import UsageError

BACKENDS = ("tensorflow", "torch", "jax")  # those that train


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


def require_precision(precision: str) -> None:
    """Refuse bfloat16 under JAX on a processor, as ``app.network.device.resolve_precision`` will.

    Where a plugin may give JAX a GPU nothing is said yet: only JAX itself can tell.

    Raises:
        UsageError: when that is what would be computed with.
    """
    if precision == "bfloat16" and chosen_backend() == "jax" and not jax_may_have_gpu():
        raise UsageError(
            "expected --precision auto or float32 under jax on a processor; received bfloat16, "
            "which is no faster there and gives NaN with some versions; "
            "KERAS_BACKEND=tensorflow or torch knows it"
        )


def jax_may_have_gpu() -> bool:
    """Say whether JAX could find a GPU: it is not told to do without, and has a plugin for one."""
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
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    try:
        settings = (keras_home() / "keras.json").read_text(encoding="utf-8")
        return str(json.loads(settings)["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def keras_home() -> Path:
    """Return the folder of Keras's settings and downloads; it may not exist yet."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
