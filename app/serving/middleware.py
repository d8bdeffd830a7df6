"""What stands around every answer of the service: who may ask, headers, counting, no traceback."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
import traceback
from collections import Counter
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.console import say
from app.serving.metrics import Metrics

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: the previews of chosen photos
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",  # answers are about people's photos
}
GONE = 499  # the status of a request whose client has gone: nobody reads it
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class ServiceMiddleware:
    """Wraps an ASGI application.

    Args:
        app: the application.
        metrics: where requests are counted.
        routes: paths that are counted by name; all others are counted as ``other``.
        names: hosts that the service answers for, beside addresses in digits. A page of the web may
            point a name of its own at this machine (DNS rebinding) and would be told what it asks;
            therefore no other name is answered.
        loopback: whether only this machine can ask. Then ``localhost`` and the addresses of this
            machine itself are answered, and ``names``; else every address in digits, and
            ``names``, or where there are none the names of this machine.

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
    ) -> None:
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

        async def guarded(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *RAW_HEADERS]
                if self.ending:
                    message["headers"].append((b"connection", b"close"))
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            if refusal := self._refusal(scope):
                await _tell(guarded, *refusal)
            else:
                await self.app(scope, receive, guarded)
        except Exception as error:
            say(f"internal error, please report this: {where(error)}")
            if not status:
                await _tell(guarded, 500, "the service failed; its own messages say where")
        finally:
            if self.ending and status != GONE:
                late = status in (408, 504)
                self.since_the_end["late" if late else "answered" if whole else "cut"] += 1
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, str(status or "gone")).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        name = hostname(host)
        if not (name in self.answered or is_loopback(name) or (is_address(name) and self.open)):
            own = "an address in digits" if self.open else "localhost"
            return 421, f"expected {own} as the host; received another name, see --name"
        origin = headers.get(b"origin", f"//{host}").lower().partition("//")[2]
        if origin != host and hostname(origin) not in self.names:
            return 403, "expected a request of this service's own page; received another site's"
        return None


def hostname(host: str) -> str:
    """Return the name in a ``Host`` header, without port and brackets; empty when it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Say whether a name or address means this machine, and can be asked from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Say whether a host is an address in digits, which no DNS server can point elsewhere."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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


async def _tell(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
