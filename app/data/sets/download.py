"""One file from the web to disk: resumed after a break, verified, whole or not at all.

Transfers are the standard library's; the bar is rich's.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from app.core.console import progress_bar
from app.core.errors import FetchError

TIMEOUT = 30.0  # seconds without a byte; slow mobile networks pause for ten to twenty
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try: a router needs about that long
CHUNK = 1 << 18  # bytes; large enough not to cost time, small enough for a smooth bar


class _Broken(Exception):
    """The connection broke; what has arrived is kept and another try may continue it."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    label: str = "",
) -> Path:
    """Download ``url`` to ``target``, which appears only when it is whole and verified.

    Use it for any file that comes from the web. What has arrived waits in ``part_of``
    and is continued by the next try or the next call. A ``target`` that exists already is never
    overwritten: it is returned when it verifies and refused when it does not.

    Args:
        url: an http or https address.
        target: the file to make; missing folders above it are made too.
        sha256: the expected digest, 64 hexadecimal digits, or None when none is published.
        size: the expected number of bytes, or None when it is not known.
        label: what the progress bar says; the file's name when empty.

    Returns:
        ``target``.

    Raises:
        FetchError: the address cannot be reached, the server refuses, the content is not the
            expected one, or the disk cannot be written. The message is one line.

    Source:
        RFC 9110, sections 14 (range requests) and 15.5.17 (status 416).
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"Expected an address that begins with http:// or https://, got {url!r}.")
    part = part_of(target, url)
    try:
        if target.exists():
            _refuse_other_content(target, sha256, size)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _fill(url, part, size, label or target.name)
        problem = _mismatch(part, sha256, size)
        if problem:
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
    be gone on with or removed. Browsers have ``NAME.part``.
    """
    return target.with_name(f".{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:32]}.part")


def _refuse_other_content(target: Path, sha256: str | None, size: int | None) -> None:
    """Raise FetchError when the file that is already there is not the expected one."""
    problem = "it is not a file" if not target.is_file() else _mismatch(target, sha256, size)
    if problem:
        raise FetchError(
            f"{target} is already there and not the expected file: {problem}."
            " Move it away and run the command again."
        )


def _mismatch(path: Path, sha256: str | None, size: int | None) -> str:
    """Say how the file at ``path`` differs from what was expected; empty when it does not."""
    received = path.stat().st_size
    if size is not None and received != size:
        return f"expected {size:,} bytes, received {received:,}"
    if sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256.lower():
            return f"expected SHA-256 {sha256.lower()}, received {digest}"
    return ""


def _fill(url: str, part: Path, size: int | None, label: str) -> None:
    """Try until ``part`` is whole; raise FetchError when the tries are used up."""
    started_with = _length(part)
    with progress_bar() as bar:
        task = bar.add_task(label, total=size, completed=started_with)

        def report(total: int | None, received: int) -> None:
            bar.update(task, total=total, completed=received)

        for wait in (*WAITS, None):
            try:
                if size is None or _length(part) != size:
                    _receive(url, part, size, report)
                return
            except _Broken as error:
                # Without a first byte there is no network, and waiting does not mend that.
                offline = isinstance(error.__cause__, urllib.error.URLError)
                if wait is None or (offline and _length(part) == started_with):
                    _give_up(url, part, error)
                time.sleep(wait)


def _give_up(url: str, part: Path, error: _Broken) -> NoReturn:
    """Raise the one line for a connection that does not come about or keeps breaking."""
    host = urlsplit(url).netloc
    received = _length(part)
    kept = f" {received:,} bytes are kept in {part} and will be continued." if received else ""
    raise FetchError(
        f"Cannot download from {host}: {error}.{kept}"
        " Check the network (and the HTTPS_PROXY setting), then run the command again."
    ) from error


def _length(path: Path) -> int:
    """Count the bytes of a file; 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def _receive(
    url: str, part: Path, size: int | None, report: Callable[[int | None, int], None]
) -> None:
    """Make one request and write what comes; return when ``part`` is whole, else raise _Broken."""
    offset = _length(part)
    response = _open(url, part, offset)
    if response is None:
        return
    with response:
        offset, total = _where(response, offset)
        if total is not None and size is not None and total != size:
            # Said before anything is written: a login page must not cost the half that is here.
            raise FetchError(
                f"{url}: expected {size:,} bytes, the server announces {total:,}."
                " Perhaps the network answers with a login page: open the address in a browser."
            )
        total = size if total is None else total
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            received = offset
            while chunk := _read(response):
                file.write(chunk)
                received += len(chunk)
                report(total, received)
                if total is not None and received > total:
                    return  # more than was announced: the caller's check refuses it
    if total is not None and received < total:
        raise _Broken(f"the connection ended after {received:,} of {total:,} bytes")


def _open(url: str, part: Path, offset: int) -> HTTPResponse | None:
    """Ask for ``url`` from byte ``offset`` on; None when ``part`` holds everything already."""
    # Without "identity" a server may compress, and byte positions would mean something else.
    headers = {"User-Agent": "cats-vs-dogs", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _judge_refusal(url, part, offset, error)
            return None
    except urllib.error.URLError as error:
        raise _Broken(f"no connection ({error.reason})") from error
    except (OSError, HTTPException) as error:
        raise _Broken(f"the connection broke ({error or type(error).__name__})") from error
    if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
        response.close()
        raise FetchError(f"{url} leads to {response.url}, which is not protected by https.")
    return response


def _judge_refusal(url: str, part: Path, offset: int, error: urllib.error.HTTPError) -> None:
    """Return when a 416 means "you have it all"; otherwise raise what the status calls for."""
    if error.code == 416 and offset:
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == offset:
            return
        part.unlink()
        raise _Broken("the partial file did not fit what the server has, so it was dropped")
    if error.code >= 500 or error.code in {408, 429}:  # the server's trouble, often brief
        raise _Broken(f"the server answered {error.code} {error.reason}")
    raise FetchError(
        f"Expected the file at {url}, the server answered {error.code} {error.reason}."
        " The address may have moved, or a proxy refuses it: open it in a browser to see."
    )


def _where(response: HTTPResponse, offset: int) -> tuple[int, int | None]:
    """Tell at which byte the response begins, and how long the whole file is if announced."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != offset:
            raise FetchError(
                f"{response.url}: expected the bytes from {offset:,} on, received"
                f" {response.headers.get('Content-Range')!r}."
                " Delete the hidden .part file and run again."
            )
        return offset, None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length")  # status 200: the server ignores Range
    return 0, int(length) if length and length.isdigit() else None


def _read(response: HTTPResponse) -> bytes:
    """Read the next bytes; empty at the end."""
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _Broken(f"the connection broke ({error or type(error).__name__})") from error
