"""Messages and progress on stderr; results alone go to stdout.

Colour and moving bars appear only on a terminal. Elsewhere messages are plain lines, and what takes
more than ten seconds says every half a minute how far it is, so logs stay readable.
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
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from app.core.sanitise import for_terminal

LONGEST_SHOWN = 40  # letters of one name in a list of names
FIRST_LINE, NEXT_LINES = 10.0, 30.0  # seconds after which a line tells the progress


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


def percent(share: float, digits: int = 0) -> str:
    """Write a share as a percentage: ``98 %``."""
    return f"{100 * share:.{digits}f} %"


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

    Where there is no terminal, a line says the same after 10 seconds and then every 30.

    Args:
        columns: put after the bar, for example ``TextColumn("{task.fields[loss]}")``.

    Yields:
        A ``rich.progress.Progress``: ``task = bar.add_task("Reading photos", total=n)``, then
        ``bar.advance(task)``. What an earlier process has done of it is ``completed=…, begun=…``.
        With ``unit="photos"`` the rate is shown, too.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        *columns,
        _Rate(""),
        TimeRemainingColumn(),
        console=_console,
        disable=not _console.is_terminal,
    ) as bar:
        if _console.is_terminal:
            yield bar
        else:
            with _lines(bar):
                yield bar


class _Rate(TextColumn):
    """How many units a second, of a task that has the field ``unit``."""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit")
        return Text(f"{task.speed:.1f} {unit}/s" if unit and task.speed else "")


@contextmanager
def _lines(bar: Progress) -> Iterator[None]:
    """Say now and then, in a line, how far the tasks of a bar that is not shown are."""
    ended = threading.Event()

    def tell() -> None:
        wait = FIRST_LINE
        while not ended.wait(wait):
            wait = NEXT_LINES
            for task in bar.tasks:
                if task.total and not task.finished:
                    say(progress_line(task))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_line(task: Task) -> str:
    """Say how far a task is, which has a total, and how long the rest takes at the same pace.

    Its field ``begun`` says how much of it was done before it was added, in an earlier process;
    with the field ``unit`` the pace is in the line.
    """
    elapsed, total = task.elapsed or 0.0, task.total or 1.0
    done = task.completed - task.fields.get("begun", 0)
    line = f"{task.description}: {percent(task.completed / total)} done"
    if done <= 0:
        return f"{line} after {_duration(elapsed)}"
    if elapsed and (unit := task.fields.get("unit")):
        line = f"{line}, {done / elapsed:.1f} {unit}/s"
    return f"{line}, about {_duration(elapsed * (total - task.completed) / done)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


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
