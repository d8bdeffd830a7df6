"""The service on a socket: uvicorn, and an end in which no accepted request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from functools import partial
from typing import Any, NamedTuple, Protocol

from uvicorn import Config, Server

from app.core.cli import INTERRUPTED
from app.core.console import say
from app.core.errors import UsageError
from app.serving.connections import KEPT, Connection, Door, Seldom
from app.serving.decoders import Decoders
from app.serving.middleware import ServiceMiddleware, where
from app.serving.uploads import Limits

MAX_CONNECTIONS = 512
UNTAKEN = 131_072  # bytes of answers that the system holds for one connection; Linux doubles it
BACKLOG = 128  # connections that may wait to be let in, and are let in at once
OTHER_FILES = 32  # that the process holds beside its connections: 10, and 3 for each decoder
FAREWELL = 1.0  # seconds in which kept connections may still send a last request
LAST = 10  # seconds after the longest request, at which the process ends whatever hangs


class Application(Protocol):
    """What is served: ``app.serving.service.Service``, or the studio.

    Attributes:
        app: the ASGI application.
        limits: of requests; ``seconds`` is used.
        decoders: the processes that decode.
        loopback: whether only this machine can send requests.
    """

    app: ServiceMiddleware
    limits: Limits
    loopback: bool
    decoders: Decoders


class End(NamedTuple):
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
            return "ended; every accepted request was answered"
        return (
            f"ended{' at once' if self.forced else ''}; of the requests since the signal "
            f"{self.answered} were answered, {self.late} passed their time limit, and {self.cut} "
            "were cut off"
        )


def room() -> tuple[int, int]:
    """Return how many connections there may be, and how many may wait to be let in.

    A process may have so many files open, connections included (``ulimit -n``): macOS allows 256
    at first, and lets programs raise it.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_CONNECTIONS, BACKLOG
    wanted = MAX_CONNECTIONS + BACKLOG + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_CONNECTIONS, BACKLOG
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    left = max(soft - OTHER_FILES, 2)
    backlog = min(BACKLOG, left // 4 or 1)
    return min(MAX_CONNECTIONS, left - backlog), backlog


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens: a client that connects too early waits for the service.

    Raises:
        UsageError: when the port is taken, or the address is none of this machine.
    """
    elsewhere = "leave --host out to serve this machine only"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        result = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"expected a name or address of this machine; received {host} ({error}); {elsewhere}"
        ) from error
    try:
        if os.name != "nt":  # there it would mean sharing the port
            result.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit it: systems would hold megabytes for each that takes nothing.
        result.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        result.bind(address)
        result.listen()  # another process may be bound, too, until one of the two listens
    except OSError as error:
        result.close()
        taken = "choose another with --port, or --port 0 for any that is free"
        mend = elsewhere if error.errno == errno.EADDRNOTAVAIL else taken
        raise UsageError(
            f"expected a free port of this machine; received {host}:{port} "
            f"({error.strerror or error}); {mend}"
        ) from error
    return result


class GracefulServer(Server):
    """Uvicorn's server; on SIGTERM and Ctrl-C it answers all that has come in, then it ends.

    A second Ctrl-C ends it at once, and so do LAST seconds after the longest request.

    Args:
        service: its application, limits and decoders.
    """

    def __init__(self, service: Application) -> None:
        self.service, self._seldom, self._cut_before = service, Seldom(), 0
        most, backlog = room()
        most = max(most // service.limits.workers, 1)
        self.door = Door(most, most if service.loopback else max(most // 2, 1))
        super().__init__(
            Config(
                service.app,
                http=partial(Connection, self.door),  # type: ignore[arg-type]
                backlog=backlog,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # its messages could name what was sent
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
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
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
        asyncio.get_running_loop().set_exception_handler(self._report)
        # It remarks on a child process that has ended before it was killed.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        await super().startup(sockets)
        self._warming = asyncio.create_task(self.service.decoders.start())

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report what went wrong outside of requests, seldom: asyncio would write pages of it."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._seldom.say("connections have to wait: too many open files; see ulimit -n")
        else:
            what = where(error) if error else str(context.get("message"))
            self._seldom.say(f"internal error, please report this: {what}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections; answer those that there are to their end."""
        self.service.app.ending = True
        self._cut_before = self.door.cut
        watch = threading.Timer(self.service.limits.seconds + LAST, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            listening = [each.dup() for each in sockets or ()]
            for server in self.servers:
                server.close()
            for each in listening:
                await self._let_in(each)
            now = asyncio.get_running_loop().time
            latest = now() + FAREWELL
            while self.server_state.connections and now() < latest and not self.force_exit:
                await asyncio.sleep(0.02)
            await super().shutdown(sockets)
        finally:
            watch.cancel()

    def _give_up(self) -> None:
        seconds = self.service.limits.seconds + LAST
        say(f"ended by force: something hung for {seconds:g} s after the signal; {self.end()}")
        os._exit(1)

    async def _let_in(self, listening: socket.socket) -> None:
        """Accept the clients whose system has told them already that they are connected."""
        accepted: list[socket.socket] = []
        with listening, contextlib.suppress(OSError):  # BlockingIOError: that was the last one
            listening.setblocking(False)
            while len(accepted) < self.door.whole:
                accepted.append(listening.accept()[0])
        connection = partial(
            Connection,
            self.door,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for each in accepted:
            each.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(connection, each)
