"""Connections that take and do not give, and what the service builds on of uvicorn."""

import asyncio
import contextlib
import inspect
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import h11
import httpx
import pytest
from photos import encoded, picture
from served import connect, place, process, read_all, served, tiny_bundle
from uvicorn.protocols.http import h11_impl

import app.serving.connections
import app.serving.server
from app.inference.predictor import Classifier
from app.serving.connections import Connection, Door, Strict
from app.serving.server import room
from app.serving.service import Service
from app.serving.uploads import Limits, Shares, party

resource = pytest.importorskip("resource", reason="Windows counts no open files")
ROOT = Path(__file__).parents[2]
PHOTO = encoded(picture(0), "JPEG")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def address(bundle) -> Iterator[str]:
    with served(Classifier(bundle)) as (address, _):
        yield address


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(app.serving.connections, "PATIENCE", 0.3)


def asked(lines: str, body: bytes = b"", method: str = "POST /v1/predict") -> bytes:
    return f"{method} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + body


def told(address: str, data: bytes) -> bytes:
    with connect(address) as connection:
        connection.sendall(data)
        return read_all(connection)


# ---- who takes no answer -------------------------------------------------------------------------


def never_reads(address: str) -> socket.socket:
    """Ask for the page's script again and again, and take nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(place(address))
    connection.settimeout(1)
    with contextlib.suppress(TimeoutError, ConnectionError):
        connection.sendall(asked("", method="GET /page.js") * 600)
    return connection


def test_who_takes_no_answer_is_let_go(bundle, impatient, monkeypatch):
    """All places taken by clients that pipeline requests and read nothing."""
    monkeypatch.setattr(app.serving.server, "MAX_CONNECTIONS", 3)
    with served(Classifier(bundle)) as (address, service), contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(never_reads(address))
        latest = time.monotonic() + 10
        while True:
            with contextlib.suppress(httpx.TransportError):
                assert httpx.get(f"{address}/healthz").status_code == 200
                break
            assert time.monotonic() < latest
            time.sleep(0.1)
    assert not service.app.since_the_end["cut"]


def test_who_takes_little_by_little_is_served(bundle, monkeypatch):
    """Slow is not silent: five looks pass while the answers are taken."""
    monkeypatch.setattr(app.serving.connections, "PATIENCE", 0.2)  # a busy machine pauses the test
    with served(Classifier(bundle)) as (address, _), socket.socket() as connection:
        one = len(httpx.get(f"{address}/page.js").content)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(place(address))
        count = 400
        connection.sendall(asked("", method="GET /page.js") * count)
        size, latest = 0, time.monotonic() + 1
        while time.monotonic() < latest:
            size += len(connection.recv(4000))
            time.sleep(0.002)
        connection.settimeout(10)
        while size < count * one:
            received = connection.recv(65536)
            assert received, f"cut off after {size} bytes of at least {count * one}"
            size += len(received)


# ---- places --------------------------------------------------------------------------------------


def test_shares():
    shares = Shares(10, 6)
    assert shares.take("a", 6)
    assert not shares.take("a", 1)
    assert (shares.free("a"), shares.free("b")) == (0, 4)
    assert not shares.take("b", 5)
    assert shares.take("b", 4)
    shares.give_back("a", 6)
    assert (shares.taken, shares.free("a")) == (4, 6)


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3::4", 1), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (None, ""),
    ],
)
def test_an_address_by_which_is_counted(client, counted):
    assert party(client) == counted


def test_one_address_takes_half_at_most(bundle, monkeypatch, capfd):
    monkeypatch.setattr(app.serving.server, "MAX_CONNECTIONS", 8)
    limits = Limits(held=200_000, body=100_000)
    with (
        served(Classifier(bundle), limits, loopback=False) as (address, _),
        contextlib.ExitStack() as stack,
    ):
        greedy = [stack.enter_context(connect(address)) for _ in range(9)]
        time.sleep(0.1)
        refused = 0
        for connection in greedy:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                refused += connection.recv(1) == b""
        assert refused == 5
        for _ in range(2):  # one holds half of the bytes, too
            half = asked("Content-Type: image/jpeg\r\nContent-Length: 90000\r\n", bytes(45_000))
            with contextlib.suppress(ConnectionError):
                [c.sendall(half) for c in greedy]
        time.sleep(0.1)
        try:
            other = connect(address, source_address=("127.0.0.2", 0))
        except OSError:
            pytest.skip("a system with one address of its own only")
        with other:
            kind = f"Content-Type: image/jpeg\r\nContent-Length: {len(PHOTO)}\r\n"
            other.sendall(asked(f"{kind}Connection: close\r\n", PHOTO))
            assert read_all(other).startswith(b"HTTP/1.1 200 ")
    err = capfd.readouterr().err
    assert err.count("a connection was refused: 4 are open, and at most 8 may be, 4 of one") == 1
    assert err.count("\n") == 1


def test_where_only_this_machine_can_ask_it_has_all(bundle):
    service = Service(Classifier(bundle), Limits())
    assert service.places.each == service.places.whole
    others = Service(Classifier(bundle), Limits(), loopback=False)
    assert others.places.each == others.places.whole // 2
    assert others.held.each == others.held.whole // 2


def test_connections_are_as_many_as_files(monkeypatch):
    asked_for = []

    def has(soft: int, hard: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked_for.append(wanted))

    for soft, hard, connections in ((256, -1, 512), (1024, 4096, 512), (-1, -1, 512), (64, 64, 24)):
        has(soft, hard)
        most, backlog = room()
        assert most == connections
        assert backlog >= 1
        assert most + backlog + app.serving.server.OTHER_FILES <= (hard if hard > 0 else 1024)
    assert asked_for == [(672, -1), (64, 64)]


# ---- framing -------------------------------------------------------------------------------------


def crumbs(size: int, count: int) -> bytes:
    return (b"%x\r\n" % size + b"x" * size + b"\r\n") * count


CHUNKED = "Content-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (asked(CHUNKED, crumbs(1, 3000)), 400),
        (asked(CHUNKED + "Connection: close\r\n", crumbs(1, 900) + b"0\r\n\r\n"), 200),
        (asked(CHUNKED + "Connection: close\r\n", crumbs(300, 3000) + b"0\r\n\r\n"), 200),
        (asked(CHUNKED + "Content-Length: 5\r\n", b"0\r\n\r\n"), 400),
        # Two in one connection: each has its pieces.
        (
            asked(CHUNKED, crumbs(1, 900) + b"0\r\n\r\n")
            + asked(CHUNKED + "Connection: close\r\n", crumbs(1, 900) + b"0\r\n\r\n"),
            200,
        ),
    ],
    ids=["crumbs", "few crumbs", "small pieces", "two lengths", "each its own"],
)
def test_framing(address, data, status):
    answers = re.findall(rb"HTTP/1.1 (\d+) ", told(address, data))
    assert {int(each) for each in answers} == {status}


def test_rubbish_after_an_answer_is_no_traceback(address, capfd, caplog):
    """415 has been said already when the framing breaks: there is no second answer."""
    kind = "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
    with connect(address) as connection:
        connection.sendall(asked(kind, b"1\r\nx\r\n"))
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"rubbish\r\n")
        connection.settimeout(5)
        assert read_all(connection) == b""
    assert (capfd.readouterr().err, caplog.records) == ("", [])


# ---- half of a connection ------------------------------------------------------------------------


def test_who_shuts_the_own_side_is_answered(address):
    kind = f"Content-Type: image/jpeg\r\nContent-Length: {len(PHOTO)}\r\n"
    with connect(address) as connection:
        connection.sendall(asked(kind, PHOTO))
        connection.shutdown(socket.SHUT_WR)
        started = time.monotonic()
        answer = read_all(connection)
        assert time.monotonic() - started < 10
    assert b"HTTP/1.1 200 " in answer
    assert b'"answers": [{' in answer


def test_half_a_request_and_a_shut_side_is_the_end(address):
    with connect(address) as connection:
        connection.sendall(asked("Content-Type: image/jpeg\r\nContent-Length: 100\r\n", b"half"))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


# ---- what it builds on ---------------------------------------------------------------------------


def test_what_uvicorn_must_have():
    """A new version without one of these must be looked at (app/serving/connections.py)."""

    class Sent(asyncio.Transport):
        data = b""

        def write(self, data):
            self.data += data

        def is_closing(self):
            return False

        def close(self):
            pass

        def get_write_buffer_size(self):
            return 0

        def set_write_buffer_limits(self, high=None, low=None):
            assert high == 0

        def get_extra_info(self, name, default=None):
            return ("192.0.2.7", 80) if name == "peername" else default

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def walk() -> None:
        config = h11_impl.Config(application, http=h11_impl.H11Protocol, log_config=None)
        state = h11_impl.ServerState()
        one = Connection(Door(1, 1), config=config, server_state=state, app_state={})
        transport = Sent()
        one.connection_made(transport)
        assert one in state.connections
        assert one.transport is transport
        assert (one.loop, one.client) == (asyncio.get_running_loop(), ("192.0.2.7", 80))
        assert one.cycle is None
        assert one.timeout_keep_alive_task is None
        assert isinstance(one.conn, Strict)
        one.data_received(asked("Content-Length: 2\r\n", b"x"))
        assert one.scope["http_version"] == "1.1"
        cycle = one.cycle
        assert (cycle.response_started, cycle.response_complete, cycle.more_body) == (
            False,
            False,
            True,
        )
        one.data_received(b"x")
        assert not cycle.more_body
        await asyncio.gather(*state.tasks)
        assert (cycle.response_started, cycle.response_complete) == (True, True)
        assert one.timeout_keep_alive_task is not None
        assert transport.data.startswith(b"HTTP/1.1 204 ")
        one.connection_lost(None)
        assert one not in state.connections
        assert one.door.taken == 0

    asyncio.run(walk())
    for name in ("on_response_complete", "send_400_response", "resume_writing", "eof_received"):
        base = inspect.signature(getattr(h11_impl.H11Protocol, name))
        assert (
            str(base).split(" ->")[0]
            == str(inspect.signature(getattr(Connection, name))).split(" ->")[0]
        )
    assert issubclass(h11.RemoteProtocolError, h11.ProtocolError)


# ---- few files -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_few_files_and_many_connections(bundle):
    """``ulimit -n 64`` and 40 connections: not a page of tracebacks, and it goes on."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with process(bundle, preexec_fn=few) as (started, address, _):
        kind = {"content-type": "image/jpeg"}
        with httpx.Client(base_url=address, timeout=30) as client, contextlib.ExitStack() as stack:
            assert client.post("/v1/predict", content=PHOTO, headers=kind).status_code == 200
            for _ in range(40):
                stack.enter_context(connect(address))
            assert client.post("/v1/predict", content=PHOTO, headers=kind).status_code == 200
        started.terminate()
        _, err = started.communicate(timeout=20)
        assert err.count("\n") <= 3, err
        assert "a connection was refused" in err
