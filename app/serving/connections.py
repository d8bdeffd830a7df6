"""Who is connected to the service, and how long a connection may last without progress.

``Connection`` is all of the service that builds on uvicorn's and h11's insides; what it needs of
them is named there and tested (``tests/serving/test_serve_connections.py``).
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.core.console import say
from app.serving.uploads import Shares, party

PATIENCE = 10.0  # seconds that a connection may take for the head of a request
KEPT = 30  # seconds that a connection is kept after an answer, for a next request
LEAST = 10_000  # bytes of an answer that must be taken within LOOKS × PATIENCE
LOOKS = 3  # a socket takes more only when a third of what it holds has been taken
PIECES, CRUMB = 1_000, 256  # after so many pieces of a body they must have so many bytes on average
PROBE = 0.2  # seconds between looks whether a client that has shut its side is still there
QUIET = 60.0  # seconds between two messages about refused connections


class Seldom:
    """Prints a message once a minute at most, with how many were withheld before."""

    def __init__(self) -> None:
        self._next, self._withheld = 0.0, 0

    def say(self, message: str) -> None:
        """Print it, unless one was printed less than a minute ago."""
        now = time.monotonic()
        if now < self._next:
            self._withheld += 1
            return
        more = f" ({self._withheld} more since the last such line)" if self._withheld else ""
        self._next, self._withheld = now + QUIET, 0
        say(f"{message}{more}")


class Door(Shares):
    """Lets connections in while there are places, ``whole`` and ``each`` of one address.

    Attributes:
        cut: how many connections were ended because their answer was not taken.
    """

    cut = 0

    def __init__(self, whole: int, each: int) -> None:
        super().__init__(whole, each)
        self._seldom = Seldom()

    def enter(self, who: str) -> bool:
        """Take a place and return True; where there is none, report it, but seldom."""
        if entered := self.take(who, 1):
            return entered
        self._seldom.say(
            f"a connection was refused: {self.taken} are open, and at most {self.whole} may be, "
            f"{self.each} of one address"
        )
        return False


class Strict(h11.Connection):
    """HTTP/1.1 that also refuses what h11 lets pass.

    That is Content-Length beside Transfer-Encoding, of which a proxy may believe the other one
    (RFC 9112, 6.1), and a body in crumbs: each piece costs some 20 µs, even if it is one byte.
    """

    _pieces = _size = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: as h11's own, and for the above.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._size = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("expected one length of the body; received two")
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._size += len(event.data)
            if self._pieces > PIECES and self._size < CRUMB * self._pieces:
                raise h11.RemoteProtocolError("expected a body in larger pieces")
        return event


class Connection(H11Protocol):
    """A connection that must make progress.

    It ends when the head of a request does not come to its end, and when an answer is not taken;
    time limits for bodies and answers are the application's. A client that has shut only its own
    side is answered; for one that has disconnected nothing is computed.

    Of uvicorn it uses ``transport``, ``loop``, ``client``, ``conn``, ``scope``,
    ``timeout_keep_alive_task``, and ``cycle`` with ``response_started``, ``response_complete`` and
    ``more_body``; and it expects that ``on_response_complete`` is called after each answer and
    ``send_400_response`` for ``h11.RemoteProtocolError``.
    """

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conn = Strict(h11.SERVER)
        self.door, self._who = door, ""
        self._inside = self._half_closed = False
        self._last: object = None  # the request under way at the last look
        self._unsent: int | None = None  # bytes that had not been taken then
        self._looks = 0  # since then
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or end at once where there are too many connections."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # resume_writing: everything has been taken
        self._who = party(self.client)
        self._inside = self.door.enter(self._who)
        if self._inside:
            self._look_again()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        if self._inside:
            self.door.give_back(self._who, 1)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Note that all that was written has been taken."""
        self._unsent = None
        super().resume_writing()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer also a client that shuts its own side after a whole request, as ``nc -N`` does.

        One that has disconnected looks the same until something is sent to it: its system then
        resets the connection. "100 Continue" is what may be sent before an answer.
        """
        waits = self.cycle is not None and not self.cycle.more_body
        if not waits or self.cycle.response_complete or self.scope["http_version"] != "1.1":
            return None
        if not self.cycle.response_started:
            self.transport.write(
                self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
            )
        self._half_closed = True
        self._probe()
        return True

    def on_response_complete(self) -> None:
        """End when no further request can come."""
        super().on_response_complete()
        if self._half_closed and self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; close the connection where an answer has already begun."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _probe(self) -> None:
        if self.transport.is_closing():
            return
        end: socket.socket = self.transport.get_extra_info("socket")
        if end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(PROBE, self._probe)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self._unsent is None or self._unsent - unsent >= LEAST:
            self._unsent, self._looks = unsent or None, 0
        self._looks += 1
        if self._unsent is not None and self._looks > LOOKS:
            self.door.cut += 1
            # Not close: what nobody takes keeps a closing connection alive.
            self.transport.abort()
            return
        answered = self.cycle is not None and self.cycle.response_complete
        # After an answer uvicorn waits KEPT seconds itself, until a next head begins.
        begun = answered and self.timeout_keep_alive_task is None and self.cycle is self._last
        if (self.cycle is None or begun) and not unsent:
            self.transport.close()
        self._last = self.cycle
        self._look_again()
