import importlib
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import keras
import pytest

import app.core.environment
import app.network.device
import train
from app.core.cli import run
from app.core.environment import (
    BACKENDS,
    chosen_backend,
    cpu_info,
    has_dot_product,
    has_vnni,
    jax_may_have_gpu,
    require_backend,
)
from app.core.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def test_the_environment_decides_then_the_settings_then_the_default(home, monkeypatch):
    assert chosen_backend() == "tensorflow"
    (home / "keras.json").write_text('{"backend": "torch"}')
    assert chosen_backend() == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert chosen_backend() == "jax"


@pytest.mark.parametrize("text", ["", "[]", "{}", "{not json"])
def test_settings_without_a_backend_leave_the_default(home, text):
    (home / "keras.json").write_text(text)
    assert chosen_backend() == "tensorflow"


@pytest.mark.parametrize("name", ["numpy", "tensorflou"])
def test_a_backend_that_cannot_train_is_refused(home, monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(UsageError, match=f"received {name}, which cannot train; choose one that"):
        require_backend()


def test_a_missing_backend_is_one_line_before_any_photo_is_read(home, monkeypatch, capsys):
    for name in BACKENDS[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert run(train.main, ["--data", "no-such-folder", "--runs", str(home / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "received jax, which is not installed; choose one that is: KERAS_" in line


def test_without_any_backend_the_answer_is_to_install_one(home, monkeypatch):
    for name in BACKENDS:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install -r requirements\.txt"):
        require_backend()


# ---- bfloat16 under JAX ----

PLUGIN = "PJRT_NAMES_AND_LIBRARY_PATHS"


@pytest.fixture
def jax(home, monkeypatch):
    """JAX is the backend, installed or not, and nobody has said where it computes."""
    installed = ModuleType("jax")
    installed.__spec__ = ModuleSpec("jax", None)
    monkeypatch.setitem(sys.modules, "jax", installed)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in ("JAX_PLATFORMS", PLUGIN):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def train_in_bfloat16(home: Path) -> int:
    argv = ["--data", str(home / "no-such-folder"), "--runs", str(home / "runs")]
    return run(train.main, [*argv, "--precision", "bfloat16"])


def test_bfloat16_is_refused_at_once_where_jax_has_a_processor_only(home, jax, capsys):
    """Before any photo is read, in the words of ``app.network.device``, which knows later."""
    jax.setenv("JAX_PLATFORMS", "cpu")
    assert train_in_bfloat16(home) == 2
    (line,) = capsys.readouterr().err.splitlines()
    jax.setattr(keras.backend, "backend", lambda: "jax")
    jax.setattr(app.network.device, "device_name", lambda: "cpu (some)")
    with pytest.raises(UsageError) as later:
        app.network.device.resolve_precision("bfloat16")
    assert line == f"error: {later.value}"


@pytest.mark.parametrize(
    ("backend", "platforms"), [("jax", "cuda,cpu"), ("tensorflow", "cpu"), ("tensorflow", "")]
)
def test_bfloat16_is_not_refused_where_it_may_be_right(home, jax, capsys, backend, platforms):
    jax.setenv("KERAS_BACKEND", backend)
    jax.setenv("JAX_PLATFORMS", platforms)
    assert train_in_bfloat16(home) == 2
    assert "no-such-folder" in capsys.readouterr().err


def advertise(folder: Path) -> None:
    information = folder / "some-1.dist-info"
    information.mkdir()
    (information / "entry_points.txt").write_text("[jax_plugins]\nsome = some\n")


def put_into_the_namespace(folder: Path) -> None:
    (folder / "jax_plugins" / "some").mkdir(parents=True)


@pytest.mark.parametrize("install", [advertise, put_into_the_namespace])
def test_a_plugin_may_give_jax_a_gpu(jax, tmp_path, install):
    jax.setattr(sys, "path", [str(tmp_path)])  # nothing is installed
    assert not jax_may_have_gpu()
    install(tmp_path)
    importlib.invalidate_caches()
    assert jax_may_have_gpu()


def test_a_plugin_may_be_named_in_the_environment(jax, tmp_path):
    jax.setattr(sys, "path", [str(tmp_path)])
    jax.setenv(PLUGIN, "some:/some.so")
    assert jax_may_have_gpu()


def test_telling_it_loads_no_backend(home):
    code = (
        "import sys, app.core.environment as b; b.jax_may_have_gpu(); "
        "b.require_precision('bfloat16'); "
        "print({'keras', 'jax', 'tensorflow', 'jax_plugins'} & set(sys.modules))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "set()"


# ---- instructions for int8 ----


def test_numpy_and_linux_say_the_same_of_this_processor(monkeypatch):
    """NumPy's way to tell is a private one: a version that changes it is noticed here."""
    flags = set(cpu_info("flags").split())
    if not flags:
        pytest.skip("Linux tells of x86 processors only")
    for feature, flag in (("AVX512VNNI", "avx512_vnni"), ("AVX2", "avx2"), ("SSE42", "sse4_2")):
        assert app.core.environment._known_to_numpy(feature) == (flag in flags)


@pytest.mark.parametrize(
    ("flags", "known", "vnni", "dot_product"),
    [
        ("avx2 avx_vnni", {}, True, False),
        ("avx2 avx512_vnni", {}, True, False),
        ("avx2", {"AVX512VNNI"}, False, False),  # the system knows better
        ("", {"AVX512VNNI"}, True, False),
        ("", {"AVX2"}, False, False),
        ("", {"ASIMD", "ASIMDDP"}, False, True),
    ],
)
def test_int8_is_found_on_every_system(monkeypatch, flags, known, vnni, dot_product):
    monkeypatch.setattr(app.core.environment, "cpu_info", lambda _: flags)
    monkeypatch.setattr(app.core.environment, "_known_to_numpy", lambda name: name in known)
    assert (has_vnni(), has_dot_product()) == (vnni, dot_product)


def test_a_numpy_that_does_not_tell_is_no_error(monkeypatch):
    monkeypatch.setattr(app.core.environment, "cpu_info", lambda _: "")
    monkeypatch.setitem(sys.modules, "numpy._core._multiarray_umath", None)
    assert not has_vnni()
