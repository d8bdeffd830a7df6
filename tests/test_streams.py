"""Streams that are closed, lists of all kinds, signals, little memory: one line, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzz.bundles import description, small_model
from photos import make_photo

import predict
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


# ---- lists on standard input ----


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (b"a.jpg\nb.jpg\r\n\n  \nc.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        (b"a.jpg\0b\nc.jpg\0\0d\r\0", ["a.jpg", "b\nc.jpg", "d\r"]),  # find -print0
        (b"a\0/*", ["a", "/*"]),  # as any binary file has it
        (b"*/../**/../**/../*\n[ab].jpg", ["*/../**/../**/../*", "[ab].jpg"]),
        (b"caf\xe9.jpg\n", [os.fsdecode(b"caf\xe9.jpg")]),
        (b"", []),
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
    done = shell(
        'cd "$2" && PYTHONPATH="$3" "$1" -c "$4"',
        tmp_path,
        ROOT,
        "import predict; print(list(predict.expand(['-'])))",
        stdin=listed,
    )
    assert done.stderr == b""
    assert done.stdout.decode() == f"{names}\n"


def test_a_folder_in_a_list_gives_what_is_below_it(tmp_path: Path) -> None:
    make_photo(tmp_path / "album" / "x.jpg")
    program = "import predict; print(list(predict.expand(['-'])))"
    done = shell('"$1" -c "$2"', program, stdin=os.fsencode(tmp_path / "album") + b"\n")
    assert done.stdout.decode() == f"{[str(tmp_path / 'album' / 'x.jpg')]}\n"


def test_endless_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "LONGEST_LIST", 1000)
    with Path(os.devnull if sys.platform == "win32" else "/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(UsageError, match="at most 1,000 bytes"):
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


@unix
def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    done = shell('trap \'\' HUP; "$1" -c "$2" SIGHUP', STOPPED)
    assert (done.returncode, done.stdout) == (0, b"an answer\nnot reached\n")


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
