"""What this machine computes on: processor or GPU, and whether bfloat16 is worth its rounding."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
from typing import Any

import keras

from app.core import environment
from app.core.config import Precision
from app.core.console import quiet_native_stderr
from app.core.environment import NO_BFLOAT16, jax_may_have_gpu
from app.core.errors import UsageError

# Instructions that multiply bfloat16; without them it is emulated and gains nothing (measured on
# Zen 3: 274 against 263 ms a photo, ``python -m benchmarks.frozen``).
BFLOAT16_CAPABILITY = 8.0  # Ampere; NVIDIA's older GPUs emulate it, as Apple's may
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# On a processor JAX gains nothing by it (Zen 5, 128 pixels, seconds of processor time for 16 photos
# through VGG16: 1.07 against 1.02 in float32; TensorFlow 0.35 against 0.68, PyTorch 1.02 against
# 2.06), and jaxlib 0.11.2 to 0.12.0.1 make NaN of seven convolutions and three poolings under jit;
# 0.11.0 and 0.11.1 do not.
_ONLY_FLOAT32 = {"jax"}

# Take GPU memory as it is needed, not nearly all of it at once: others use the GPU too. TensorFlow
# and JAX read these when they place their first tensor, which importing Keras does not do; PyTorch
# needs nothing. Whoever set one of them knows better.
MEMORY_GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def let_memory_grow() -> None:
    """Set the variables of ``MEMORY_GROWTH`` that are not set; done when this file is imported."""
    for name, value in MEMORY_GROWTH.items():
        os.environ.setdefault(name, value)


let_memory_grow()


def compute_deterministically() -> None:
    """Let the backend give the same numbers for the same input, bit for bit, every time.

    To be called before anything is computed. On processors all three do so anyway; on a GPU they
    take other algorithms, slower ones.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        _loaded(name).config.experimental.enable_op_determinism()
    elif name == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS demands
        _loaded(name).use_deterministic_algorithms(True)
    elif jax_may_have_gpu():
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def _loaded(backend: str) -> Any:
    """Return the module of the backend, which Keras has loaded."""
    return importlib.import_module(backend)


def keep_compiled() -> None:
    """Let JAX keep what it compiles for a GPU in Keras's folder, so that the next run need not."""
    if keras.backend.backend() == "jax" and on_gpu():
        folder = environment.keras_home() / "compiled_by_jax"
        _loaded("jax").config.update("jax_compilation_cache_dir", str(folder))


def share_batches(devices: int) -> None:
    """Let several devices of one kind share each batch, half the photos on each of two, say.

    To be called before a network is built. JAX only: under Keras 3 TensorFlow's way has open
    faults, and PyTorch's needs a process for each device.

    Args:
        devices: how many; ``ALL_DEVICES`` for all that there are.

    Raises:
        UsageError: when there are fewer, or under another backend.
    """
    if devices == 1:
        return
    if (backend := keras.backend.backend()) != "jax":
        raise UsageError(
            f"expected --devices 1 under {backend}; received another number; set KERAS_BACKEND=jax"
        )
    found = keras.distribution.list_devices()
    if devices > len(found):
        raise UsageError(
            f"expected --devices from 1 to {len(found)}, as many as JAX finds; received {devices}"
        )
    used = found[: devices or len(found)]
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=used, auto_shard_dataset=False)
    )


def device_name() -> str:
    """Return where Keras puts tensors, and on a processor its model, such as ``cpu (AMD EPYC)``."""
    with quiet_native_stderr():
        placed = str(keras.ops.zeros(1).device).lower()  # every backend's tensors know their device
    if any(word in placed for word in ("gpu", "cuda", "mps")):
        return f"gpu ({placed})"
    name = environment.cpu_info("model name") or platform.processor() or platform.machine()
    return f"cpu ({name})"


def on_gpu() -> bool:
    """Say whether Keras computes on a GPU."""
    return device_name().startswith("gpu")


def resolve_precision(precision: Precision) -> str:
    """Return the arithmetic of the layers that are trained: ``float32`` or ``bfloat16``.

    ``auto`` and ``int8``, which is for frozen layers only, become ``bfloat16`` where the device and
    the backend compute faster in it.

    Raises:
        UsageError: when bfloat16 is asked for where the backend cannot be trusted with it.
    """
    backend = keras.backend.backend()
    if backend in _ONLY_FLOAT32 and precision != "float32" and not on_gpu():
        if precision == "bfloat16":
            raise UsageError(NO_BFLOAT16)
        return "float32"
    if precision in ("float32", "bfloat16"):
        return precision
    if on_gpu():
        return "bfloat16" if _compute_capability() >= BFLOAT16_CAPABILITY else "float32"
    flags = set((environment.cpu_info("flags") or environment.cpu_info("Features")).split())
    return "bfloat16" if _BFLOAT16_FLAGS & flags else "float32"


def resolve_frozen_precision(precision: Precision) -> str:
    """Return the arithmetic of the layers that stay frozen: the trained ones', or ``int8``.

    ``auto`` takes int8 on a processor that has VNNI instructions.

    Raises:
        UsageError: as ``resolve_precision``, or when int8 is asked for on a GPU.
    """
    if precision == "int8" and on_gpu():
        raise UsageError(
            "expected --precision auto, float32 or bfloat16 on a GPU; received int8, which is "
            "computed on processors only"
        )
    if precision == "int8" or (precision == "auto" and environment.has_vnni() and not on_gpu()):
        return "int8"
    return resolve_precision(precision)


def _compute_capability() -> float:
    """Return the lowest compute capability of the NVIDIA GPUs here; 0 when it cannot be told."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return min(float(line) for line in told.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0.0
