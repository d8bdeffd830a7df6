"""The service on a socket: uvicorn, and an end in which nothing that was asked is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn import Config, Server

from app.core.cli import INTERRUPTED
from app.core.console import say
from app.core.errors import UsageError
from app.serving.connections import KEPT, Connection, Door, Seldom
from app.serving.middleware import where
from app.serving.service import Service

MAX_CONNECTIONS = 512
UNTAKEN = 131_072  # bytes of answers that the system holds for one connection; Linux doubles it
BACKLOG = 128  # connections that may wait to be let in, and are let in at once
OTHER_FILES = 32  # that the process holds beside its connections: 10, and 3 for each decoder
FAREWELL = 1.0  # seconds in which kept connections may still ask, and are told that it is the last
LAST = 10  # seconds after the longest request, at which the process ends whatever hangs


@dataclass(frozen=True)
class End:
    """How the service ended.

    Attributes:
        answered: requests that were answered after the signal.
        late: requests that passed their time limit after it.
        cut: requests that got no answer, or did not take it.
        forced: whether a second Ctrl-C came.
    """

    answered: int
    late: int
    cut: int
    forced: bool

    @property
    def exit_code(self) -> int:
        """0 when nothing was cut off."""
        return INTERRUPTED if self.forced else int(self.cut > 0)

    def __str__(self) -> str:
        if not (self.forced or self.late or self.cut):
            return "ended; all that was asked has been answered"
        return (
            f"ended{' at once' if self.forced else ''}; of the requests since the signal "
            f"{self.answered} were answered, {self.late} passed their time limit, and {self.cut} "
            "were cut off"
        )


def room() -> tuple[int, int]:
    """Return how many connections there may be, and how many may wait to be let in.

    A process may have so many files open, connections included (``ulimit -n``): macOS allows 256
    at first, and lets programs ask for more.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_CONNECTIONS, BACKLOG
    wanted = MAX_CONNECTIONS + BACKLOG + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        left = max(soft - OTHER_FILES, 2)
        backlog = min(BACKLOG, left // 4 or 1)
        return min(MAX_CONNECTIONS, left - backlog), backlog
    return MAX_CONNECTIONS, BACKLOG


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens: who connects before the service is ready waits for it.

    Raises:
        UsageError: when the port is taken, or the address is none of this machine.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        result = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"expected a name or address of this machine; received {host} ({error}); "
            "leave --host out to serve this machine only"
        ) from error
    try:
        if os.name != "nt":  # there it would mean sharing the port
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit it: systems would hold megabytes for each who takes nothing.
        result.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        result.bind(address)
        # Another process may be bound, too, until one of the two listens.
        result.listen()
    except OSError as error:
        result.close()
        reason = error.strerror or str(error)
        mend = "choose another with --port, or --port 0 for any that is free"
        if error.errno == errno.EADDRNOTAVAIL:
            mend = "leave --host out to serve this machine only"
        raise UsageError(
            f"expected a free port of this machine; received {where} ({reason}); {mend}"
        ) from error
    return result


class GracefulServer(Server):
    """Uvicorn's server; on SIGTERM and Ctrl-C it answers all that has come in, then it ends.

    A second Ctrl-C ends it at once, and so do LAST seconds after the longest request.

    Args:
        service: which answers.
        warm: whether to start the decoders before a photo comes.
    """

    def __init__(self, service: Service, *, warm: bool = True) -> None:
        self.warm = warm
        self.service, self._seldom, self._cut_before = service, Seldom(), 0
        most, backlog = room()
        self.door = Door(most, most if service.loopback else max(most // 2, 1))
        super().__init__(
            Config(
                service.app,
                http=partial(Connection, self.door),  # type: ignore[arg-type]
                backlog=backlog,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # its messages could name what was asked
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEPT,
                # A request under way ends by its own time limit; this is for what hangs.
                timeout_graceful_shutdown=round(service.limits.seconds) + 5,
            )
        )

    def serve_on(self, listening: socket.socket) -> End:
        """Serve until a signal comes; return what became of the requests since then."""

        def end(*_: Any) -> None:
            self.should_exit = True

        # Uvicorn raises the signal once more at its end, for handlers that were there before.
        signals = [signal.SIGTERM, signal.SIGINT]
        # SIGHUP: the terminal was closed; under nohup it is ignored, and stays so.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signals.append(signal.SIGHUP)
        before = [signal.signal(number, end) for number in signals]
        try:
            self.run(sockets=[listening])
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
        return self.end()

    def end(self) -> End:
        """Return what became of the requests since the service began to end."""
        since = self.service.app.since_the_end
        cut = self.door.cut - self._cut_before
        answered = max(since["answered"] - cut, 0)  # written, but not taken
        return End(answered, since["late"], since["cut"] + cut, self.force_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        asyncio.get_running_loop().set_exception_handler(self._tell)
        # It remarks on a child process that has ended before it was killed.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        await super().startup(sockets)
        if self.warm:
            self._warming = asyncio.create_task(self.service.batcher.decoders.start())

    def _tell(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Say what went wrong outside of requests, seldom: asyncio would write pages of it."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._seldom.say("connections have to wait: too many open files; see ulimit -n")
        else:
            said = where(error) if error else str(context.get("message"))
            self._seldom.say(f"internal error, please report this: {said}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let everyone who is inside ask to the end, and be answered."""
        self.service.app.ending = True
        self._cut_before = self.door.cut
        longest = self.service.limits.seconds + LAST
        watch = threading.Timer(longest, self._give_up, (longest,))
        watch.daemon = True
        watch.start()
        try:
            await self._end(sockets)
        finally:
            watch.cancel()

    def _give_up(self, seconds: float) -> None:
        say(f"ended by force: something hung for {seconds:g} s after the signal; {self.end()}")
        os._exit(1)

    async def _end(self, sockets: list[socket.socket] | None) -> None:
        doors = [door.dup() for door in sockets or ()]
        for server in self.servers:
            server.close()
        for door in doors:
            await self._let_in(door)
        latest = asyncio.get_running_loop().time() + FAREWELL
        while self.server_state.connections and asyncio.get_running_loop().time() < latest:
            if self.force_exit:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _let_in(self, door: socket.socket) -> None:
        """Take in whoever has knocked: the system has told them that they are connected."""
        knocked: list[socket.socket] = []
        with door, contextlib.suppress(OSError):  # BlockingIOError: that was the last one
            door.setblocking(False)
            while len(knocked) < self.door.places.whole:
                knocked.append(door.accept()[0])
        for accepted in knocked:
            accepted.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)

    def _connection(self) -> Connection:
        return Connection(
            self.door,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
