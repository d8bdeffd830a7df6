"""Which backend Keras will load, told before the seconds that loading one takes."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

from app.errors import UsageError

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
