"""Which engine runs a model: measured where that pays, kept, and never one that differs."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import app.inference.engine_choice as choice
import predict
from app.core.cli import run
from app.core.config import EngineName
from app.core.errors import UsageError
from app.inference.engine_choice import (
    WORTH_MEASURING,
    Task,
    choose_engine,
    fastest_times,
    pictures,
    record_path,
    same_answers,
)
from app.inference.engines import CompiledModel, compile_model
from tests.fuzz.bundles import SIZE, description, small_model

TASK = Task(small_model(), "0" * 64, ("probabilities", "novelty"), SIZE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "find_spec", lambda _: True)  # as if OpenVINO were installed
    monkeypatch.setattr(choice.platform, "machine", lambda: "x86_64")
    return tmp_path / "cache"


class Pretended(CompiledModel):
    """ONNX Runtime under the other engine's name: as slow and as wrong as a test wants it."""

    engine = "openvino"
    times = 1  # that it computes
    off = 0.0

    def __init__(self, model: Path | bytes) -> None:
        self.model = compile_model("onnxruntime", model)

    def run(self, images: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[Any]]:
        return [each + self.off for each in self.model.run(images, names)]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[EngineName]:
    """Pretend that there is another engine; give the names of those that were prepared."""
    names: list[EngineName] = []

    def prepare(engine: EngineName, model: Path | bytes) -> CompiledModel:
        names.append(engine)
        return Pretended(model) if engine == "openvino" else compile_model(engine, model)

    monkeypatch.setattr(choice, "compile_model", prepare)
    monkeypatch.setattr(Pretended, "off", 0.0)
    return names


def timed(monkeypatch: pytest.MonkeyPatch, usual: float, other: float) -> None:
    """Let the two engines take so many seconds."""
    monkeypatch.setattr(choice, "fastest_times", lambda works, _: [usual, other][: len(works)])


@pytest.mark.parametrize(
    ("usual", "other", "chosen"),
    [(2.0, 1.0, "openvino"), (1.0, 2.0, "onnxruntime"), (1.04, 1.0, "onnxruntime")],
)
def test_the_fastest_is_taken_said_and_kept(
    compiled: list[EngineName],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    usual: float,
    other: float,
    chosen: str,
) -> None:
    timed(monkeypatch, usual, other)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == chosen
    assert compiled == ["onnxruntime", "openvino"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"engine {chosen}: onnxruntime {500 * usual:.1f}, openvino {500 * other:.1f} ms a "
    )
    kept = json.loads(record_path(TASK.digest).read_text())
    assert kept["engine"] == chosen

    compiled.clear()
    assert choose_engine(lambda: TASK, photos=choice.FEW) == chosen
    assert compiled == []
    assert capsys.readouterr().err == ""


def test_few_photos_load_nothing_else(compiled: list[EngineName], cache: Path) -> None:
    for photos in (1, choice.FEW - 1, WORTH_MEASURING - 1):
        assert choose_engine(lambda: TASK, photos=photos) == "onnxruntime"
    assert compiled == []
    assert not cache.exists()


def test_a_lack_of_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def prepare(engine: EngineName, model: Path | bytes) -> CompiledModel:
        if engine == "openvino":
            raise RuntimeError("std::bad_alloc")
        return compile_model(engine, model)

    monkeypatch.setattr(choice, "compile_model", prepare)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "onnxruntime"
    assert not cache.exists()


@pytest.mark.parametrize("change", ["digest", "processor", "version"])
def test_another_model_processor_or_version_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = record_path(TASK.digest)
    if change == "processor":
        monkeypatch.setattr(choice, "processor_name", lambda: "another one")
    if change == "version":
        monkeypatch.setattr(choice, "installed_version", lambda name: f"{name} of tomorrow")
    assert record_path("1" * 64 if change == "digest" else TASK.digest) != before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": "another"}', "\0"])
def test_a_damaged_record_is_measured_anew(
    compiled: list[EngineName], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    record = record_path(TASK.digest)
    record.parent.mkdir(parents=True)
    record.write_text(text)
    timed(monkeypatch, 2.0, 1.0)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "openvino"
    assert json.loads(record.read_text())["engine"] == "openvino"


def test_a_cache_that_cannot_be_written_is_no_error(
    compiled: list[EngineName], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file")
    timed(monkeypatch, 2.0, 1.0)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "openvino"


@pytest.mark.parametrize("off", [0.1, float("nan")])
def test_what_answers_otherwise_is_not_used(
    compiled: list[EngineName],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    off: float,
) -> None:
    timed(monkeypatch, 2.0, 1.0)
    monkeypatch.setattr(Pretended, "off", off)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "onnxruntime"
    assert "openvino answers otherwise, it is not used" in capsys.readouterr().err


def test_what_cannot_run_the_model_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(engine: EngineName, model: Path | bytes) -> CompiledModel:
        if engine == "openvino":
            raise RuntimeError("an operation\nthat it does not know")
        return compile_model(engine, model)

    monkeypatch.setattr(choice, "compile_model", prepare)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "onnxruntime"
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot run this model (an operation that it does not know)" in line


@pytest.mark.parametrize("why", ["not installed", "ARM"])
def test_elsewhere_nothing_is_measured(
    compiled: list[EngineName], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "ARM":
        monkeypatch.setattr(choice.platform, "machine", lambda: "arm64")
    else:
        monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert choose_engine(lambda: TASK, photos=WORTH_MEASURING) == "onnxruntime"
    assert compiled == []


def test_a_named_engine_is_taken_without_measuring(compiled: list[EngineName]) -> None:
    assert choose_engine(lambda: TASK, "openvino", photos=WORTH_MEASURING) == "openvino"
    assert compiled == []


def test_a_missing_engine_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="pip install openvino"):
        choose_engine(lambda: TASK, "openvino")
    (tmp_path / "model.onnx").write_bytes(small_model())
    (tmp_path / "bundle.json").write_bytes(description(small_model()))
    argv = ["--bundle", str(tmp_path), "--engine", "openvino", __file__]
    assert run(predict.main, argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected the package openvino for --engine openvino; received")


def test_every_work_is_timed_in_turn_and_its_shortest_time_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.chain([0.0], [0.0, 1.0], [1.0, 4.0], [4.0], [4.0, 7.0], [7.0, 9.0], [9.0])
    monkeypatch.setattr(choice.time, "perf_counter", lambda: next(ticks))
    done: list[str] = []
    works = [lambda: done.append("a"), lambda: done.append("b")]
    assert fastest_times(works, 5.0) == [1.0, 2.0]
    assert done == ["a", "b", "a", "b"]


def test_rounding_is_the_same_and_other_answers_are_not() -> None:
    one = [np.asarray([[0.9, 0.1], [0.2, 0.8]], np.float32), np.ones((2, 1), np.float32)]
    assert same_answers(one, [each * 1.01 for each in one])
    assert not same_answers(one, [one[0][:, ::-1], one[1]])
    assert not same_answers(one, [one[0], one[1] * 0.9])
    assert not same_answers(one, [one[0], np.full((2, 1), np.nan, np.float32)])


def test_the_pictures_are_photos_of_a_kind() -> None:
    images = pictures(2, 96)
    assert (images.shape, images.dtype) == ((2, 96, 96, 3), np.uint8)
    assert np.abs(np.diff(images.astype(int), axis=1)).mean() < 0.2 * images.std()
