"""No road by which a file could bring code along (SECURITY.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    ROOT / "train.py",
    ROOT / "predict.py",
    *(
        path
        for folder in ("app", "benchmarks", "notebooks")
        for path in (ROOT / folder).rglob("*.py")
    ),
]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen",
    "torch.load", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle",
    "keras.config.enable_unsafe_deserialization", "enable_unsafe_deserialization",
}  # fmt: skip


def dangers(source: str) -> list[str]:
    """Return what in a source could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in CALLS else []
            for word in node.keywords:
                allowed = {"allow_pickle": False, "safe_mode": True, "shell": False}
                if word.arg in allowed and (
                    not isinstance(word.value, ast.Constant)
                    or word.value.value is not allowed[word.arg]
                ):
                    found.append(ast.unparse(word))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_code_out_of_a_file(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "flag = True\nload('a', allow_pickle=flag)",
        "keras.saving.load_model('a', safe_mode=False)",
        "torch.load('a')",
        "yaml.load(text)",
        "eval('1')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_them(source: str) -> None:
    assert dangers(source)


def test_a_keras_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    """The bundle is read back with Keras's default, which is safe mode."""
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(image))
    model.save(tmp_path / "evil.keras")
    with pytest.raises(ValueError, match=r"(?i)lambda.*unsafe|safe_mode"):
        keras.saving.load_model(tmp_path / "evil.keras", compile=False)
