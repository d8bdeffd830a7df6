"""Several processes behind one port: ``python -m app serve --workers N``.

All of them accept from one listening socket, so that no client that has connected is lost when one
of them ends. This process answers nothing itself: it starts the workers, replaces one that was
killed, passes signals on, and adds up what became of the requests.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from prometheus_client.multiprocess import mark_process_dead

from app.core.console import say
from app.core.errors import AppError
from app.serving.metrics import FOLDER
from app.serving.server import End, GracefulServer
from app.serving.service import Service

# New processes, not copies: what has threads, as ONNX Runtime has, cannot be copied safely.
_SPAWN = multiprocessing.get_context("spawn")
LOOK = 0.2  # seconds between looks whether a signal came; a worker that ends is seen at once
NOTHING = End(answered=0, late=0, cut=0, forced=False)
PAUSE = 2.0  # seconds between two starts: a worker that dies at once must not take the machine


@dataclass
class Worker:
    """A process, its start, and its messages: how it computes or an error, then an ``End``."""

    process: SpawnProcess
    messages: Connection
    started: float
    ready: bool = False  # whether it has said how it computes: then it accepts requests

    def message(self) -> str | End | None:
        """Return the next message; None from one that ended without.

        Raises:
            AppError, MemoryError: what kept it from starting.
        """
        try:
            received: str | End | Exception = self.messages.recv()
        except (EOFError, OSError):
            return None
        if isinstance(received, Exception):
            raise received
        self.ready = True
        return received


def serve_with_workers(
    start: Callable[[], Service],
    count: int,
    listening: socket.socket,
    announce: Callable[[str], None],
) -> End:
    """Serve by several processes until a signal comes; return what became of the requests since.

    Args:
        start: makes a worker's service: a module's function, or a ``partial`` of one.
        count: how many workers.
        listening: all of them accept from it; it is closed when the service ends.
        announce: called with how the workers compute when all of them have started.

    Raises:
        AppError, MemoryError: when a worker cannot start.
    """
    workers: list[Worker] = []
    with _metrics_folder() as folder, _signals() as came:
        try:
            workers += [_begin(start, listening) for _ in range(count)]
            computing = [worker.message() for worker in workers]
            if not came:
                announce(str(computing[0]))
            while not came:
                wait([worker.process.sentinel for worker in workers], LOOK)
                for number, worker in enumerate(workers):
                    if not (worker.process.is_alive() or came):
                        workers[number] = _replaced(worker, start, listening, folder)
            listening.close()  # else clients would be let in here, where nobody answers
            return _end(workers, came)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()


def _begin(start: Callable[[], Service], listening: socket.socket) -> Worker:
    messages, report = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_work, args=(start, listening, report), name="worker")
    process.start()
    report.close()  # the worker's copy alone is open: its end shows
    return Worker(process, messages, time.monotonic())


def _replaced(
    worker: Worker, start: Callable[[], Service], listening: socket.socket, folder: str
) -> Worker:
    """Start another worker in the place of one that ended by itself."""
    try:
        why = f"exit code {worker.process.exitcode}"
        worker.message() if worker.messages.poll() else None
    except (AppError, MemoryError) as error:
        why = str(error) or "too little memory"
    say(f"a worker ended by itself ({why}); another one starts")
    mark_process_dead(worker.process.pid, folder)  # type: ignore[no-untyped-call]
    time.sleep(max(worker.started + PAUSE - time.monotonic(), 0))
    return _begin(start, listening)


def _end(workers: list[Worker], came: list[int]) -> End:
    """Pass signals on until all workers have ended; add up what they report."""
    passed = 0
    while any(worker.process.is_alive() for worker in workers):
        # The first one lets them finish, a second Ctrl-C ends them at once.
        for number in came[passed:]:
            force = passed > 0 and number == signal.SIGINT
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid or 0, signal.SIGINT if force else signal.SIGTERM)
            passed += 1
        wait([each.process.sentinel for each in workers if each.process.is_alive()], LOOK)
    ends = [_last_message(worker) for worker in workers]
    return End(
        sum(end.answered for end in ends),
        sum(end.late for end in ends),
        sum(end.cut for end in ends),
        any(end.forced for end in ends),
    )


def _last_message(worker: Worker) -> End:
    """Return what a worker reports; of one that was killed, that it cut something off."""
    with contextlib.suppress(AppError, MemoryError):
        while (message := worker.message()) is not None:
            if isinstance(message, End):
                return message
    return NOTHING._replace(cut=int(worker.ready))


@contextlib.contextmanager
def _metrics_folder() -> Iterator[str]:
    """Give the workers a folder in which they count together; numbers alone lie there."""
    with tempfile.TemporaryDirectory(prefix="cats-vs-dogs-metrics-") as folder:
        before = os.environ.get(FOLDER)
        os.environ[FOLDER] = folder
        try:
            yield folder
        finally:
            del os.environ[FOLDER]
            if before is not None:
                os.environ[FOLDER] = before


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that end the service, which would end this process otherwise."""
    came: list[int] = []
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heeded = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    before = [signal.signal(each, lambda number, _: came.append(number)) for each in heeded]
    try:
        yield came
    finally:
        for number, handler in zip(heeded, before, strict=True):
            signal.signal(number, handler)


# ---- in a worker ---------------------------------------------------------------------------------


def _work(start: Callable[[], Service], listening: socket.socket, report: Connection) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal is for the first process, which passes it on once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # until it serves
    end = NOTHING
    try:
        service = start()
        report.send(service.batcher.classifier.computing)
        end = GracefulServer(service).serve_on(listening)
    except (AppError, MemoryError) as error:
        report.send(error)
        return
    except SystemExit:
        pass
    report.send(end)


def _end_with_parent() -> None:
    """End in order when the first process was killed: nobody would pass signals on any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
