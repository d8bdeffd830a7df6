"""Downloads against a real server on this machine that can misbehave in the known ways."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import HTTPSHandler, Request

import pytest

from app.core.errors import FetchError
from app.data.sets import download as module
from app.data.sets.download import download, part_of

BODY = bytes(range(256)) * 4000  # a megabyte, so that a break falls inside
DIGEST = hashlib.sha256(BODY).hexdigest()


@dataclass
class Behaviour:
    """How the server behaves, and what it saw.

    Attributes:
        body: what it serves under every path.
        breaks: after how many bytes each of the first answers is cut off.
        ranges: whether it honours Range.
        statuses: what the first answers are instead of the file; 0 hangs up without one.
        announce: whether it sends Content-Length.
        shift: how far a 206 begins from where it was asked to begin.
        location: where it sends everybody instead of answering.
        seen: the Range header of each request, None where there was none.
    """

    body: bytes = BODY
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    announce: bool = True
    shift: int = 0
    location: str = ""
    seen: list[str | None] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    behaviour: Behaviour


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        how = self.server.behaviour
        asked = self.headers["Range"]
        how.seen.append(asked)
        if how.statuses:
            if status := how.statuses.pop(0):
                self.send_error(status)
            return
        if how.location:
            self.send_response(302)
            self.send_header("Location", how.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        if found and how.ranges:
            start = int(found[1]) + how.shift
            self.send_response(206)
            last, whole = len(how.body) - 1, len(how.body)
            self.send_header("Content-Range", f"bytes {start}-{last}/{whole}")
        else:
            self.send_response(200)
        rest = how.body[start:]
        if how.announce:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: how.breaks.pop(0)] if how.breaks else rest)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve on a free port of this machine; yield the address of a file."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.behaviour = behaviour
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/photos.zip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    """Return a port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "photos.zip"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_arrives_verified(target: Path) -> None:
    with serving(Behaviour()) as url:
        assert download(url, target, sha256=DIGEST.upper(), size=len(BODY)) == target
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["photos.zip"]


def test_a_break_is_resumed_where_it_happened(target: Path) -> None:
    how = Behaviour(breaks=[300_000, 200_000])
    with serving(how) as url:
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert target.read_bytes() == BODY
    assert how.seen == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_call_resumes_what_an_earlier_one_left(target: Path) -> None:
    how = Behaviour(breaks=[100, 100, 100, 100])
    with serving(how) as url:
        with pytest.raises(FetchError, match="400 bytes are kept") as caught:
            download(url, target, sha256=DIGEST, size=len(BODY))
        assert "\n" not in str(caught.value)
        assert names(target.parent) == [part_of(target, url).name]
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert how.seen[-1] == "bytes=400-"
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_starts_again(target: Path) -> None:
    how = Behaviour(breaks=[300_000], ranges=False)
    with serving(how) as url:
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert how.seen == [None, "bytes=300000-"]
    assert target.read_bytes() == BODY


def test_a_part_that_is_whole_is_not_downloaded_again(target: Path) -> None:
    how = Behaviour()
    with serving(how) as url:
        part_of(target, url).write_bytes(BODY)
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert target.read_bytes() == BODY
    assert how.seen == []


def test_a_part_that_is_too_long_is_dropped(target: Path) -> None:
    with serving(Behaviour()) as url:
        part_of(target, url).write_bytes(BODY + b"more")
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert target.read_bytes() == BODY


def test_a_wrong_digest_leaves_nothing(target: Path) -> None:
    reason = f"expected SHA-256 {DIGEST}, received [0-9a-f]+"
    with (
        serving(Behaviour(body=BODY[:-1] + b"x")) as url,
        pytest.raises(FetchError, match=reason),
    ):
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert names(target.parent) == []


def test_a_wrong_size_is_refused_before_it_is_downloaded(target: Path) -> None:
    how = Behaviour(body=b"<html>log in</html>", ranges=False)
    with serving(how) as url:
        part_of(target, url).write_bytes(BODY[:1000])
        with pytest.raises(FetchError, match=r"expected 1,024,000 bytes.* 19\."):
            download(url, target, size=len(BODY))
    assert (
        part_of(target, url).read_bytes() == BODY[:1000]
    )  # a login page does not cost what was there


def test_a_wrong_size_is_noticed_when_none_is_announced(target: Path) -> None:
    reason = "expected 1,024,000 bytes, received 1,024,004"
    with (
        serving(Behaviour(body=BODY + b"more", announce=False)) as url,
        pytest.raises(FetchError, match=reason),
    ):
        download(url, target, size=len(BODY))
    assert names(target.parent) == []


def test_a_range_that_begins_elsewhere_is_not_appended(target: Path) -> None:
    how = Behaviour(shift=5)
    with serving(how) as url:
        part_of(target, url).write_bytes(BODY[:1000])
        download(url, target, size=len(BODY))
    assert target.read_bytes() == BODY
    assert how.seen == ["bytes=1000-", None]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(target: Path) -> None:
    how = Behaviour(statuses=[503, 0, 429])
    with serving(how) as url:
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert len(how.seen) == 4
    target.unlink()
    how = Behaviour(statuses=[404, 404])
    with serving(how) as url, pytest.raises(FetchError, match="answered 404 Not Found"):
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert len(how.seen) == 1


def test_an_existing_file_is_returned_or_refused_but_never_replaced(target: Path) -> None:
    target.write_bytes(BODY)
    how = Behaviour()
    with serving(how) as url:
        assert download(url, target, sha256=DIGEST, size=len(BODY)) == target
        target.write_bytes(b"something of the user's")
        with pytest.raises(FetchError, match="Move it away"):
            download(url, target, sha256=DIGEST, size=len(BODY))
    assert target.read_bytes() == b"something of the user's"
    assert how.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_network_is_one_line_at_once(
    target: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waiting does not make a network"))
    with pytest.raises(FetchError, match=f"Cannot download from {host}.*: no connection") as caught:
        download(f"http://{host}:{closed_port()}/photos.zip", target, size=1)
    assert "\n" not in str(caught.value)
    assert names(target.parent) == []


def test_a_dead_proxy_is_one_line(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(FetchError, match="HTTPS_PROXY"):
        download("http://photos.invalid/photos.zip", target, size=1)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/photos.zip", "photos.zip"])
def test_only_the_web_is_a_source(target: Path, url: str) -> None:
    with pytest.raises(FetchError, match="http:// or https://"):
        download(url, target, size=1)


def test_https_is_not_led_to_an_address_without_it(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_tls(handler: HTTPSHandler, request: Request) -> HTTPResponse:
        return handler.do_open(HTTPConnection, request)

    monkeypatch.setattr(HTTPSHandler, "https_open", without_tls)
    monkeypatch.setenv("no_proxy", "*")
    with serving(Behaviour()) as elsewhere, serving(Behaviour(location=elsewhere)) as url:
        assert download(url, target, size=len(BODY)) == target
        target.unlink()
        with pytest.raises(FetchError, match=r"leads to http://.* not protected by https"):
            download(url.replace("http:", "https:"), target, size=len(BODY), sha256=DIGEST)
    assert names(target.parent) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FetchError, match="Cannot write"):
        download("http://127.0.0.1:9/photos.zip", tmp_path / "file" / "photos.zip", size=1)


def test_what_a_browser_is_downloading_beside_it_is_left_alone(target: Path) -> None:
    """Firefox writes ``photos.zip.part``; it was gone on with, or deleted."""
    browser = target.with_name("photos.zip.part")
    browser.write_bytes(b"another file")
    with serving(Behaviour()) as url:
        with pytest.raises(FetchError, match="not the expected file"):
            download(url, target, sha256="0" * 64, size=len(BODY))
        assert browser.read_bytes() == b"another file"
        download(url, target, sha256=DIGEST, size=len(BODY))
    assert names(target.parent) == ["photos.zip", "photos.zip.part"]
    assert browser.read_bytes() == b"another file"
