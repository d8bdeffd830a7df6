"""Runs another command of the project, such as training, as a person would type it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import shlex
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import app
from app.core.errors import UsageError
from app.core.sanitise import for_terminal

KEPT = 200  # lines of what it said
LONGEST = 500  # characters of a line
FAREWELL = 10.0  # seconds in which a command may end by itself


class Jobs:
    """One command at a time, in a process of its own.

    What it prints is kept, its last lines only. The page shows them and the command itself, so
    that everything can be done again without the page.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._shown, self._what, self._result = "", "", ""
        self._running = False

    async def start(self, arguments: Sequence[str], what: str, result: str = "") -> None:
        """Start ``python -m app ARGUMENTS``.

        Args:
            arguments: of the command line, the name of the command first.
            what: a word by which the page knows the job.
            result: what it makes: the name of a run or a folder.

        Raises:
            UsageError: when a job is running.
        """
        self.refuse_second()
        self._running = True
        self._lines.clear()
        self._shown = shlex.join(["python", "-m", "app", *arguments])
        self._what, self._result = what, result
        root = str(Path(next(iter(app.__path__))).parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "app",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except BaseException:  # an argument that no process can have is a ValueError
            self._running = False
            raise
        self._reading = asyncio.create_task(self._read(self._process))

    def refuse_second(self) -> None:
        """Raise ``UsageError`` when a job is running."""
        if self._running:
            raise UsageError(
                f"expected one job at a time; received another while {self._shown!r} runs; wait "
                "for its end, or stop it"
            )

    def state(self) -> dict[str, Any] | None:
        """Return what the page shows of the latest job; None where there was none."""
        if self._process is None:
            return None
        return {
            "what": self._what,
            "result": self._result,
            "command": self._shown,
            "lines": list(self._lines)[-12:],
            "running": self._running,
            "code": None if self._running else self._process.returncode,
        }

    def stop(self) -> None:
        """Ask the job to end; training can then be resumed."""
        if self._process is not None and self._running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def close(self) -> None:
        """End the job, at the latest after some seconds."""
        self.stop()
        if self._reading is None or self._process is None:
            return
        try:
            async with asyncio.timeout(FAREWELL):
                await asyncio.shield(self._reading)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  it was asked for
        rest, decoder = "", codecs.getincrementaldecoder("utf-8")("replace")
        while data := await process.stdout.read(4096):
            # A progress bar returns to the beginning of its line.
            *lines, rest = (rest + decoder.decode(data)).replace("\r", "\n").split("\n")
            rest = rest[-LONGEST:]
            self._lines.extend(
                for_terminal(line.strip())[:LONGEST] for line in lines if line.strip()
            )
        if rest.strip():
            self._lines.append(for_terminal(rest.strip()))
        await process.wait()
        self._running = False
