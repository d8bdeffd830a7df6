"""One file from the web to disk: resumed after a break, verified, whole or not at all."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from app.core.console import progress_bar
from app.core.errors import FetchError

TIMEOUT = 30.0  # seconds without a byte; slow mobile networks pause for ten to twenty
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try: a router needs about that long
CHUNK = 1 << 18  # bytes; large enough not to cost time, small enough for a smooth bar


class _Broken(Exception):
    """The connection broke; the received bytes are kept and another try may resume them."""


class _HttpsStays(urllib.request.HTTPRedirectHandler):
    """Refuse to be led from https to an address that anybody on the way can change."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        """Return the request for the new address, as ``urllib`` asks it of a handler."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise FetchError(f"{req.full_url} leads to {newurl}, which is not protected by https.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, target: Path, *, size: int, sha256: str | None = None, label: str = ""
) -> Path:
    """Download ``url`` to ``target``, which appears only when it is whole and verified.

    Use it for any file that comes from the web. Received bytes wait in ``part_of`` and are resumed
    by the next try or the next call. A ``target`` that exists already is never overwritten: it is
    returned when it verifies and refused when it does not.

    Args:
        url: an http or https address.
        target: the file to make; missing folders above it are made too. It is returned.
        size: the expected number of bytes.
        sha256: the expected digest, 64 hexadecimal digits, or None when none is published.
        label: the text of the progress bar; the file's name when empty.

    Raises:
        FetchError: the address cannot be reached, the server refuses, the content is not the
            expected one, or the disk cannot be written. The message is one line.

    Source:
        RFC 9110, section 14 (range requests).
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"Expected an address that begins with http:// or https://, got {url!r}.")
    part = part_of(target, url)
    try:
        if target.exists():
            if problem := _mismatch(target, size, sha256):
                raise FetchError(
                    f"{target} is already there and not the expected file: {problem}."
                    " Move it away and run the command again."
                )
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _fill(url, part, size, label or target.name)
        if problem := _mismatch(part, size, sha256):
            part.unlink()
            raise FetchError(
                f"{url} is not the expected file: {problem}. It was deleted; run the command again,"
                " and if this repeats, the file was changed by its owner or on the way."
            )
        part.replace(target)
    except OSError as error:  # of the disk: those of the network are _Broken by now
        raise FetchError(
            f"Cannot write {part}: {error.strerror or error}. Free some space or choose another"
            " folder, then run the command again."
        ) from error
    return target


def part_of(target: Path, url: str) -> Path:
    """Return where the bytes of a download wait until they are all there.

    The name has a digest of the address in it: no other program writes it, so what lies there may
    be resumed or removed. Browsers have ``NAME.part``.
    """
    return target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:32]}.part")


def _mismatch(path: Path, size: int, sha256: str | None) -> str:
    """Return how the file at ``path`` differs from the expected one; empty when it does not."""
    if not path.is_file():
        return "it is not a file"
    if (received := path.stat().st_size) != size:
        return f"expected {size:,} bytes, received {received:,}"
    if sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256.lower():
            return f"expected SHA-256 {sha256.lower()}, received {digest}"
    return ""


def _fill(url: str, part: Path, size: int, label: str) -> None:
    """Try until ``part`` has ``size`` bytes; raise FetchError when the tries are used up."""
    started_with = _length(part)
    with progress_bar() as bar:
        task = bar.add_task(label, total=size, completed=started_with)
        for wait in (*WAITS, None):
            try:
                if _length(part) != size:
                    _receive(url, part, size, lambda done: bar.update(task, completed=done))
                return
            except _Broken as error:
                # Without a first byte there is no network, and waiting does not mend that.
                received = _length(part)
                offline = isinstance(error.__cause__, urllib.error.URLError)
                if wait is None or (offline and received == started_with):
                    kept = f" {received:,} bytes are kept in {part} and will be resumed."
                    raise FetchError(
                        f"Cannot download from {urlsplit(url).netloc}: {error}."
                        f"{kept if received else ''}"
                        " Check the network (and the HTTPS_PROXY setting), then run the command"
                        " again."
                    ) from error
                time.sleep(wait)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, size: int, report: Callable[[int], None]) -> None:
    """Make one request and append what comes to ``part``; raise _Broken when bytes are missing."""
    offset = _length(part)
    if offset > size:
        part.unlink()
        offset = 0
    # Without "identity" a server may compress, and byte positions would mean something else.
    headers = {"User-Agent": "cats-vs-dogs", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={offset}-"} if offset else {}
    opener = urllib.request.build_opener(_HttpsStays)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in {408, 429}:  # the server's trouble, often brief
            raise _Broken(f"the server answered {error.code} {error.reason}") from None
        raise FetchError(
            f"Expected the file at {url}, the server answered {error.code} {error.reason}."
            " The address may have moved, or a proxy refuses it: open it in a browser to see."
        ) from error
    except urllib.error.URLError as error:
        raise _Broken(f"no connection ({error.reason})") from error
    except (OSError, HTTPException) as error:
        raise _Broken(_reason(error)) from error
    with response:
        if response.status != 206:  # the server sends the whole file, not the requested range
            offset = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink(missing_ok=True)
            raise _Broken("the server sent another part of it, so the partial file was deleted")
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and offset + int(announced) != size:
            # Before anything is written: a login page must not cost what is here.
            raise FetchError(
                f"{url}: expected {size:,} bytes, the server announces {offset + int(announced):,}."
                " Perhaps the network answers with a login page: open the address in a browser."
            )
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            received = offset
            while received <= size:  # one byte more than expected is enough to refuse it
                try:
                    chunk = response.read1(CHUNK)
                except (OSError, HTTPException) as error:
                    raise _Broken(_reason(error)) from error
                if not chunk:
                    break
                file.write(chunk)
                received += len(chunk)
                report(received)
    if received < size:
        raise _Broken(f"the connection ended after {received:,} of {size:,} bytes")


def _reason(error: Exception) -> str:
    return f"the connection broke ({error or type(error).__name__})"
