"""What stands around every answer of the service: who may ask, headers, counting, no traceback."""

from __future__ import annotations

import ipaddress
import json
import time
import traceback
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
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """Wraps an ASGI application.

    Args:
        app: the application.
        metrics: where requests are counted.
        routes: paths that are counted by name; all others are counted as ``other``.
        names: by which the service may be asked beside its own ones.
        loopback: whether only this machine can ask. Then only its own names are answered: a page
            of the web may point a name of its own at 127.0.0.1 (DNS rebinding), and would be told
            what it asks.

    Attributes:
        ending: set when the service ends; then connections are closed after their answer.
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
        self.app, self.metrics, self.routes, self.loopback = app, metrics, routes, loopback
        self.names = {name.lower() for name in names}
        self.ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *RAW_HEADERS]
                if self.ending:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

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
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, str(status or "gone")).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        known = hostname(host) in self.names
        if self.loopback and not known and not is_loopback(hostname(host)):
            return 421, "expected localhost as the host; received another name, see --name"
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
