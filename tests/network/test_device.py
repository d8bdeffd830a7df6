import keras
import pytest

import app.core.environment
import app.network.device
from app.core.errors import UsageError
from app.network.device import resolve_precision


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine: its backend, where that computes, and what its processor knows."""

    def pretend(backend: str, device: str, flags: str = "", capability: float = 0.0) -> None:
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        monkeypatch.setattr(app.network.device, "device_name", lambda: device)
        monkeypatch.setattr(
            app.core.environment, "cpu_info", {"flags": flags, "Features": ""}.__getitem__
        )
        monkeypatch.setattr(app.network.device, "_compute_capability", lambda: capability)

    return pretend


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
@pytest.mark.parametrize(
    ("flags", "expected"), [("avx2 avx512_bf16", "bfloat16"), ("avx2 avx512f", "float32")]
)
def test_auto_follows_the_instructions_of_the_processor(machine, backend, flags, expected):
    machine(backend, "cpu (some)", flags)
    assert resolve_precision("auto") == expected
    assert resolve_precision("bfloat16") == "bfloat16"  # emulated, if need be
    assert resolve_precision("float32") == "float32"


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
@pytest.mark.parametrize(("capability", "expected"), [(8.0, "bfloat16"), (7.5, "float32")])
def test_auto_follows_the_generation_of_the_gpu(machine, backend, capability, expected):
    machine(backend, "gpu (cuda:0)", capability=capability)
    assert resolve_precision("auto") == expected
    assert resolve_precision("bfloat16") == "bfloat16"


def test_jax_computes_in_float32_on_a_processor(machine):
    machine("jax", "cpu (some)", "avx512_bf16")
    assert resolve_precision("auto") == resolve_precision("float32") == "float32"
    with pytest.raises(UsageError, match="under jax on a processor; received bfloat16, which"):
        resolve_precision("bfloat16")
