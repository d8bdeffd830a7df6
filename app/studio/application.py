"""The routes of ``python -m app studio``: four pages, and what their scripts ask for.

Only this machine is answered, and only pages of its own: ``ServiceMiddleware`` compares Host and
Origin, ``Entry`` asks for the secret of the address, and every request that is not a plain GET
needs the token that stands in the pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app import report, serving
from app.core.errors import AppError, ImageError, UsageError
from app.core.run_folder import Run, complete_runs, refuse_existing
from app.data.sets.synthetic_pets import JPEG_QUALITY, draw_animal
from app.serving.decoders import Decoders
from app.serving.metrics import Metrics
from app.serving.middleware import GONE, ServiceMiddleware, error_response, json_response
from app.serving.uploads import Account, Limits, Shares, Upload, read_files
from app.studio.answering import Answering, decoded
from app.studio.decoding import THUMBNAIL, for_screen
from app.studio.entry import Entry
from app.studio.jobs import Jobs
from app.studio.reviewing import Reviewing
from app.studio.teaching import Teaching, refuse_name

PAGE = Path(__file__).parent / "page"
TOKENS = Path(report.__file__).parent / "tokens.css"  # the colours, which the report has too
ANSWERS = Path(serving.__file__).parent / "page" / "answers.js"  # as app.serving's page has them
TABS = {"ask": "Ask", "teach": "Teach", "review": "Review", "share": "Share"}
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
TOKEN = "x-studio-token"  # the header; its value is new each time the program starts
CAMERA = {"permissions-policy": "camera=(self), microphone=(), geolocation=()"}
LARGEST = 1024  # pixels of a photo that the browser cannot show itself
# Pictures to begin with: kind and seed of the project's own drawings.
SAMPLES = (("cat", 3), ("dog", 1), ("cat", 5), ("dog", 4), ("cat", 8), ("dog", 6))

Values = TypeVar("Values")
Handler = Callable[[Request], Awaitable[Response]]


class Studio:
    """The page, with all that is behind it.

    Args:
        runs: the folder of all runs.
        data: the folder below which Teach saves photos.
        image_size: height and width in pixels for Teach.
        weights: of the backbone, as ``train.py --weights`` has it.
        limits: of requests.

    Attributes:
        app: the ASGI application.
        entry: who may open it, and by which address.
        answering: the run that answers; None where there is none.
    """

    loopback = True

    def __init__(
        self,
        runs: Path,
        data: Path,
        image_size: int,
        weights: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.runs, self.data, self.limits = runs, data, limits or Limits()
        self.token = secrets.token_urlsafe(32)
        metrics = Metrics()
        self.decoders = Decoders(self.limits.seconds, self.limits.body, metrics.count_lost)
        self.held = Shares(self.limits.held, self.limits.held)
        self.answering: Answering | None = None
        self.teaching = Teaching(self.decoders, data, runs, image_size, weights)
        self.reviewing: Reviewing | None = None
        self._explaining: Answering | None = None  # of the run that is reviewed
        self.jobs = Jobs()
        routes = [Route("/", self.home), *self._pages(), *self._files(), *self._calls()]
        application = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={
                HTTPException: _refused,
                AppError: _mistaken,
                OSError: _no_disk,
                ClientDisconnect: _gone,
                Exception: _failed,
            },
        )
        self.entry = Entry(application)
        self.app = ServiceMiddleware(self.entry, metrics, {route.path for route in routes})

    # ---- pages -----------------------------------------------------------------------------------

    def _pages(self) -> list[Route]:
        environment = Environment(
            loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined
        )
        routes = []
        for tab, title in TABS.items():
            text = environment.get_template(f"{tab}.html.j2").render(
                tab=tab, title=title, tabs=TABS, token=self.token
            )
            page = Response(text, media_type="text/html", headers=CAMERA)
            routes.append(Route(f"/{tab}", page, methods=["GET"]))
        return routes

    def _files(self) -> list[Route]:
        files = [
            TOKENS,
            ANSWERS,
            *(path for path in sorted(PAGE.iterdir()) if path.suffix in TYPES),
        ]
        return [
            Route(
                f"/page/{path.name}",
                Response(path.read_bytes(), media_type=TYPES[path.suffix]),
                methods=["GET"],
            )
            for path in files
        ]

    def _calls(self) -> list[Route]:
        reads: dict[str, Handler] = {
            "/api/state": self.state,
            "/api/job": self.job,
            "/api/sample/{number:int}": self.sample,
            "/api/training/{number:int}": self.training_photo,
            "/api/review/photo/{number:int}": self.review_photo,
            "/api/teach": self.teach_state,
            "/api/teach/photo/{number:int}": self.taught_photo,
        }
        writes: dict[str, Handler] = {
            "/api/open": self.open,
            "/api/ask": self.ask,
            "/api/why": self.why,
            "/api/similar": self.similar,
            "/api/screen": self.screen,
            "/api/job/stop": self.stop_job,
            "/api/teach/start": self.teach_start,
            "/api/teach/change": self.teach_change,
            "/api/teach/photos/{number:int}": self.teach_photos,
            "/api/teach/solve": self.teach_solve,
            "/api/teach/ask": self.teach_ask,
            "/api/teach/save": self.teach_save,
            "/api/review": self.review,
            "/api/review/why": self.review_why,
            "/api/review/decide": self.review_decide,
            "/api/review/undo": self.review_undo,
            "/api/review/preview": self.review_preview,
            "/api/review/train": self.review_train,
            "/api/share": self.share,
        }
        return [
            *(Route(path, handler, methods=["GET"]) for path, handler in reads.items()),
            *(Route(path, self._own(each), methods=["POST"]) for path, each in writes.items()),
        ]

    def _own(self, handler: Handler) -> Handler:
        """Refuse requests without the token, which pages of other sites cannot read."""

        @functools.wraps(handler)
        async def checked(request: Request) -> Response:
            sent = request.headers.get(TOKEN, "").encode("latin-1", "replace")
            if not secrets.compare_digest(sent, self.token.encode()):
                raise HTTPException(
                    403, "expected the token of this page; received another; load the page again"
                )
            return await handler(request)

        return checked

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.jobs.close()
            await self.decoders.close()
            self.teaching.close()
            for each in (self.answering, self._explaining):
                if each is not None:
                    each.close()

    async def home(self, _: Request) -> Response:
        """Go to the first tab."""
        return RedirectResponse("/ask" if complete_runs(self.runs) else "/teach", 303)

    # ---- runs and jobs ---------------------------------------------------------------------------

    def open_run(self, run: Run) -> None:
        """Let a run answer.

        Raises:
            BundleError: when its bundle is damaged.
        """
        # The one before it is not closed: requests under way may still need it.
        self.answering = Answering(run, self.decoders)

    async def state(self, _: Request) -> Response:
        """Return the runs that there are, and which of them answers."""
        runs = await asyncio.to_thread(complete_runs, self.runs)
        current = self.answering
        return json_response(
            {
                "runs": [run.folder.name for run in runs],
                "runs_folder": str(self.runs),
                "data_folder": str(self.data),
                "current": current.run.folder.name if current else None,
                "classes": list(current.classes) if current else [],
                "samples": len(SAMPLES),
                "limits": {"files": self.limits.files, "body_bytes": self.limits.body},
            }
        )

    async def open(self, request: Request) -> Response:
        """Let another run answer."""
        run = self._run((await _values(request, _Named)).name)
        await asyncio.to_thread(self.open_run, run)
        return await self.state(request)

    def _run(self, name: str) -> Run:
        """Return a finished run by its name."""
        for run in complete_runs(self.runs):
            if run.folder.name == name:
                return run
        raise UsageError(
            f"expected a finished run in {self.runs}; received {name!r}; choose one of the list"
        )

    async def job(self, _: Request) -> Response:
        """Return what is known of the latest job."""
        return json_response({"job": self.jobs.state()})

    async def stop_job(self, request: Request) -> Response:
        """Ask the job to end."""
        self.jobs.stop()
        return await self.job(request)

    # ---- ask -------------------------------------------------------------------------------------

    async def sample(self, request: Request) -> Response:
        """Return one of the pictures to begin with."""
        number = request.path_params["number"]
        if number >= len(SAMPLES):
            raise HTTPException(404, "expected the number of a sample; received another")
        data = await asyncio.to_thread(drawn_sample, number)
        return Response(data, media_type="image/jpeg")

    async def ask(self, request: Request) -> Response:
        """Predict each file of a request."""
        answering = self._answering()
        with Account(self.held, "") as account:
            files = await read_files(request, self.limits, account)
            answers = await asyncio.gather(*map(answering.answer, files))
        run = answering.run.folder.name  # another window may have opened another one
        return json_response({"run": run, "answers": [asdict(answer) for answer in answers]})

    async def why(self, request: Request) -> Response:
        """Return what speaks for the answer to a photo, and the run that says so."""
        answering = self._answering()
        evidence = await self._with_photo(request, answering.evidence)
        return json_response({**evidence, "run": answering.run.folder.name})

    async def similar(self, request: Request) -> Response:
        """Return the training photos that a photo is most like."""
        answering = self._answering()
        found = await self._with_photo(request, answering.similar)
        return json_response({"photos": found, "run": answering.run.folder.name})

    async def training_photo(self, request: Request) -> Response:
        """Return the thumbnail of one of them, of the run that found it."""
        answering = self._answering()
        if request.query_params.get("run") != answering.run.folder.name:
            raise ImageError("expected a photo of the run that answers; received one of another")
        data = await answering.training_photo(request.path_params["number"])
        return Response(data, media_type="image/jpeg")

    async def screen(self, request: Request) -> Response:
        """Return a photo as a JPEG, for browsers that cannot show its format."""

        async def work(upload: Upload) -> bytes:
            return await decoded(self.decoders, for_screen, upload.data, LARGEST)

        return Response(await self._with_photo(request, work), media_type="image/jpeg")

    def _answering(self) -> Answering:
        if self.answering is None:
            raise UsageError(
                f"expected a finished run in {self.runs}; received none; teach one, or train one: "
                "python train.py --data DIR"
            )
        return self.answering

    async def _with_photo(self, request: Request, work: Callable[[Upload], Awaitable[Any]]) -> Any:
        with Account(self.held, "") as account:
            files = await read_files(request, self.limits, account)
            if len(files) != 1:
                raise HTTPException(400, f"expected one photo; received {len(files)}")
            return await work(files[0])

    # ---- teach -----------------------------------------------------------------------------------

    async def teach_state(self, _: Request) -> Response:
        """Return the classes, their photos and what was learned."""
        return json_response(self.teaching.state())

    async def teach_start(self, request: Request) -> Response:
        """Load the network."""
        self.teaching.start()
        return await self.teach_state(request)

    async def teach_change(self, request: Request) -> Response:
        """Change the classes or remove a photo."""
        change = await _values(request, _Change)
        teaching = self.teaching
        if change.what == "add":
            teaching.add_class(change.name)
        elif change.what == "rename":
            teaching.rename(change.number, change.name)
        elif change.what == "remove":
            teaching.remove_class(change.number)
        elif change.what == "empty":
            teaching.empty(change.number)
        else:
            teaching.forget(change.number)
        return await self.teach_state(request)

    async def teach_photos(self, request: Request) -> Response:
        """Add photos to a class."""
        moment = request.query_params.get("moment", "")[:100]
        with Account(self.held, "") as account:
            files = await read_files(request, self.limits, account)
            added = await self.teaching.add(request.path_params["number"], files, moment)
        return json_response({"added": added, "state": self.teaching.state()})

    async def taught_photo(self, request: Request) -> Response:
        """Return the thumbnail of a photo of Teach."""
        photo = self.teaching.photo(request.path_params["number"])
        return Response(photo.thumbnail, media_type="image/jpeg")

    async def teach_solve(self, request: Request) -> Response:
        """Learn from the photos."""
        await self.teaching.solve()
        return await self.teach_state(request)

    async def teach_ask(self, request: Request) -> Response:
        """Answer a photo by what was learned."""
        answer = await self._with_photo(request, self.teaching.answer)
        return json_response({"answers": [asdict(answer)]})

    async def teach_save(self, request: Request) -> Response:
        """Write the photos into folders, and train on them."""
        name = (await _values(request, _Named)).name
        self.jobs.refuse_second()  # before anything is written
        arguments = await self.teaching.save(name)
        await self.jobs.start(arguments, "save", name)
        return await self.job(request)

    # ---- review ----------------------------------------------------------------------------------

    async def review(self, request: Request) -> Response:
        """Return the photos of a run to look at, read anew."""
        values = await _values(request, _Review)
        run = self._run(values.name)
        if not values.unlabelled.isprintable():
            raise UsageError("expected the path of a folder; received another text; write one")
        folder = Path(values.unlabelled) if values.unlabelled else None
        self.reviewing = await asyncio.to_thread(Reviewing, run, self.decoders, folder)
        return json_response(self.reviewing.state())

    async def review_photo(self, request: Request) -> Response:
        """Return one of these photos."""
        small = request.query_params.get("size") == "small"
        number = request.path_params["number"]
        reviewing = self._reviewing(request.query_params.get("review", ""))
        picture = await reviewing.picture(number, THUMBNAIL if small else LARGEST)
        return Response(picture, media_type="image/jpeg")

    async def review_why(self, request: Request) -> Response:
        """Return what the run's model says of one of these photos, and what speaks for that."""
        values = await _values(request, _PhotoOfReview)
        reviewing = self._reviewing(values.review)
        photo = await reviewing.photo(values.number)
        answering = await self._answering_with(reviewing.run)
        evidence = await answering.evidence(photo)
        answer = await answering.answer(photo)
        return json_response({**evidence, "words": answer.words})

    async def review_decide(self, request: Request) -> Response:
        """Write a decision."""
        values = await _values(request, _Decision)
        reviewing = self._reviewing(values.review)
        made = await reviewing.decide(values.number, values.decision, values.class_number)
        return json_response(made)

    async def review_undo(self, request: Request) -> Response:
        """Take the last decision back."""
        reviewing = self._reviewing((await _values(request, _OfReview)).review)
        return json_response({"undone": await reviewing.undo()})

    async def review_preview(self, request: Request) -> Response:
        """Say what the corrections so far would change on validation."""
        reviewing = self._reviewing((await _values(request, _OfReview)).review)
        arguments = ["review", str(reviewing.run.folder), "--preview"]
        await self.jobs.start(arguments, "preview", reviewing.run.folder.name)
        return await self.job(request)

    async def review_train(self, request: Request) -> Response:
        """Train again with the corrections."""
        values = await _values(request, _Retrain)
        refuse_name(values.new, "a run")
        refuse_existing(self.runs, values.new)
        reviewing = self._reviewing(values.review)
        await self.jobs.start(reviewing.command(values.new), "review", values.new)
        return await self.job(request)

    async def _answering_with(self, run: Run) -> Answering:
        """Return what answers with a run: that of Ask, where it is the same run."""
        for each in (self.answering, self._explaining):
            if each is not None and each.run.folder == run.folder:
                return each
        self._explaining = await asyncio.to_thread(Answering, run, self.decoders)
        return self._explaining

    def _reviewing(self, key: str) -> Reviewing:
        """Return the review under way; refuse one of another list, as of another window."""
        found = self.reviewing
        if found is None or key != found.key:
            raise UsageError(
                "expected a request about the photos that are reviewed now; received one about "
                "another list, perhaps of another window; load the page again"
            )
        return found

    # ---- share -----------------------------------------------------------------------------------

    async def share(self, request: Request) -> Response:
        """Write the folder of a run that answers in a browser."""
        wanted = await _values(request, _Share)
        run = self._run(wanted.run)
        folder = wanted.folder
        if not folder.strip() or folder.startswith("-") or not folder.isprintable():
            raise UsageError(f"expected the path of a new folder; received {folder!r}; write one")
        await self.jobs.start(["share", str(run.folder), folder], "share", folder)
        return await self.job(request)


class _Named(msgspec.Struct):
    name: str


class _Change(msgspec.Struct):
    what: Literal["add", "rename", "remove", "empty", "forget"]
    number: int = 0
    name: str = ""


class _Review(msgspec.Struct):
    name: str
    unlabelled: str = ""


class _OfReview(msgspec.Struct):
    review: str  # its key


class _PhotoOfReview(msgspec.Struct):
    review: str
    number: int


class _Decision(msgspec.Struct):
    review: str
    number: int
    decision: str
    class_number: int | None = None


class _Retrain(msgspec.Struct):
    review: str
    new: str


class _Share(msgspec.Struct):
    run: str
    folder: str


MOST_JSON = 10_000  # bytes of a request that is no photo


async def _values(request: Request, kind: type[Values]) -> Values:
    """Read a request's JSON."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_JSON:
            raise HTTPException(413, "expected a short request; received a long one")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HTTPException(
            400, f"expected the page's own request; received another: {error}"
        ) from None


@functools.cache
def drawn_sample(number: int) -> bytes:
    """Return one of the project's own drawings, a JPEG."""
    kind, seed = SAMPLES[number]
    drawing = draw_animal(kind, np.random.default_rng([seed, number]))
    file = io.BytesIO()
    drawing.image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


async def _refused(_: Request, error: Any) -> Response:
    return error_response(error.status_code, error.detail, error.headers)


async def _mistaken(_: Request, error: Exception) -> Response:
    return error_response(422 if isinstance(error, ImageError) else 400, str(error))


async def _no_disk(_: Request, error: Any) -> Response:
    where = f": {error.filename}" if error.filename else ""
    return error_response(507, f"the disk refused it ({error.strerror or error}){where}")


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


async def _failed(_: Request, __: Exception) -> Response:
    """Answer for an error of ours; Starlette raises it once more, and the middleware reports it."""
    return error_response(500, "the page's program failed; its own messages say where")
