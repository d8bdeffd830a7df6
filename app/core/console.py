"""Messages and progress bars on stderr; results alone go to stdout.

Colour and moving bars appear only on a terminal; elsewhere a bar prints nothing and messages are
plain lines, so logs stay readable.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from app.core.sanitise import for_terminal

LONGEST_SHOWN = 40  # letters of one name in a list of names


class _Stderr(io.TextIOBase):
    """Standard error as it is now; what it cannot take is dropped.

    The terminal may have been closed under a training (``disown``), or the reader of a pipe.
    """

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def _stream(self) -> TextIO:
        stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # beside a bar
        return stream


_console = Console(
    file=_Stderr(),  # type: ignore[arg-type]
    highlight=False,
    soft_wrap=True,
    emoji=False,
    force_jupyter=False,  # in a notebook too they are messages, not results
)


def say(message: str) -> None:
    """Print a message on stderr, on one line: no markup, no wrapping, no control characters."""
    _console.print(for_terminal(message), markup=False)


def listing(texts: Iterable[object], most: int = 10) -> str:
    """Return texts separated by commas; of many, the first ones and how many more there are.

    Long ones are cut, so that a message stays a few lines, however many classes there are.
    """
    every = list(map(str, texts))
    shown = [text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…" for text in every]
    more = [f"and {len(every) - most:,} more"] if len(every) > most else []
    return ", ".join(shown[:most] + more)


@contextmanager
def progress_bar(*columns: TextColumn | BarColumn) -> Iterator[Progress]:
    """Show a bar with counts, the time left and extra ``columns`` while the block runs.

    Args:
        columns: put after the bar, for example ``TextColumn("{task.fields[loss]}")``.

    Yields:
        A ``rich.progress.Progress``: ``task = bar.add_task("Reading photos", total=n)``, then
        ``bar.advance(task)``.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=_console,
        disable=not _console.is_terminal,
    ) as bar:
        yield bar


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the end of the block at the latest, when Ctrl-C was pressed.

    Likewise for the other signals that stop a command (``app.core.cli``). Libraries lose it: what C
    code calls cannot raise, some catch everything while they are imported, and TensorFlow turns it
    into errors of its own while it traces.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread
        return
    # Ignored ones stay ignored: Ctrl-C is not meant for the background of a shell script.
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None))
        if number is not None and callable(handler := signal.getsignal(number))
    }
    pressed = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        handlers[signal.Signals(number)](number, frame)

    for number in handlers:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if pressed:
            raise KeyboardInterrupt


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hold back what native libraries write to stderr; show it only if the block fails by an error.

    TensorFlow's C++ code reports missing GPUs before any setting of its own can stop it.
    """
    _console.file.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # after Ctrl-C one line is enough
            held.seek(0)
            with suppress(OSError):
                os.write(kept, held.read())
            raise
        finally:
            _console.file.flush()
            os.dup2(kept, 2)
            os.close(kept)
