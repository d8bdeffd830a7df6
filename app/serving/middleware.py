"""What surrounds every answer: who may send requests, headers, counts, no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
import traceback
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.console import say
from app.core.sanitise import for_json, for_terminal
from app.serving.metrics import Metrics

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; "  # blob: the previews of chosen photos
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # answers are about people's photos
]
MOST_DROPPED, DROPPING = 100_000_000, 2.0  # bytes and seconds of a body that is refused
LONGEST_HOST = 253  # characters of a host's name (RFC 1035)
GONE = 499  # the status of a request whose client has disconnected: nobody reads it


class ServiceMiddleware:
    """Wraps an ASGI application that answers its own errors, as Starlette's does.

    Args:
        app: the application.
        metrics: where requests are counted.
        routes: paths that are counted by name; all others are counted as ``other``.
        names: hosts that the service answers for. Others are refused: a page of the web may point
            a name of its own at this machine (DNS rebinding) and read what it requests.
        loopback: whether only this machine can send requests. Then also ``localhost`` and this
            machine's own addresses are answered; else every address in digits, and where there are
            no ``names`` this machine's.
        prefix: the path, such as ``/cats``, below which a proxy offers the service; requests are
            answered with it and without it, since some proxies remove it.

    Attributes:
        ending: set when the service ends; then connections are closed after their answer.
        since_the_end: how many requests were ``answered``, ``late`` or ``cut`` off since then.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Collection[str],
        *,
        names: Collection[str] = (),
        loopback: bool = True,
        prefix: str = "",
    ) -> None:
        self.prefix = prefix
        self.app, self.metrics, self.routes, self.open = app, metrics, routes, not loopback
        self.names = {name.lower() for name in names} - {""}
        self.answered = self.names if self.names or loopback else own_names()
        self.ending, self.since_the_end = False, Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, whole = time.perf_counter(), 0, False
        body = _Body(scope, receive)
        if scope["path"].startswith(f"{self.prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self.prefix)}

        async def guarded(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and status != 408:  # then no more comes
                    await body.drop()
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                if self.ending:
                    message["headers"].append((b"connection", b"close"))
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await (self._refusal(scope) or self.app)(scope, body.receive, guarded)
        except Exception as error:
            say(f"internal error, please report this: {where(error)}")
        finally:
            if self.ending and status != GONE:
                late = status in (408, 504)
                self.since_the_end["late" if late else "answered" if whole else "cut"] += 1
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, str(status or "gone")).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        name = hostname(host)
        if not (name in self.answered or is_loopback(name) or (self.open and address_of(name))):
            own = "an address in digits" if self.open else "localhost"
            return error_response(421, f"expected {own} as the host; {_received(host)}")
        origin = headers.get(b"origin", f"//{host}").lower().partition("//")[2]
        if origin != host and hostname(origin) not in self.names:
            return error_response(
                403, f"expected a request of this service's own page; {_received(origin)}"
            )
        if self.prefix and scope["path"] == self.prefix:
            # The page's addresses are relative to the folder, and so is this one.
            location = f"{self.prefix.rpartition('/')[2]}/"
            return Response(status_code=308, headers={"location": location})
        return None


class _Body:
    """A request's body as it comes, of which the rest can be dropped.

    A connection that is closed with unread bytes is reset (RFC 9112, 9.6). The client may then lose
    the answer, and a proxy gives its own instead (502). So a refusal waits for the rest.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        names = {name for name, _ in scope["headers"]}
        # With "Expect: 100-continue" nothing is sent before it is asked for.
        has_body = bool(names & {b"content-length", b"transfer-encoding"})
        self._more = has_body and b"expect" not in names

    async def receive(self) -> Message:
        """Return the next piece."""
        message = await self._receive()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def drop(self) -> None:
        """Read the rest, if it comes soon and is not too much."""
        left = MOST_DROPPED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DROPPING):
                while self._more and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def _received(host: str) -> str:
    """Say from where a refused request came, and how the service is told to answer it."""
    name = for_terminal(hostname(host))
    if not name or len(name) > LONGEST_HOST:
        return "received none; open the service's own address"
    return (
        f"received {name}; if that is this service, as behind a proxy, start it with --name {name}"
    )


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response in JSON."""
    return Response(for_json(content), status, headers, "application/json")


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to a request that gets no answer: why, in words."""
    return json_response({"error": message}, status, headers)


def hostname(host: str) -> str:
    """Return the name in a ``Host`` header, without port and brackets; empty when it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host's address if it is one in digits, which no DNS server can point elsewhere."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a name or address means this machine, and can be reached from it only."""
    found = address_of(host)
    return host == "localhost" or (found is not None and found.is_loopback)


def own_names() -> set[str]:
    """Return the names of this machine, in small letters, with ``.local`` as mDNS has them."""
    name = socket.gethostname().lower()
    return {name, f"{name.partition('.')[0]}.local"} - {"", ".local"}


def where(error: BaseException) -> str:
    """Name an error's kind and the lines it went through; its words may be about a photo."""
    lines = [
        f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__name__} at {' < '.join(reversed(lines))}"
