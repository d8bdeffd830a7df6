"""The command line: one name for every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import COMMANDS, SCRIPT, main
from app.core.cli import run

ROOT = Path(__file__).parents[2]
CALLED = [
    (f"/usr/local/bin/{SCRIPT}", SCRIPT),
    (f"{SCRIPT}.exe", SCRIPT),  # on Windows
    (str(ROOT / "app" / "__main__.py"), "python -m app"),
]


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
@pytest.mark.parametrize(("path", "program"), CALLED)
def test_help_has_one_line_for_each_command(
    path: str,
    program: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"usage: {program} COMMAND ..."
    for name, (_, text) in COMMANDS.items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(f" {text}")
        assert len(line) <= 80


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("path", "program"), CALLED)
def test_a_command_calls_itself_as_it_was_called(
    path: str,
    program: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    assert run(main, [name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} {name} [-h]")


def test_arguments_and_exit_code_are_those_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["app"])
    assert run(main, ["report", str(tmp_path / "none")]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "mend"), [("servee", "; did you mean serve?"), ("x", ""), ("--version", "")]
)
def test_an_unknown_command_is_refused_in_one_line(
    name: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [name]) == 2
    expected = f"error: expected a command out of {', '.join(COMMANDS)}; received {name}{mend}\n"
    assert capsys.readouterr().err == expected


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from app.__main__ import main; main(['--help']);"
        "print(sorted({'numpy', 'PIL', 'keras', 'rich', 'train'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
