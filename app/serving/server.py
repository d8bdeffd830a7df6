"""The service on a socket: uvicorn, and an end in which nothing that was asked is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.core.errors import UsageError
from app.serving.service import Service

PATIENCE = 10.0  # seconds that a connection may take for the head of a request
KEPT = 30  # seconds that a connection is kept after an answer, for a next request
MAX_CONNECTIONS = 512  # systems give a process 1,024 open files or fewer
FAREWELL = 1.0  # seconds in which kept connections may still ask, and are told that it is the last


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


class Connection(H11Protocol):
    """A connection that ends when the head of a request does not come to its end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or end at once where there are too many connections."""
        super().connection_made(transport)
        self._last: object = None  # the request under way when it was last looked at
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        answered = self.cycle is not None and self.cycle.response_complete
        # After an answer uvicorn waits KEPT seconds itself, until a next head begins.
        begun = answered and self.timeout_keep_alive_task is None and self.cycle is self._last
        if self.cycle is None or begun:
            self.transport.close()
        else:
            self._last = self.cycle
            self._look_again()


class GracefulServer(Server):
    """Uvicorn's server; on SIGTERM and Ctrl-C it answers all that has come in, then it ends.

    A second Ctrl-C ends it at once.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(
            Config(
                service.app,
                http=Connection,
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

    def serve_on(self, listening: socket.socket) -> bool:
        """Serve until a signal comes; return whether everything that was asked was answered."""

        def end(*_: Any) -> None:
            self.should_exit = True

        # Uvicorn raises the signal once more at its end, for handlers that were there before.
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, end) for number in signals]
        try:
            self.run(sockets=[listening])
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
        return not self.force_exit and not self.server_state.tasks

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let everyone who is inside ask to the end, and be answered."""
        self.service.app.ending = True
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
            while len(knocked) < MAX_CONNECTIONS:
                knocked.append(door.accept()[0])
        for accepted in knocked:
            accepted.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)
