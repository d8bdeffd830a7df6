"""What every command has in common: one line for an error, and an exit code."""

from __future__ import annotations

import _thread
import argparse
import contextlib
import errno
import io
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from app.core.errors import AppError, out_of_memory
from app.core.sanitise import for_terminal

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# What ends a command, and what it is called. A closed terminal is reported by the shell and by the
# system, and ``timeout`` sends its signal twice: the same one within a second is one.
_ENDS = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "SIGTERM",
    "SIGHUP": "SIGHUP (the terminal was closed)",
}
_ONE_SIGNAL = 1.0
_A_MOMENT = 0.05
_USUAL = (signal.SIG_DFL, signal.default_int_handler)  # else somebody wants it otherwise


class Parser(argparse.ArgumentParser):
    """The parser of every command; its messages about wrong arguments are safe on a terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        """Print how the command is used and what is wrong; end with exit code 2."""
        super().error(for_terminal(message))


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn expected failures into one line on stderr.

    SIGTERM and SIGHUP stop it as Ctrl-C does, unless they are ignored (``nohup``).

    Args:
        main: takes the arguments without the program's name, returns an exit code.
        argv: the arguments; ``sys.argv[1:]`` when not given.

    Returns:
        The exit code: ``main``'s own, an ``AppError``'s, 1 for what the system refuses (a full
        disk, too little memory, a closed standard output), or 128 and the number of the signal
        (130 after Ctrl-C).
    """
    _prepare_streams()
    with _ending_signals() as came:
        try:
            try:
                code = main(sys.argv[1:] if argv is None else argv)
            except SystemExit as end:  # argparse, after --help or a wrong flag
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            sys.stdout.flush()  # here, where a closed pipe or a full disk can still be reported
            return code
        except AppError as error:
            tell(f"error: {error}")
            code = error.exit_code
        except KeyboardInterrupt as stop:
            code = _report_signal(came, *map(str, stop.args))
        except BrokenPipeError:  # the reader (`| head`) has gone
            code = 1
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            reason = error.strerror or str(error)
            if error.errno == errno.EBADF:
                reason = f"standard output is closed ({reason})"
            tell(f"error: {reason}{where}")
            code = 1
        except Exception as error:
            if came:  # libraries make other errors of it, while they are imported
                code = _report_signal(came)
            elif out_of_memory(error):
                tell(
                    "error: expected more memory; received too little; end what else uses it, or "
                    "raise the limit (ulimit -v)"
                )
                code = 1
            else:
                raise
        _save_stdout()
        return code


def leave(code: int) -> NoReturn:
    """End the program; after a signal the process at once, or libraries would print messages.

    In IPython and Jupyter (``%run train.py``) and under ``python -i`` the process is not only this
    program's: there it goes on.
    """
    if code > 128 and not _has_other_uses():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if used := sys.modules.get("multiprocessing.util"):
            used._run_finalizers(0)  # semaphores: else a message says that they are left over
        os._exit(code)
    sys.exit(code)


def _has_other_uses() -> bool:
    """Say whether the process goes on after the program, for a person who types into it."""
    ipython = sys.modules.get("IPython")
    return bool(sys.flags.interactive) or (ipython is not None and bool(ipython.get_ipython()))


def _send(number: signal.Signals) -> None:
    """Send a signal to the main thread, which wakes it."""
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _path(text: str) -> Path:
    """Read a path; an empty one, as of ``"$UNSET"``, would be the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path; received an empty one; write . for here")
    return Path(text)


def _prepare_streams() -> None:
    """Make standard streams take whatever is written, or fail as a full disk does.

    Those that are closed (``>&-``) become the null device, or files that are opened later would get
    their numbers and what libraries print. Reading gives nothing, messages go nowhere; results
    cannot be written, which is an error. Letters that the encoding lacks become escapes. A pipe
    whose other end was made not to wait (by Node, say) loses what comes too fast: it is made to
    wait.
    """
    for number, (name, flags) in enumerate(
        (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    ):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest that is free
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        if number and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            with contextlib.suppress(OSError, AttributeError):  # Windows before Python 3.12
                os.set_blocking(number, True)


@contextlib.contextmanager
def _ending_signals() -> Iterator[list[signal.Signals]]:
    """Raise ``KeyboardInterrupt`` when a signal of ``_ENDS`` comes; yield those that came."""
    came: list[signal.Signals] = []
    latest = -math.inf

    def end(number: int, _: object) -> None:
        nonlocal latest
        before, latest = latest, time.monotonic()
        if number == signal.SIGINT or latest - before > _ONE_SIGNAL or came[-1] != number:
            came.append(signal.Signals(number))
            raise KeyboardInterrupt

    def again(lost: sys.UnraisableHookArgs) -> None:
        """Send it again where Python could not raise it: 1 in 30 imports of ONNX Runtime."""
        nonlocal latest
        if not (came and issubclass(lost.exc_type, KeyboardInterrupt)):
            hook(lost)
            return
        latest = -math.inf
        timer = threading.Timer(_A_MOMENT, _send, [came[-1]])
        timer.daemon = True
        timer.start()

    hook, sys.unraisablehook = sys.unraisablehook, again
    kept = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in _ENDS):
            if number is not None and signal.getsignal(number) in _USUAL:
                kept[number] = signal.signal(number, end)
    try:
        yield came
    finally:
        sys.unraisablehook = hook
        for number, handler in kept.items():
            signal.signal(number, handler)


def _report_signal(came: Sequence[signal.Signals], *how_to_resume: str) -> int:
    """Print which signal ended the command, and return its exit code."""
    number = came[-1] if came else signal.SIGINT
    tell("; ".join([f"stopped by {_ENDS[number.name]}", *how_to_resume]))
    return 128 + number


def tell(message: str) -> None:
    """Write one line to stderr, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(for_terminal(" ".join(message.split())), file=sys.stderr)


def _save_stdout() -> None:
    """Write what is still buffered, or drop it: Python would report it as an error at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a test's stdout is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
