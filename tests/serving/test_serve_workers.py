"""``serve --workers N``: several processes, one port, one set of limits, one set of numbers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from photos import encoded, picture
from served import connect, process, served, tiny_bundle

from app.core.cli import run
from app.inference import predictor
from app.inference.engines import CompiledModel, EngineName, compile_model
from app.inference.predictor import Classifier
from app.serving.decoders import Decoders
from app.serving.serve import main, parser, service_of
from app.serving.server import GracefulServer, room
from app.serving.uploads import MB, Limits

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals to processes are Unix's")
PHOTO = encoded(picture(2, (60, 40)), "JPEG")
HALF = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
HALF += b"Content-Length: 9\r\n\r\nhalf"
ENDED = "ended; every accepted request was answered\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def ask(address: str) -> int:
    """Send one photo on a connection of its own; return the status."""
    headers = {"content-type": "image/jpeg"}
    return httpx.post(
        f"{address}/v1/predict", content=PHOTO, headers=headers, timeout=30
    ).status_code


def workers_of(started: subprocess.Popen[str]) -> list[int]:
    """Return the processes that the service has started to answer."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            words = (path.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == started.pid and b"spawn_main" in words:
            found.append(int(path.parent.name))
    return found


def until(holds) -> None:
    latest = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < latest
        time.sleep(0.05)


def counted(address: str) -> dict[str, float]:
    """Return what /metrics says, without the labels: sums over them."""
    found: Counter[str] = Counter()
    for line in httpx.get(f"{address}/metrics").text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)
    return found


# ---- together ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_count_together(bundle):
    with process(bundle, "--workers", "2") as (started, address, said):
        assert said[-1].endswith("by 2 workers (Ctrl-C ends it)\n")
        assert len(workers_of(started)) == 2
        with ThreadPoolExecutor(4) as pool:
            assert Counter(pool.map(ask, [address] * 30)) == {200: 30}
        for _ in range(6):  # whoever is asked
            found = counted(address)
            assert found["serve_photos_total"] == 30
            assert found["serve_photos_under_way"] == found["serve_held_bytes"] == 0


@pytest.mark.slow
def test_workers_that_are_killed_are_replaced(bundle):
    """What they had counted stays; what they held does not."""
    with (
        process(bundle, "--workers", "2") as (started, address, _),
        contextlib.ExitStack() as stack,
    ):
        assert ask(address) == 200
        for _ in range(8):
            stack.enter_context(connect(address)).sendall(HALF)
        until(lambda: counted(address)["serve_held_bytes"] > 0)
        killed = workers_of(started)
        os.kill(killed[0], signal.SIGKILL)
        assert ask(address) == 200  # the other one
        os.kill(killed[1], signal.SIGKILL)
        until(lambda: len({*workers_of(started)} - {*killed}) == 2)
        for _ in killed:
            line = started.stderr.readline()
            assert line == "a worker ended by itself (exit code -9); another one starts\n"
        assert ask(address) == 200
        found = counted(address)
        assert found["serve_photos_total"] == 3
        assert found["serve_photos_under_way"] == found["serve_held_bytes"] == 0
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        assert started.stderr.read() == ENDED
        assert workers_of(started) == []


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing(bundle):
    """Every request is answered, or its connection was refused: nobody listened any more."""
    told: Counter[str] = Counter()
    ending = threading.Event()

    def keep_asking(address: str) -> None:
        while not ending.is_set():
            try:
                told[str(ask(address))] += 1
            except httpx.ConnectError:
                told["refused"] += 1
                return
            except httpx.HTTPError as error:
                told[repr(error)] += 1

    with process(bundle, "--workers", "3") as (started, address, _):
        threads = [threading.Thread(target=keep_asking, args=[address]) for _ in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: told["200"] >= 100)
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        for thread in threads:
            thread.join(30)
        ending.set()
        assert started.stderr.read() == ENDED
    assert set(told) == {"200", "refused"}, told
    assert told["refused"] == 12


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_workers(bundle):
    with process(bundle, "--workers", "2") as (started, address, _), connect(address) as connection:
        connection.sendall(HALF)
        time.sleep(0.5)
        started.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert started.poll() is None
        started.send_signal(signal.SIGINT)
        assert started.wait(10) == 130
        assert "0 were answered, 0 passed their time limit, and 1 were cut off" in (
            started.stderr.read()
        )


@pytest.mark.slow
def test_workers_end_when_the_first_process_is_killed(bundle):
    with process(bundle, "--workers", "2") as (started, address, _):
        assert ask(address) == 200
        pids = workers_of(started)
        started.kill()
        started.wait()
        until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])


# ---- limits --------------------------------------------------------------------------------------


def test_limits_are_of_all_workers_together(bundle):
    limits = Limits(queue=128, held=512 * MB, body=64 * MB, files=32, workers=4)
    with served(Classifier(bundle), limits) as (_, service):
        assert service.places.whole == 32
        assert service.held.whole == 128 * MB
        assert GracefulServer(service).door.whole == room()[0] // 4
        assert service.batcher.decoders.processes == max((os.cpu_count() or 1) // 4, 1)


@pytest.mark.parametrize(("workers", "threads"), [(1, None), (2, 4), (64, 1)])
def test_workers_share_the_cores(bundle, monkeypatch, workers, threads):
    compiled = []

    def compile_once(engine: EngineName, model: Path, threads: int | None = None) -> CompiledModel:
        compiled.append(threads)
        return compile_model(engine, model, threads)

    monkeypatch.setattr(predictor, "compile_model", compile_once)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    flags = ["--workers", str(workers), "--queue", "2048"]
    service_of(parser().parse_args(flags), bundle, loopback=True)
    assert compiled == [threads]


def test_one_request_fits_into_each_workers_part(bundle):
    flags = ["--workers", "4", "--max-held", "10", "--max-body", "8", "--max-files", "32"]
    service = service_of(parser().parse_args(flags), bundle, loopback=False)
    assert service.held.each == 8 * MB
    assert service.places.each == 32


@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_every_worker_can_decode(monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    made = [Decoders(1, 1, print, workers=workers).processes for workers in (1, 4, 100)]
    assert made == [min(cores, 4), min(max(cores // 4, 1), 4), 1]


def test_a_queue_too_short_for_all_is_refused(bundle, capsys):
    flags = ["--bundle", str(bundle), "--port", "0", "--workers", "5"]
    assert run(main, flags) == 2
    err = capsys.readouterr().err
    assert re.search(r"^error: expected a --queue .*received 128, 32 and 5; ", err)


def test_windows_is_told(bundle, monkeypatch, capsys):
    monkeypatch.delattr(os, "fork")
    assert run(main, ["--bundle", str(bundle), "--port", "0", "--workers", "2"]) == 2
    assert "expected --workers 1 on this system; received 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_one_line(bundle, tmp_path, capfd):
    (tmp_path / "bundle.json").write_bytes((bundle / "bundle.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no model")
    flags = ["--bundle", str(tmp_path), "--port", "0", "--workers", "2"]
    assert run(main, flags) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: expected ")
    assert "SHA-256" in err
    assert err.count("\n") == 1
