"""What every command of the project has in common: one line for an error, and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from app.core.errors import AppError
from app.core.printable import printable

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn expected failures into one line on stderr.

    Args:
        main: takes the arguments without the program's name, returns an exit code.
        argv: the arguments; ``sys.argv[1:]`` when not given.

    Returns:
        The exit code: ``main``'s own, an ``AppError``'s, 1 for what the system refuses (a full
        disk, say), or 130 after Ctrl-C.
    """
    try:
        try:
            code = main(sys.argv[1:] if argv is None else argv)
        except SystemExit as end:  # argparse, after --help or a wrong flag
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()  # here, where a closed pipe or a full disk can still be answered
        return code
    except AppError as error:
        _tell(str(error))
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("; ".join(["stopped by Ctrl-C", *map(str, stop.args)]), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (`| head`) has gone
        _abandon_stdout()
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _tell(f"{error.strerror or error}{where}")
        _abandon_stdout()
        return 1


def leave(code: int) -> NoReturn:
    """End the process; after Ctrl-C at once, or what libraries left running would remark on it."""
    if code == INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _tell(message: str) -> None:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere: Python would complain again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()  # unless it still can be written
    with contextlib.suppress(OSError, ValueError):  # a test's stdout is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
