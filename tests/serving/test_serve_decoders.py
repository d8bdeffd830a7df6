"""Photos are decoded in processes that may hang, die, or take too much: the service goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import stuck
from photos import encoded, picture
from served import process, served, tiny_bundle

import app.serving.batching
import app.serving.decoders
from app.inference.predictor import Classifier
from app.serving.uploads import Limits

ROOT = Path(__file__).parents[2]
PREDICT = "/v1/predict"
PHOTO = encoded(picture(0), "JPEG")
STUCK = (sys.executable, str(ROOT / "tests" / "stuck.py"))  # decoders that misbehave
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def client(bundle) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.serving.batching, "load_image", stuck.load)
        patch.setattr(app.serving.decoders, "MOST", 1.0)
        patch.setattr(app.serving.decoders, "LEAST", 1.0)
        patch.setattr(app.serving.decoders.os, "cpu_count", lambda: 2)
        with (
            served(Classifier(bundle), Limits(body=1_000_000)) as (address, _),
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            yield client


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", (str(number), data)) for number, data in enumerate(files)]


def lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def until(holds, seconds: float = 10) -> None:
    latest = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < latest
        time.sleep(0.02)


def number_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_what_hangs_is_killed_and_its_neighbours_are_answered(client, tmp_path):
    files = [tmp_path / "0", tmp_path / "1"]
    bad = [b"hold " + os.fsencode(path) + b"\n" for path in files]
    assert client.post(PREDICT, files=form(PHOTO, PHOTO)).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(client.post, PREDICT, files=form(bad[0], PHOTO, bad[1], PHOTO))
        numbers = [number_in(path) for path in files]
        until(lambda: client.get("/readyz").status_code == 503)
        assert "every decoder" in client.get("/readyz").json()["error"]
        assert client.get("/healthz").status_code == 200
        answers = answers.result()
    assert answers.status_code == 200
    errors = [each["error"] for each in answers.json()["answers"]]
    assert errors == ["was not decoded within 1 s", None, "was not decoded within 1 s", None]
    assert not [number for number in numbers if lives(number)]
    assert client.get("/readyz").status_code == 200
    assert client.post(PREDICT, files=form(PHOTO)).status_code == 200
    assert 'serve_decoders_lost_total{reason="late"} 2.0' in client.get("/metrics").text


def test_what_dies_or_eats_costs_its_own_request_only(client):
    for _ in range(3):
        died = client.post(PREDICT, content=b"die ", headers=JPEG)
        assert (died.status_code, died.headers["retry-after"]) == (503, "1")
        assert died.json()["error"] == "the process that decoded a photo ended; send it again"
    if sys.platform == "linux":  # others do not heed RLIMIT_DATA
        ate = client.post(PREDICT, content=b"eat ", headers=JPEG).json()["answers"][0]
        assert ate["error"] in (
            "takes more memory than a photo may; save it again",
            "was not decoded within 1 s",  # on a slow machine
        )
    assert client.post(PREDICT, files=form(PHOTO)).json()["answers"][0]["error"] is None


def test_ctrl_c_while_a_decoder_starts_is_no_end(bundle, monkeypatch):
    """The terminal sends it to all processes, also to one that does not ignore it yet."""
    monkeypatch.setattr(app.serving.decoders, "_prepare", stuck.interrupt)
    with (
        served(Classifier(bundle)) as (address, _),
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        answer = client.post(PREDICT, content=PHOTO, headers=JPEG)
        assert (answer.status_code, answer.json()["answers"][0]["error"]) == (200, None)


@pytest.mark.slow
def test_who_has_gone_leaves_no_decoder_busy_for_ever(client, tmp_path):
    path = tmp_path / "number"
    with contextlib.suppress(httpx.ReadTimeout):
        client.post(
            PREDICT,
            content=b"hold " + os.fsencode(path) + b"\n",
            headers=JPEG,
            timeout=httpx.Timeout(30, read=0.5),
        )
    number = number_in(path)
    until(lambda: not lives(number))
    assert client.post(PREDICT, files=form(PHOTO)).status_code == 200


@pytest.mark.slow
def test_a_file_that_pillow_takes_minutes_for(bundle):
    """Many tiny Exif segments, which it joins one by one: one for each decoder, then a photo."""
    segment = b"\xff\xe1" + (58).to_bytes(2, "big") + b"Exif\0\0" + b"A" * 50
    bad = PHOTO[:2] + segment * 300_000 + PHOTO[2:]
    with (
        process(bundle) as (started, address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        hang = [Asking(client, bad) for _ in range(min(os.cpu_count() or 1, 4))]
        time.sleep(2)
        answer = client.post(PREDICT, content=PHOTO, headers=JPEG)
        assert answer.json()["answers"][0]["error"] is None
        started.terminate()
        assert started.wait(20) == 0
        for asking in hang:
            asking.join()
            assert asking.status == 200  # with its reason


# ---- the end -------------------------------------------------------------------------------------


@contextlib.contextmanager
def misbehaving(bundle: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    with (
        process(bundle, *flags, command=STUCK) as (started, address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield started, client


class Asking(threading.Thread):
    """One photo that is asked for beside the test."""

    def __init__(self, client: httpx.Client, data: bytes) -> None:
        super().__init__()
        self.client, self.data, self.status = client, data, 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self.status = self.client.post(PREDICT, content=self.data, headers=JPEG).status_code


@pytest.mark.slow
def test_an_end_comes_and_says_what_was_not_answered(bundle, tmp_path):
    """SIGTERM while every decoder hangs, and a photo waits behind them."""
    many = 2 * (os.cpu_count() or 1)
    paths = [tmp_path / str(number) for number in range(many)]
    with misbehaving(bundle, "--timeout", "3") as (started, client):
        hang = [Asking(client, b"hold " + os.fsencode(path) + b"\n") for path in paths]
        until(lambda: any(path.exists() for path in paths))
        waits = Asking(client, PHOTO)
        time.sleep(0.1)
        started.terminate()
        begun = time.monotonic()
        assert started.wait(20) == 0
        assert time.monotonic() - begun < 8
        for asking in (*hang, waits):
            asking.join()
        assert {asking.status for asking in (*hang, waits)} == {504}
        assert started.stderr.read() == (
            f"ended; of the requests since the signal 0 were answered, {many + 1} passed their "
            "time limit, and 0 were cut off\n"
        )
        numbers = [int(path.read_text()) for path in paths if path.exists()]
        assert not [number for number in numbers if lives(number)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_all_processes_waits_for_answers(bundle, tmp_path, name):
    """Ctrl-C and a closed terminal reach the decoders, too; so does systemd's SIGTERM."""
    path = tmp_path / "number"
    with misbehaving(bundle) as (started, client):
        asking = Asking(client, b"wait " + os.fsencode(path) + b"\n" + PHOTO)
        number_in(path)
        os.killpg(started.pid, getattr(signal, name))
        assert started.wait(20) == 0
        asking.join()
        assert asking.status == 200
        assert started.stderr.read() == "ended; every accepted request was answered\n"


@pytest.mark.slow
def test_killed_itself_it_leaves_no_decoder(bundle, tmp_path):
    path = tmp_path / "number"
    with misbehaving(bundle, "--timeout", "2") as (started, client):
        asking = Asking(client, b"hold " + os.fsencode(path) + b"\n")
        number = number_in(path)
        started.kill()
        started.wait()
        asking.join()
        assert lives(number)
        until(lambda: not lives(number))


def test_a_decoder_brings_little(bundle):
    """It starts fast and holds little: no network is loaded there, and no web server."""
    code = (
        "import sys, app.serving.decoders; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('onnxruntime', 'starlette', 'uvicorn', 'keras', 'scipy', 'rich', 'prometheus_client')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
