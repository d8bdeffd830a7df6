import sys

import pytest

import train
from app.backend import BACKENDS, chosen_backend, require_backend
from app.cli import run
from app.errors import UsageError


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
