"""What every command has in common: one line for a failure, an exit code, nothing heavy."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.cli import run
from app.core.console import heeding_ctrl_c, quiet_native_stderr
from app.core.errors import AppError, DataError, UsageError
from app.inference.bundle_format import FORMAT_VERSION, Bundle

ROOT = Path(__file__).parents[2]


def code_and_stderr(failure: BaseException, capsys) -> tuple[object, str]:
    def main(_: object) -> int:
        raise failure

    try:
        code: object = run(main, [])
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        pytest.fail("Ctrl-C got through")  # else it would stop pytest itself
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def test_the_exit_code_is_that_of_the_command_and_the_arguments_arrive(monkeypatch):
    assert run(len, ["a", "b", "c"]) == 3
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "pets"])
    assert run(len) == 2
    assert run(len, []) == 0


@pytest.mark.parametrize(("kind", "code"), [(AppError, 1), (UsageError, 2), (DataError, 2)])
@pytest.mark.parametrize("message", ["expected a; received b", "expected a;\n\nreceived\r\n\tb\n"])
def test_an_expected_failure_is_one_line(kind, code, message, capsys):
    received = code_and_stderr(kind(message), capsys)
    assert received == (code, f"error: {' '.join(message.split())}\n")


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device"),
        OSError(28, "No space left on device", "runs/first/metrics.json"),
        PermissionError(13, "Permission denied", "a\nb"),
        OSError("without\na number"),
    ],
)
def test_a_full_disk_is_one_line(failure, capsys):
    code, err = code_and_stderr(failure, capsys)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert (failure.strerror or "without a number") in err
    if failure.filename == "runs/first/metrics.json":
        assert failure.filename in err


def test_ctrl_c_is_one_line_and_the_shells_code(capsys):
    assert code_and_stderr(KeyboardInterrupt(), capsys) == (130, "stopped by Ctrl-C\n")
    told = KeyboardInterrupt("go on with: python train.py --resume runs/first")
    line = "stopped by Ctrl-C; go on with: python train.py --resume runs/first\n"
    assert code_and_stderr(told, capsys) == (130, line)


@pytest.mark.parametrize("code", [0, 2, 7])
def test_argparse_keeps_its_codes(code, capsys):
    assert code_and_stderr(SystemExit(code), capsys) == (code, "")


def test_a_mistake_of_ours_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError):
        code_and_stderr(ZeroDivisionError(), capsys)


# ---- predict.py as a process: no network is needed for any of this ----


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle's description, enough for answers about files that are not there."""
    folder = tmp_path_factory.mktemp("bundle")
    digests, thresholds = {"model.onnx": "0" * 64}, {"confidence": 0.0, "novelty": 0.5}
    Bundle(FORMAT_VERSION, ("cat", "dog"), 32, 1.0, thresholds, digests, {}, "").write(folder)
    return folder


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--csv", "--bundle", "BUNDLE", *["no.jpg"] * 50]]
)
def test_a_reader_that_has_gone_is_no_drama(arguments, unbuffered, bundle):
    """As in ``predict.py ... | head -c 1``, only that the reader is surely gone before we write."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "predict.py", *[a.replace("BUNDLE", str(bundle)) for a in arguments]],
            cwd=ROOT,
            env=environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (0, 1)  # 120 is Python's own complaint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_answers_that_find_no_room_are_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "predict.py", "--help"],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["--bundle", "BUNDLE", "no.jpg", "n?.jpg"], 1)]
)
def test_mistyped_names_and_help_load_nothing_heavy(arguments, code, bundle):
    program = (
        "import sys, predict\n"
        "from app.core.cli import run\n"
        "try: code = run(predict.main)\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'keras', 'tensorflow', 'rich'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *[a.replace("BUNDLE", str(bundle)) for a in arguments]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1] == "imported: []"
    if code:
        assert done.stdout.count("No such file") == 2


# ---- what native libraries say ----


def test_native_remarks_are_held_back(capfd):
    with quiet_native_stderr():
        os.write(2, b"no GPU was found\n")
    assert capfd.readouterr() == ("", "")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


@pytest.mark.parametrize(
    ("failure", "shown"), [(ImportError, "libcudart is missing\n"), (KeyboardInterrupt, "")]
)
def test_native_remarks_are_shown_when_the_block_fails_not_after_ctrl_c(failure, shown, capfd):
    with pytest.raises(failure), quiet_native_stderr():
        os.write(2, b"libcudart is missing\n")
        raise failure
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == f"{shown}afterwards\n"


@pytest.mark.parametrize("kind", [ImportError, None])
def test_ctrl_c_that_a_library_loses_is_heeded(kind):
    """It was lost once in twenty imports of Keras."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), heeding_ctrl_c():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if kind:
                raise kind from None
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_an_error_stays_what_it_was():
    with pytest.raises(ImportError), heeding_ctrl_c():
        raise ImportError
    with heeding_ctrl_c():
        pass


@pytest.mark.parametrize(("code", "said"), [(130, ""), (0, "late"), (3, "late")])
def test_after_ctrl_c_nothing_more_is_said(code, said):
    program = (
        "import atexit, sys; from app.core.cli import leave;"
        "atexit.register(sys.stderr.write, 'late'); print('flushed'); leave(int(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(code)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "flushed\n", said)
