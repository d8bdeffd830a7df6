"""The design's rules about who imports whom, and what is imported at all."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APP = sorted((ROOT / "app").rglob("*.py"))
SOURCES = [
    *APP,
    ROOT / "train.py",
    ROOT / "predict.py",
    *sorted((ROOT / "benchmarks").glob("*.py")),
]
# Package names that differ from what is imported.
PACKAGES = {"IPython": "ipython", "PIL": "pillow", "sklearn": "scikit-learn"}


def imports(path: Path, *, when_loaded: bool = False) -> set[str]:
    """All modules that a file imports, anywhere in it, or only those when it is itself imported."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if when_loaded else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_keras_stays_neutral(path):
    """Contract 11."""
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"tensorflow", "torch", "jax", "tf2onnx"}


# app.features is to follow; app.report reads the names of settings.
WITH_SETTINGS = {"core", "features", "report"}


def test_settings_stop_at_the_door():
    """Packages below ``app.experiment`` take the few values that they need."""
    for path in APP:
        if path.parent.name not in {"app", *WITH_SETTINGS}:
            assert "app.core.config.TrainConfig" not in imports(path), path


def listed(requirements: str) -> set[str]:
    text = (ROOT / requirements).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+)", text, re.MULTILINE))


def packages(modules: set[str]) -> set[str]:
    """The packages of modules that are neither ours nor Python's."""
    tops = {name.split(".")[0] for name in modules} - {"app", "benchmarks", "train", "__future__"}
    return {
        PACKAGES.get(top, top.replace("_", "-"))
        for top in tops
        if top not in sys.stdlib_module_names
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_everything_imported_is_a_listed_requirement(path):
    """What only a flag needs is listed apart, and imported only where that flag was given."""
    always = listed("requirements-base.in")  # no backend is imported
    assert packages(imports(path)) <= always | listed("requirements-extra.in")
    assert packages(imports(path, when_loaded=True)) <= always


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "predict, train, app.serving.serve, app.scoring.score, app.scoring.sort",
            {"numpy", "starlette"},
        ),
        ("app.inference.predictor", {"keras", "scipy"}),
        (
            "app.data.decode, app.evaluation.metrics, app.features.cache_command, app.pipeline, "
            "app.serving.service",
            {"keras"},
        ),
    ],
)
def test_nothing_heavy_comes_along(modules, absent):
    """Contract 12; one process loads all of them, because none may bring what is absent."""
    code = f"import sys, {modules}; print({{m.split('.')[0] for m in sys.modules}} & {absent!r})"
    assert run_python("-c", code).stdout.strip() == "set()"


def test_no_registry_host_and_no_machine_path_is_named():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    words = ["index-" + "url http", "pypi." + "org", "files.python" + "hosted", "/wo" + "rk/main"]
    for name in tracked:
        path = ROOT / name
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        assert not [word for word in words if word in text], name


@pytest.mark.parametrize("module", ["predict", "app.inference.predictor"])
def test_onnx_runtime_sends_nothing_and_keeps_no_number(module, tmp_path):
    """It writes a device's number into the home folder and asks for a server, if it may.

    Everything of ours forbids it in ``app/__init__.py``.
    """
    code = (
        f"import {module}, onnxruntime, numpy as np, onnx, onnx.helper as h; "
        "x, y = (h.make_tensor_value_info(n, 1, [1]) for n in 'xy'); "
        "m = h.make_model(h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', [x], [y]), "
        "ir_version=8, opset_imports=[h.make_opsetid('', 17)]); "
        "onnxruntime.InferenceSession(m.SerializeToString()).run(None, {'x': np.ones(1, 'f4')})"
    )
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=home, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [
        path for path in tmp_path.rglob("*") if "onnx" in path.name or path.name == ".ses"
    ] == []
