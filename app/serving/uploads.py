"""What the service takes at most, and a request's body → files in memory, never on disk."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from email.message import Message
from typing import NamedTuple, Self

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.core.sanitise import for_terminal

MB = 1_000_000  # as the flags count
LONGEST_NAME = 200  # characters of a file's name that are returned
UNNAMED = "photo"  # the name of a file without one
BROKEN = "expected a form with files; received a broken or cut one"
FORM, BYTES = "multipart/form-data", "application/octet-stream"


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes:
        body: bytes of one request's body.
        files: photos of one request.
        seconds: from a request's beginning to its answer.
        queue: photos that wait or are processed, of all requests together.
        held: bytes of all bodies together that are received or processed.
        batch: photos that go through the network at once, at most.
        wait: seconds that a batch waits for photos that are still being decoded.
        workers: processes that share ``queue``, ``held``, and the cores.
    """

    body: int = 64 * MB
    files: int = 32
    seconds: float = 30.0
    queue: int = 128
    held: int = 512 * MB
    batch: int = 8
    wait: float = 0.005
    workers: int = 1


class Shares:
    """Counts what is taken (connections, places, bytes), all together and by each address.

    Args:
        whole: how much there is.
        each: how much of it one address may take.
        tell: called with how much is taken, whenever that changes.
    """

    def __init__(self, whole: int, each: int, tell: Callable[[int], None] = lambda _: None) -> None:
        self.whole, self.each, self.taken, self._tell = whole, each, 0, tell
        self._by: Counter[str] = Counter()

    def free(self, who: str) -> int:
        """Return how much one address may still take."""
        return min(self.whole - self.taken, self.each - self._by[who])

    def take(self, who: str, amount: int) -> bool:
        """Take an amount if it is free; return whether it was."""
        if amount > self.free(who):
            return False
        self.taken += amount
        self._by[who] += amount
        self._tell(self.taken)
        return True

    def give_back(self, who: str, amount: int) -> None:
        """Return what was taken."""
        self.taken -= amount
        self._by[who] -= amount
        if not self._by[who]:
            del self._by[who]  # addresses are as many as the internet has
        self._tell(self.taken)


class Account:
    """What one request takes of shares; it is given back at the end of the block."""

    def __init__(self, shares: Shares, who: str) -> None:
        self.shares, self.who, self.amount = shares, who, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shares.give_back(self.who, self.amount)

    def take(self, amount: int) -> bool:
        """Take more if it is free; return whether it was."""
        taken = self.shares.take(self.who, amount)
        self.amount += amount * taken
        return taken


def party(client: tuple[str, int] | None) -> str:
    """Return by what a client's address is counted; everyone has 2^64 of IPv6: its first half."""
    host = client[0] if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Upload(NamedTuple):
    """A file of a request: its name, made harmless, and its bytes."""

    name: str
    data: bytes


async def read_files(request: Request, limits: Limits, account: Account) -> list[Upload]:
    """Read a request's body, a form with files or one photo as it is; count its bytes.

    Raises:
        HTTPException: 400 for a broken form or one without a file, 413 for too much, 415 for
            another type or a compressed body, 429 when all bodies together, or those of one
            address, are too large.
        starlette.requests.ClientDisconnect: when the client has disconnected.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind in (FORM, BYTES) or re.fullmatch(r"image/[\w.+-]+", kind)):
        received = repr(for_terminal(kind))
        raise HTTPException(415, f"expected {FORM}, image/... or {BYTES}; received {received}")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        received = repr(for_terminal(encoding))
        message = f"expected no Content-Encoding; received {received}; send the body as it is"
        raise HTTPException(415, message, {"accept-encoding": "identity"})
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limits.body:
        raise _too_large(limits)
    chunks = _limited(request, limits, account)
    if kind == FORM:
        files = await _files_of_form(request, chunks, limits)
    else:
        data = b"".join([chunk async for chunk in chunks])
        files = [Upload(UNNAMED, data)] if data else []
    if not files:
        raise HTTPException(400, "expected a photo; received none; send a file or a form of files")
    return files


def harmless(name: str) -> str:
    r"""Return a file's name without folders, control characters and what exceeds 200 characters."""
    text = for_terminal(re.split(r"[/\\]", name)[-1])
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes files above 1 MB to disk; here, none."""

    spool_max_size = 0  # to tempfile.SpooledTemporaryFile this means: never
    whole = False  # whether the form's last line has come

    def on_headers_finished(self) -> None:
        """Take for files also parts with only ``filename*``, or of a type image/... without a name.

        RFC 7578 (4.2) forbids ``filename*`` in forms, but some clients send it; the form's parser
        passes it over. What fields are called does not matter here.
        """
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        if not {b"name", b"filename"} <= options.keys():
            header = Message()
            header["content-disposition"] = (part.content_disposition or b"").decode("latin-1")
            kind = dict(part.item_headers).get(b"content-type", b"")
            filename = header.get_filename(UNNAMED if kind.lower().startswith(b"image/") else None)
            if filename is not None:
                part.content_disposition = b'form-data; name="photo"; filename="photo"'
                super().on_headers_finished()
                assert part.file  # noqa: S101  it has a file's name
                part.file.filename = filename
                return
        super().on_headers_finished()

    def on_end(self) -> None:
        self.whole = True


async def _limited(
    request: Request, limits: Limits, account: Account
) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        if account.amount + len(chunk) > limits.body:
            raise _too_large(limits)
        if not account.take(len(chunk)):
            message = "too many uploads at the same time; send it again later"
            raise HTTPException(429, message, {"retry-after": "1"})
        yield chunk


async def _files_of_form(
    request: Request, chunks: AsyncGenerator[bytes, None], limits: Limits
) -> list[Upload]:
    async def to_its_last_line() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.whole:  # raised here, where the parser closes what it has begun
            raise MultiPartException(BROKEN)

    # A browser sends an empty file where nothing was chosen: one more than allowed.
    most = limits.files + 1
    too_many = f"expected at most {limits.files} photos in a request; received more"
    parser = _InMemory(request.headers, to_its_last_line(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        if "Too many files" in str(getattr(error, "message", "")):
            raise HTTPException(413, too_many) from None
        raise HTTPException(400, BROKEN) from None
    files = []
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            await value.close()
            if value.filename or data:
                files.append(Upload(harmless(value.filename or "") or UNNAMED, data))
    if len(files) > limits.files:
        raise HTTPException(413, too_many)
    return files


def _too_large(limits: Limits) -> HTTPException:
    message = f"expected at most {limits.body / MB:g} MB in a request; received more"
    return HTTPException(413, message)
