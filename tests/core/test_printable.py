"""Nothing that a file or a folder is called can command a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import predict
from app.core.cli import run
from app.core.console import say
from app.core.errors import DataError
from app.core.printable import printable
from app.core.run_folder import Run
from app.inference.prediction import Prediction, failed_prediction
from app.report.summary import print_summary

EVIL = "a\x1b[2Jb\x9b31mc\u202egpj.exe\u2066\nd\x07\udcff"
SHOWN = r"a\x1b[2Jb\x9b31mc\u202egpj.exe\u2066\nd\x07\udcff"


def test_controls_and_directions_become_escapes() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("猫 1×1 – ok.jpg") == "猫 1×1 – ok.jpg"


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> int:
        raise DataError(f"received {EVIL}")

    run(fail, [])
    assert capsys.readouterr().err == "error: received " + SHOWN.replace(r"\n", " ") + "\n"


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"skipped {EVIL}: text")
    assert capsys.readouterr().err == f"skipped {SHOWN}: text\n"


def test_the_table_of_answers(capsys: pytest.CaptureFixture[str]) -> None:
    write = predict.Output("table", [EVIL, "dog"], [EVIL])
    write(Prediction(EVIL, EVIL, {EVIL: 0.75, "dog": 0.25}, 0.1, None))
    write(failed_prediction(EVIL, EVIL))
    out = capsys.readouterr().out
    assert out == f"{SHOWN}  {SHOWN}   75.0%\n{SHOWN}  {'-':{len(SHOWN)}}  {SHOWN}\n"


def test_answers_as_csv_are_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    write = predict.Output("csv", ["=cat", "dog"], ["=1"])
    write(Prediction("=1", "=cat", {"=cat": 0.75, "dog": 0.25}, 0.1, None))
    write(failed_prediction("-a.jpg", "@reason"))
    assert capsys.readouterr().out.splitlines() == [
        "path,label,p_=cat,p_dog,novelty,error",
        "'=1,'=cat,0.75,0.25,0.1,",
        "'-a.jpg,,,,,'@reason",
    ]


def test_the_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    test = SimpleNamespace(accuracy=1.0, accuracy_interval_95=(0.9, 1.0), log_loss=0.1, n=9)
    metrics = SimpleNamespace(stages=(), test=test, seconds={"total": 1.0})
    monkeypatch.setattr(Run, "read_metrics", lambda _: metrics)
    print_summary(Run(Path("x\x1b[2J") / "y\u202e"))
    out = capsys.readouterr().out
    assert "\u202e" not in out
    assert "\x1b[2J" not in out
    assert r"x\x1b[2J/y\u202e".replace("/", "\\" if sys.platform == "win32" else "/") in out
