"""What one request may hold, and its body → files in memory; nothing is ever written to disk."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple, Self

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.core.sanitise import for_terminal
from app.serving.shares import Shares

MB = 1_000_000  # as the flags count
LONGEST_NAME = 200  # characters of a file's name that are repeated
UNNAMED = "photo"  # what a body without a file's name is called
BROKEN = "expected a form with files; received a broken or cut one"
FORM, BYTES = "multipart/form-data", "application/octet-stream"


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes:
        body: bytes of one request's body.
        files: photos of one request.
        seconds: from a request's beginning to its answer.
        queue: photos that wait or are worked on, of all requests together.
        held: bytes of all bodies together that are received or worked on.
        batch: photos that go through the network at once, at most.
        wait: seconds that a batch waits for photos that are still being decoded.
    """

    body: int = 64 * MB
    files: int = 32
    seconds: float = 30.0
    queue: int = 128
    held: int = 512 * MB
    batch: int = 8
    wait: float = 0.005


class Refused(Exception):
    """Raised for a request that gets no answer: its HTTP status, and why, in words.

    Attributes:
        status: an HTTP status from 400 on.
        retry_after: seconds after which to ask again; None where asking again is of no use.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Upload(NamedTuple):
    """A file of a request: its name, made harmless, and its bytes."""

    name: str
    data: bytes


class Account:
    """What the body of one request holds of the bytes of all; given back at the end of the block.

    Args:
        held: the bytes of all bodies, so that many large ones together do not fill the memory.
        who: the address that sends it.
    """

    def __init__(self, held: Shares, who: str) -> None:
        self.held, self.who, self.bytes = held, who, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.give_back(self.who, self.bytes)

    def add(self, size: int) -> None:
        """Count bytes that have come in.

        Raises:
            Refused: 429, when all requests together, or those of one address, would hold too many.
        """
        if not self.held.take(self.who, size):
            raise Refused(429, "too many uploads at the same time; ask again", retry_after=1)
        self.bytes += size


async def read_files(request: Request, limits: Limits, account: Account) -> list[Upload]:
    """Read a request's body: a form with files, or one photo as it is.

    Raises:
        Refused: 400 for a broken form or one without a file, 413 for too much, 415 for another
            type, 429 as ``Account.add``.
        starlette.requests.ClientDisconnect: when the other side has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind in (FORM, BYTES) or re.fullmatch(r"image/[\w.+-]+", kind)):
        received = repr(for_terminal(kind))
        raise Refused(415, f"expected {FORM}, image/... or {BYTES}; received {received}")
    _refuse_announced(request, limits)
    chunks = _limited(request, limits, account)
    if kind == FORM:
        files = await _files_of_form(request, chunks, limits)
    else:
        data = b"".join([chunk async for chunk in chunks])
        files = [Upload(UNNAMED, data)] if data else []
    if not files:
        raise Refused(400, "expected a photo; received none; send a file or a form with files")
    return files


def harmless(name: str) -> str:
    r"""Return a file's name without folders, control characters and what exceeds 200 characters."""
    last = re.split(r"[/\\]", name)[-1]
    text = for_terminal(last)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes files above 1 MB to disk; here, none."""

    spool_max_size = 0  # to tempfile.SpooledTemporaryFile this means: never
    whole = False  # whether the form's last line has come

    def on_end(self) -> None:
        self.whole = True


def _refuse_announced(request: Request, limits: Limits) -> None:
    """Refuse a body by its Content-Length, before any of it is read."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body:
        raise _too_large(limits)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"expected at most {limits.body / MB:g} MB in a request; received more")


async def _limited(
    request: Request, limits: Limits, account: Account
) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body:
            raise _too_large(limits)
        account.add(len(chunk))
        yield chunk


async def _files_of_form(
    request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits
) -> list[Upload]:
    async def to_its_last_line() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.whole:  # said in here, where the parser closes what it has begun
            raise MultiPartException(BROKEN)

    # An empty file is sent where nothing was chosen: one more than allowed.
    most = limits.files + 1
    parser = _InMemory(request.headers, to_its_last_line(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        if "Too many files" in str(getattr(error, "message", "")):
            raise _too_many(limits) from None
        raise Refused(400, BROKEN) from None
    files = []
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            await value.close()
            if value.filename or data:  # a browser sends an empty one where nothing was chosen
                files.append(Upload(harmless(value.filename or "") or UNNAMED, data))
    if len(files) > limits.files:
        raise _too_many(limits)
    return files


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"expected at most {limits.files} photos in a request; received more")
