"""Streams that are closed, lists of all kinds, signals, little memory: one line, nothing lost."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fuzz.bundles import description, small_model
from photos import make_photo

import app.data.sets.fetch
import app.features.cache_command
import predict
import train
from app.core import text_file
from app.core.cli import run
from app.core.errors import UsageError

ROOT = Path(__file__).parent.parent
unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such streams or signals")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photo(tmp_path_factory.mktemp("photos") / "a.jpg")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "model.onnx").write_bytes(small_model())
    (folder / "bundle.json").write_bytes(description(small_model()))
    return folder


def shell(
    line: str, *arguments: object, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of sh: ``$1`` is Python, what follows are the arguments."""
    words: Sequence[str] = ["sh", "-c", line, "sh", sys.executable, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, timeout=60, input=stdin)


# ---- closed streams ----


@unix
def test_closed_standard_output_is_one_line(photo: Path, bundle: Path) -> None:
    done = shell('"$1" predict.py --bundle "$2" "$3" >&-', bundle, photo)
    words = b"error: standard output is closed (Bad file descriptor)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", words)


@unix
def test_closed_standard_input_is_an_empty_list(bundle: Path) -> None:
    done = shell('"$1" predict.py --bundle "$2" - <&-', bundle)
    words = b"error: expected photos; received none in -\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", words)


@unix
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_answers_need_no_standard_error(photo: Path, bundle: Path, closed: str) -> None:
    done = shell(f'"$1" predict.py --bundle "$2" "$3" {closed}', bundle, photo)
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.fsencode(photo) in done.stdout
    failed = shell(f'"$1" predict.py --bundle nowhere "$2" {closed}', photo)
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, b"", b"")


@unix
def test_all_three_closed_are_an_exit_code(photo: Path, bundle: Path) -> None:
    done = shell('"$1" predict.py --bundle "$2" "$3" <&- >&- 2>&-', bundle, photo)
    assert done.returncode == 1


@unix
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What native libraries print would be written into it."""
    program = (
        "import os, sys; from app.core.cli import run\n"
        "def main(_):\n"
        "    with open(sys.argv[1], 'w') as file: print(file.fileno(), file=file)\n"
        "    os.write(2, b'printed by a library'); return 0\n"
        "sys.exit(run(main))"
    )
    done = shell('"$1" -c "$2" "$3" <&- >&- 2>&-', program, tmp_path / "file")
    assert done.returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


@unix
def test_messages_that_nobody_reads_any_more_stop_no_work() -> None:
    """The terminal of a training was closed, or ``| head`` has seen enough."""
    program = (
        "import sys; from app.core.cli import run\n"
        "from app.core.console import say, quiet_native_stderr\n"
        "def main(_):\n"
        "    for _ in range(3):\n"
        "        say('one message')\n"
        "        with quiet_native_stderr(): pass\n"
        "    print('done'); return 0\n"
        "sys.exit(run(main))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@unix
def test_standard_input_that_cannot_be_read_is_one_line(bundle: Path, tmp_path: Path) -> None:
    done = shell('"$1" predict.py --bundle "$2" - 0>"$3"', bundle, tmp_path / "file")
    words = b"error: expected a list of names on standard input; received none (Bad file"
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(words)


@unix
def test_a_pipe_that_was_made_not_to_wait_loses_no_answer(bundle: Path) -> None:
    """As Node and some shells leave it; of 4,001 lines 1,024 came through, without a word."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    names = [f"no-{number}" for number in range(4000)]
    command = [sys.executable, "predict.py", "--csv", "--bundle", str(bundle), *names]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=writer) as process,
        os.fdopen(reader, "rb") as pipe,
    ):
        os.close(writer)
        time.sleep(1)  # meanwhile it has filled the pipe
        assert pipe.read().count(b"\n") == 4001
        assert process.wait(60) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_console_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "app",
            "fetch",
            "drawn",
            str(tmp_path / "\u732b"),
            "--per-class",
            "1",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.count(b"\\u732b: 2 drawings")) == (0, 1)


# ---- lists on standard input ----


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (b"a.jpg\nb.jpg\r\n\n  \nc.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        (b"a.jpg\0b\nc.jpg\0\0d\r\0", ["a.jpg", "b\nc.jpg", "d\r"]),  # find -print0
        (b"a\0/*", ["a", "/*"]),  # as any binary file has it
        (b"*/../**/../**/../*\n[ab].jpg", ["*/../**/../**/../*", "[ab].jpg"]),
        (b"caf\xe9.jpg\n", ["caf\u00e9.jpg"]),  # no UTF-8: Windows-1252, unless a file is called so
        (b"", []),
        ("caf\u00e9.jpg\r\nb.jpg\r\n".encode("utf-16"), ["caf\u00e9.jpg", "b.jpg"]),  # PowerShell
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"name;label\r\na.jpg;cat\r\nb, c.jpg;cat\r\n", ["a.jpg", "b, c.jpg"]),  # Excel
        (b'"path","label"\n"a.jpg","cat"\n', ["a.jpg"]),  # what predict.py --csv wrote
    ],
)
def test_a_list_holds_names_and_no_patterns(
    listed: bytes,
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a.jpg", "b.jpg"):  # which [ab].jpg would match
        make_photo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert list(predict.expand(["-"])) == names


def test_a_folder_in_a_list_gives_what_is_below_it(tmp_path: Path) -> None:
    make_photo(tmp_path / "album" / "x.jpg")
    program = "import predict; print(list(predict.expand(['-'])))"
    done = shell('"$1" -c "$2"', program, stdin=os.fsencode(tmp_path / "album") + b"\n")
    assert done.stdout.decode() == f"{[str(tmp_path / 'album' / 'x.jpg')]}\n"


def test_endless_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "LONGEST", 1000)
    with Path(os.devnull if sys.platform == "win32" else "/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(UsageError, match="longer than the 1,000 bytes"):
            predict.listed_names()


# ---- signals ----

STOPPED = """
import os, signal, sys
from app.core.cli import leave, run
from app.core.console import heeding_ctrl_c
def main(argv):
    print("an answer")
    number = getattr(signal, argv[0])
    with heeding_ctrl_c():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            pass  # as libraries do
        signal.raise_signal(number)  # the shell and the system both send it
    print("not reached")
    return 0
leave(run(main))
"""


@unix
@pytest.mark.parametrize(
    ("name", "words"),
    [("SIGHUP", "SIGHUP (the terminal was closed)"), ("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C")],
)
def test_signals_end_in_one_line_and_no_answer_is_lost(name: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, name], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    number = getattr(signal, name)
    received = (done.returncode, done.stdout, done.stderr)
    assert received == (128 + number, "an answer\n", f"stopped by {words}\n")


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=unix)])
def test_what_a_library_makes_of_a_signal_is_one_line(name: str) -> None:
    """ONNX Runtime said "ImportError: initialization failed" when it was being imported."""
    program = (
        "import signal, sys; from app.core.cli import run\n"
        "def main(argv):\n"
        "    try: signal.raise_signal(getattr(signal, argv[0]))\n"
        "    except KeyboardInterrupt: raise ImportError('initialization failed')\n"
        "sys.exit(run(main))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr.startswith("stopped by ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=unix)])
def test_a_signal_that_comes_where_nothing_can_be_raised_stops_it_nevertheless(name: str) -> None:
    program = (
        "import signal, sys, time; from app.core.cli import run\n"
        "class Last:\n"
        "    def __del__(self): signal.raise_signal(getattr(signal, sys.argv[1]))\n"
        "def main(_):\n"
        "    last = Last(); del last\n"
        "    time.sleep(30); return 0\n"
        "sys.exit(run(main))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr.startswith("stopped by ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "line"),
    [
        (["-m", "IPython", "--quick", "--simple-prompt", "--no-banner"], "%run SCRIPT SIGINT"),
        (["-i", "SCRIPT", "SIGINT"], ""),
    ],
    ids=["IPython", "python -i"],
)
def test_a_stop_leaves_the_process_to_who_types_into_it(
    tmp_path: Path, host: list[str], line: str
) -> None:
    """Jupyter's kernel is such a process: its variables would be lost."""
    script = tmp_path / "stop.py"
    script.write_text(STOPPED)
    done = subprocess.run(
        [sys.executable, *(str(script) if word == "SCRIPT" else word for word in host)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)},
        input=f"{line.replace('SCRIPT', str(script))}\nprint('alive', 6 * 7)\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "stopped by Ctrl-C" in done.stderr
    assert "alive 42" in done.stdout
    assert "not reached" not in done.stdout


@unix
def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    done = shell('trap \'\' HUP; "$1" -c "$2" SIGHUP', STOPPED)
    assert (done.returncode, done.stdout) == (0, b"an answer\nnot reached\n")


# ---- paths ----


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (train.main, ["--data", ""]),
        (train.main, ["--data", "photos", "--runs", ""]),
        (predict.main, ["a.jpg", "--runs", ""]),
        (predict.main, ["a.jpg", "--explain", ""]),
        (app.features.cache_command.main, ["--clear", "--runs", ""]),
        (app.data.sets.fetch.main, ["drawn", ""]),
    ],
)
def test_an_empty_path_is_not_the_present_folder(
    main: Callable[[Sequence[str]], int], argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, argv) == 2
    assert "expected a path; received an empty one" in capsys.readouterr().err


# ---- memory ----


@unix
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux heeds the limit")
@pytest.mark.parametrize("failure", ["MemoryError", 'RuntimeError("can\'t start new thread")'])
def test_too_little_memory_is_one_line(failure: str) -> None:
    program = (
        "import sys; from app.core.cli import run\n"
        f"def main(_): raise {failure}\nsys.exit(run(main))"
    )
    done = shell('"$1" -c "$2"', program)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: expected more memory; received too little; ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
@unix
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux heeds the limit")
@pytest.mark.parametrize("kilobytes", range(150_000, 300_000, 10_000))
def test_predict_in_little_memory_answers_or_says_so(
    kilobytes: int, photo: Path, bundle: Path
) -> None:
    line = 'ulimit -v "$4"; "$1" predict.py --bundle "$2" "$3"'
    done = shell(line, bundle, photo, kilobytes)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0 or b"error: expected more memory" in done.stderr
