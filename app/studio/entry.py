"""Who may open the studio's page: whoever has its address as it was printed, with a secret in it.

Every user and program of this machine can connect to a port of 127.0.0.1. So, as Jupyter has it,
the address carries a secret, which is new each time the program starts. It sets a cookie, and
without the cookie nothing is answered.
"""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving.middleware import error_response

QUERY = "secret"  # the name of the secret in the address
NO_SECRET = (
    "expected the address that python -m app studio printed when it started, with its secret; "
    "received a request without it, or with that of an earlier start; look for the address in the "
    "terminal, and open it"
)


class Entry:
    """Wraps an ASGI application; lets in who has the secret.

    Args:
        app: the application.

    Attributes:
        secret: new for each instance.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.secret = app, secrets.token_urlsafe(32)

    def link(self, address: str) -> str:
        """Return the address to open: ``address``, a URL without query, with the secret."""
        return f"{address}?{QUERY}={self.secret}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self.app
        if scope["type"] == "http":
            answer = self._instead(Request(scope)) or self.app
        await answer(scope, receive, send)

    def _instead(self, request: Request) -> Response | None:
        """Return the answer to a request that the application does not get."""
        # A browser sends the cookies of all ports of a host to each of them.
        cookie = f"studio-{request.scope['server'][1]}"
        if self._is_secret(request.query_params.get(QUERY, "")):
            # Not to another host, whatever the path. The secret is gone from the address bar.
            response = RedirectResponse(f"/{request.url.path.lstrip('/')}", 303)
            # Lax, not strict: else a browser withholds it from the redirect where the address was a
            # link in another page, such as a terminal of Jupyter. What writes needs the token, too.
            response.set_cookie(cookie, self.secret, httponly=True, samesite="lax")
            return response
        if self._is_secret(request.cookies.get(cookie, "")):
            return None
        if request.url.path.startswith("/api/"):
            return error_response(403, NO_SECRET)
        return PlainTextResponse(NO_SECRET, 403)

    def _is_secret(self, received: str) -> bool:
        return secrets.compare_digest(received.encode(), self.secret.encode())
