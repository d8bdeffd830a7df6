"""What every command of the project has in common: one line for an error, and an exit code."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from app.core.errors import AppError
from app.core.out_of_memory import out_of_memory
from app.core.printable import printable

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# What ends a command as Ctrl-C does. A closed terminal is told by the shell and by the system,
# and ``timeout`` sends its signal twice: the same one within a second is one.
_ENDS = {"SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP (the terminal was closed)"}
_ONE_SIGNAL = 1.0


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
    _open_missing_streams()
    with _ending_signals() as came:
        try:
            try:
                code = main(sys.argv[1:] if argv is None else argv)
            except SystemExit as end:  # argparse, after --help or a wrong flag
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            sys.stdout.flush()  # here, where a closed pipe or a full disk can still be answered
            return code
        except AppError as error:
            tell(f"error: {error}")
            code = error.exit_code
        except KeyboardInterrupt as stop:
            name = _ENDS[came[-1].name] if came else "Ctrl-C"
            tell("; ".join([f"stopped by {name}", *map(str, stop.args)]))
            code = 128 + came[-1] if came else INTERRUPTED
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
            if not out_of_memory(error):
                raise
            tell(
                "error: expected more memory; received too little; end what else uses it, or "
                "raise the limit (ulimit -v)"
            )
            code = 1
        _save_stdout()
        return code


def leave(code: int) -> NoReturn:
    """End the process; after a signal at once, or libraries that are left would remark on it."""
    if code > 128:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _open_missing_streams() -> None:
    """Open the null device in place of standard streams that are closed (``>&-``).

    Files that are opened later would get their numbers, and what libraries print would be written
    into them. Reading gives nothing, messages go nowhere; results cannot be written, which is an
    error as on a full disk.
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


@contextlib.contextmanager
def _ending_signals() -> Iterator[list[signal.Signals]]:
    """Raise ``KeyboardInterrupt`` when a signal of ``_ENDS`` comes; yield those that came."""
    came: list[signal.Signals] = []
    latest = -math.inf

    def end(number: int, _: object) -> None:
        nonlocal latest
        before, latest = latest, time.monotonic()
        if latest - before > _ONE_SIGNAL or came[-1] != number:
            came.append(signal.Signals(number))
            raise KeyboardInterrupt

    kept = []
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in _ENDS):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                kept.append(number)
                signal.signal(number, end)
    try:
        yield came
    finally:
        for number in kept:
            signal.signal(number, signal.SIG_DFL)


def tell(message: str) -> None:
    """Write one line to stderr; where it cannot be written, the exit code has to do."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(" ".join(message.split())), file=sys.stderr)


def _save_stdout() -> None:
    """Write what is still buffered, or let it go nowhere: Python would complain when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a test's stdout is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
