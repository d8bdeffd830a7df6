"""Nothing that a file or a folder is called can act where it is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import app.data.sets.fetch
import app.report.report
import predict
import train
from app.core.cli import run
from app.core.console import say
from app.core.errors import DataError
from app.core.run_folder import Run
from app.core.sanitise import for_json, for_terminal, shown
from app.inference.prediction import Prediction, failed_prediction
from app.report.report import print_summary

EVIL = "a\x1b[2Jb\x9b31mc\u202egpj.exe\u2066\nd\x07\udcff"
SHOWN = r"a\x1b[2Jb\x9b31mc\u202egpj.exe\u2066\nd\x07\udcff"


def test_controls_and_directions_become_escapes() -> None:
    assert for_terminal(EVIL) == SHOWN
    assert for_terminal("猫 1×1 – ok.jpg") == "猫 1×1 – ok.jpg"


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
    write(Prediction(EVIL, EVIL, {EVIL: 0.95, "dog": 0.05}, 0.1, None))
    write(Prediction(EVIL, EVIL, {EVIL: 0.9999, "dog": 0.0001}, 0.1, None))
    write(Prediction(EVIL, "neither", {EVIL: 0.75, "dog": 0.25}, 0.9, None))
    write(failed_prediction(EVIL, EVIL))
    width = predict.WIDEST
    rows = [
        (f"probably {SHOWN}", "  95.0 %"),
        (f"surely {SHOWN}", "> 99.9 %"),
        (f"neither {SHOWN} nor dog", "novelty 0.90"),
        ("-", SHOWN),
    ]
    out = capsys.readouterr().out
    assert out == "".join(f"{SHOWN}  {words:{width}}  {rest}\n" for words, rest in rows)


def test_answers_as_csv_are_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    write = predict.Output("csv", ["=cat", "dog"], ["=1"])
    write(Prediction("=1", "=cat", {"=cat": 0.75, "dog": 0.25}, 0.1, None))
    write(failed_prediction("-a.jpg", "@reason"))
    assert capsys.readouterr().out.splitlines() == [
        '"path","label","p_=cat","p_dog","novelty","error"',
        '"\'=1","\'=cat",0.75,0.25,0.1,""',
        '"\'-a.jpg","","","","","\'@reason"',
    ]


def test_csv_on_a_terminal_commands_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as app.core.cli
    answer = Prediction(EVIL, "dog", {EVIL: 0.25, "dog": 0.75}, 0.1, None)
    predict.Output("csv", [EVIL, "dog"], [EVIL])(answer)
    assert "\x1b[2J" in capsys.readouterr().out, "a file gets names as they are"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    predict.Output("csv", [EVIL, "dog"], [EVIL])(answer)
    header, row = capsys.readouterr().out.splitlines()
    assert header == f'"path","label","p_{SHOWN}","p_dog","novelty","error"'
    assert row == f'"{SHOWN}","dog",0.25,0.75,0.1,""'


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (predict.main, train.main, app.report.report.main, app.data.sets.fetch.main):
        assert run(main, ["--no-such", EVIL, EVIL]) == 2
        error = capsys.readouterr().err
        assert error.replace("\n", "").isprintable()
        assert "error: " in error


def test_pages_show_what_would_act() -> None:
    assert shown(EVIL) == SHOWN.replace(r"\udcff", "\ufffd").replace(r"\n", "\n")
    assert shown("\ud800") == "\ufffd"
    joined = "\u0645\u200c\u0646 \U0001f469\u200d\U0001f692"
    assert shown(joined) == joined, "joiners belong to words and emoji"


def test_json_is_ascii_and_comes_back() -> None:
    written = for_json({EVIL: EVIL})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {EVIL: EVIL}
    with pytest.raises(ValueError, match="JSON"):
        for_json(float("nan"))


def test_the_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = SimpleNamespace(stages=[], seconds={"total": 1.0}, corrections=None)
    monkeypatch.setattr(Run, "read_metrics", lambda _: metrics)
    monkeypatch.setattr("app.report.report.verdict", lambda _: [])
    print_summary(Run(Path("x\x1b[2J") / "y\u202e"))
    out = capsys.readouterr().out
    assert "\u202e" not in out
    assert "\x1b[2J" not in out
    assert r"x\x1b[2J/y\u202e".replace("/", "\\" if sys.platform == "win32" else "/") in out
