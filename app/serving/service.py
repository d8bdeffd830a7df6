"""The service as an ASGI application: its routes, and each request from its body to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.core.errors import ImageError
from app.inference.predictor import Classifier
from app.serving.batching import Batcher
from app.serving.metrics import Metrics
from app.serving.middleware import GONE, ServiceMiddleware
from app.serving.openapi import document, model_values
from app.serving.shares import Shares, party
from app.serving.uploads import Account, Limits, Refused, Upload, read_files

LONGEST_RETRY = 60  # seconds that a refused client is told to wait, at most
PAGE = Path(__file__).parent / "page"
PAGE_FILES = {  # path → file and type
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

Handler = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """JSON in ASCII: the name of a class may come from a disk and be no UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Service:
    """Answers photos over HTTP.

    Args:
        classifier: which answers.
        limits: of requests, memory and time.
        names: see ``app.serving.middleware.ServiceMiddleware``.
        loopback: see there, too.

    Attributes:
        app: the ASGI application.
    """

    def __init__(
        self,
        classifier: Classifier,
        limits: Limits,
        *,
        names: Collection[str] = (),
        loopback: bool = True,
    ) -> None:
        self.limits, self.loopback, self.metrics = limits, loopback, Metrics()
        # Where others can ask, one address gets half of what there is for all.
        share = 1 if loopback else 2
        self.held = Shares(limits.held, max(limits.held // share, limits.body))
        self.places = Shares(limits.queue, max(limits.queue // share, limits.files))
        self.batcher = Batcher(classifier, limits, self.metrics)
        self.metrics.under_way.set_function(lambda: self.places.taken)
        self.metrics.held_bytes.set_function(lambda: self.held.taken)
        bundle = classifier.bundle
        self.about = model_values(bundle, classifier.thresholds.confidence, limits)
        self.document = document(bundle, limits)
        routes = self._routes()
        self.app = ServiceMiddleware(
            Starlette(
                routes=routes,
                lifespan=self._lifespan,
                exception_handlers={
                    Refused: _refused,
                    HTTPException: _http_error,
                    Exception: _failed,
                },
            ),
            self.metrics,
            {route.path for route in routes},
            names=names,
            loopback=loopback,
        )

    def _routes(self) -> list[Route]:
        pages = {path: (PAGE / name).read_bytes() for path, (name, _) in PAGE_FILES.items()}
        return [
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/explain", self.explain, methods=["POST"]),
            Route("/v1/model", _constant(self.about)),
            Route("/openapi.json", _constant(self.document)),
            Route("/healthz", _constant({"status": "alive"})),
            Route("/readyz", self.ready),
            Route("/metrics", self.tell_metrics),
            *(
                Route(path, _content(content, PAGE_FILES[path][1]))
                for path, content in pages.items()
            ),
        ]

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.batches = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self.batches.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.batches
            await self.batcher.close()

    async def predict(self, request: Request) -> Response:
        """Answer for each file of a request."""

        async def work(files: list[Upload]) -> Response:
            answers = await asyncio.gather(*map(self.batcher.answer, files))
            return Json({"answers": [asdict(answer) for answer in answers]})

        return await self._serve(request, work)

    async def explain(self, request: Request) -> Response:
        """Return the heat map of one photo."""

        async def work(files: list[Upload]) -> Response:
            if len(files) != 1:
                raise Refused(400, f"expected one photo; received {len(files)}")
            try:
                return Response(await self.batcher.explain(files[0]), media_type="image/png")
            except ImageError as error:
                raise Refused(422, str(error)) from None

        return await self._serve(request, work)

    async def ready(self, _: Request) -> Response:
        """Say whether to send requests here."""
        if self.app.ending or self.batches.done():
            return Json({"error": "ending"}, 503)
        if self.batcher.decoders.stuck:
            return Json({"error": "every decoder has been at one photo for long"}, 503)
        return Json({"status": "ready"})

    async def tell_metrics(self, _: Request) -> Response:
        """Return the numbers for Prometheus."""
        return Response(self.metrics.text(), media_type=self.metrics.content_type)

    async def _serve(
        self, request: Request, work: Callable[[list[Upload]], Coroutine[Any, Any, Response]]
    ) -> Response:
        """Read a request's files and work on them, within its time and while it is waited for."""
        deadline = asyncio.get_running_loop().time() + self.limits.seconds
        who = party(request.scope["client"])
        with Account(self.held, who) as account:
            try:
                self._refuse_beyond(1, who)  # before a body is read that would be too much
                async with asyncio.timeout_at(deadline):
                    files = await read_files(request, self.limits, account)
            except TimeoutError:
                raise Refused(408, f"no whole request within {self.limits.seconds:g} s") from None
            except ClientDisconnect:
                return Response(status_code=GONE)  # nobody reads it
            with self._taken(len(files), who):
                try:
                    async with asyncio.timeout_at(deadline):
                        return await _while_waited_for(request, work(files))
                except TimeoutError:
                    raise Refused(504, f"no answer within {self.limits.seconds:g} s") from None

    @contextlib.contextmanager
    def _taken(self, count: int, who: str) -> Iterator[None]:
        """Take so many places in the queue for the block."""
        self._refuse_beyond(count, who)
        self.places.take(who, count)
        try:
            yield
        finally:
            self.places.give_back(who, count)

    def _refuse_beyond(self, count: int, who: str) -> None:
        """Refuse so many more photos where the queue has no place for them: come back later."""
        if count > self.places.free(who):
            waiting = self.places.taken
            seconds = math.ceil(waiting * self.batcher.seconds_a_photo)
            raise Refused(
                429,
                f"{waiting} photos are waiting, and at most {self.places.whole} may, "
                f"{self.places.each} of one address; ask again later",
                retry_after=min(max(seconds, 1), LONGEST_RETRY),
            )


async def _while_waited_for(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Finish the work, or drop it when the other side has gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else Response(status_code=GONE)
    finally:
        for task in tasks:
            task.cancel()


def _constant(values: dict[str, Any]) -> Handler:
    return _content(Json(values).body, "application/json")


def _content(body: bytes | memoryview, media_type: str) -> Handler:
    async def handler(_: Request) -> Response:
        return Response(body, media_type=media_type)

    return handler


async def _refused(_: Request, error: Any) -> Response:
    retry = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return Json({"error": str(error)}, error.status, retry)


async def _http_error(_: Request, error: Any) -> Response:
    """Answer for an unknown path or method."""
    return Json({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """Answer for an error of ours; Starlette raises it once more, and the guard tells where."""
    return Json({"error": "the service failed; its own messages say where"}, 500)
