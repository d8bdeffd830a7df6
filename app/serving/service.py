"""The service as an ASGI application: its routes, and each request from its body to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyio import BrokenWorkerProcess
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.core.errors import ImageError
from app.inference.predictor import Classifier
from app.serving.batching import Batcher
from app.serving.metrics import Metrics
from app.serving.middleware import GONE, ServiceMiddleware, error_response, json_response
from app.serving.openapi import document, model_values
from app.serving.uploads import Account, Limits, Shares, Upload, party, read_files

LONGEST_RETRY = 60  # seconds after which a refused client is to try again, at most
PAGE = Path(__file__).parent / "page"
PAGE_FILES = {  # path → file and type
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/answers.js": ("answers.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Service:
    """Predicts photos over HTTP.

    Args:
        classifier: makes the predictions.
        limits: of requests, memory and time.
        names, loopback, prefix: see ``app.serving.middleware.ServiceMiddleware``.

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
        prefix: str = "",
    ) -> None:
        self.limits, self.loopback, self.metrics = limits, loopback, Metrics()
        # Where others can send requests, one address gets half of what there is for all.
        share = 1 if loopback else 2
        held, queue = limits.held // limits.workers, limits.queue // limits.workers
        told = self.metrics.held_bytes.set, self.metrics.under_way.set
        self.held = Shares(held, max(held // share, limits.body), told[0])
        self.places = Shares(queue, max(queue // share, limits.files), told[1])
        self.batcher = Batcher(classifier, limits, self.metrics)
        self.decoders = self.batcher.decoders
        bundle = classifier.bundle
        # These never change.
        fixed = {
            "/v1/model": json_response(
                model_values(bundle, classifier.thresholds.confidence, limits)
            ),
            "/openapi.json": json_response(document(bundle, limits, prefix)),
            "/healthz": json_response({"status": "alive"}),
            **{
                path: Response((PAGE / name).read_bytes(), media_type=media_type)
                for path, (name, media_type) in PAGE_FILES.items()
            },
        }
        routes = [
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/explain", self.explain, methods=["POST"]),
            Route("/readyz", self.ready),
            Route("/metrics", self.show_metrics),
            *(Route(path, response, methods=["GET"]) for path, response in fixed.items()),
        ]
        application = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _refused, Exception: _failed},
        )
        # Starlette would name an absolute address, which is another one behind a proxy.
        application.router.redirect_slashes = False
        self.app = ServiceMiddleware(
            application,
            self.metrics,
            {route.path for route in routes},
            names=names,
            loopback=loopback,
            prefix=prefix,
        )

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
        """Predict each file of a request."""

        async def work(files: list[Upload]) -> Response:
            answers = await asyncio.gather(*map(self.batcher.answer, files))
            return json_response({"answers": [asdict(answer) for answer in answers]})

        return await self._serve(request, work)

    async def explain(self, request: Request) -> Response:
        """Return the heat map of one photo."""

        async def work(files: list[Upload]) -> Response:
            if len(files) != 1:
                raise HTTPException(400, f"expected one photo; received {len(files)}")
            try:
                return Response(await self.batcher.explain(files[0]), media_type="image/png")
            except ImageError as error:
                raise HTTPException(422, str(error)) from None

        return await self._serve(request, work)

    async def ready(self, _: Request) -> Response:
        """Return whether to send requests here."""
        if self.app.ending or self.batches.done():
            return error_response(503, "ending")
        if self.batcher.decoders.stuck:
            return error_response(503, "every decoder has been busy with one photo for long")
        return json_response({"status": "ready"})

    async def show_metrics(self, _: Request) -> Response:
        """Return the numbers for Prometheus."""
        return Response(self.metrics.text(), media_type=self.metrics.content_type)

    async def _serve(
        self, request: Request, work: Callable[[list[Upload]], Coroutine[Any, Any, Response]]
    ) -> Response:
        """Read a request's files and work on them, within its time and while it is connected."""
        deadline = asyncio.get_running_loop().time() + self.limits.seconds
        who = party(request.scope["client"])
        with Account(self.held, who) as held, Account(self.places, who) as places:
            if not self.places.free(who):  # before a body is read that would be too much
                raise self._full()
            try:
                async with asyncio.timeout_at(deadline):
                    files = await read_files(request, self.limits, held)
            except TimeoutError:
                message = f"no whole request within {self.limits.seconds:g} s"
                raise HTTPException(408, message) from None
            except ClientDisconnect:
                return Response(status_code=GONE)
            if not places.take(len(files)):
                raise self._full()
            try:
                async with asyncio.timeout_at(deadline):
                    return await _while_connected(request, work(files))
            except TimeoutError:
                message = f"no answer within {self.limits.seconds:g} s"
                raise HTTPException(504, message) from None
            except BrokenWorkerProcess:
                message = "the process that decoded a photo ended; send it again"
                raise HTTPException(503, message, {"retry-after": "1"}) from None

    def _full(self) -> HTTPException:
        """Return the refusal of photos for which the queue has no place."""
        waiting = self.places.taken
        seconds = math.ceil(waiting * self.batcher.seconds_a_photo)
        return HTTPException(
            429,
            f"{waiting} photos are waiting, and at most {self.places.whole} may, "
            f"{self.places.each} of one address; send it again later",
            {"retry-after": str(min(max(seconds, 1), LONGEST_RETRY))},
        )


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Finish the work, or drop it when the client disconnects."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else Response(status_code=GONE)
    finally:
        for task in tasks:
            task.cancel()


async def _refused(_: Request, error: Any) -> Response:
    return error_response(error.status_code, error.detail, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """Answer for an error of ours; Starlette raises it once more, and the middleware reports it."""
    return error_response(500, "the service failed; its own messages say where")
