"""The service over a real socket: the right answers, its limits, and its end."""

import asyncio
import contextlib
import io
import json
import re
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from photos import encoded, make_photo, picture
from PIL import Image
from served import CLASSES, connect, process, proxied, read_all, served, tiny_bundle

import app.serving.connections
import app.serving.server
from app.core.cli import run
from app.core.errors import BundleError
from app.data.decode import load_image, read_image
from app.inference.heatmap import contrastive_cam, overlay
from app.inference.predictor import Classifier
from app.serving.serve import main
from app.serving.uploads import LONGEST_NAME, Limits, harmless

ROOT = Path(__file__).parents[2]
PREDICT = "/v1/predict"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def service(bundle):
    with served(Classifier(bundle)) as (address, service):
        yield address, service


@pytest.fixture
def client(service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service[0], timeout=30) as client:
        yield client


@contextlib.contextmanager
def asking(classifier: Classifier, **limits: float) -> Iterator[httpx.Client]:
    """Serve with other limits for a while."""
    with (
        served(classifier, Limits(**limits)) as (address, _),  # type: ignore[arg-type]
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        yield client


class Held(Classifier):
    """A classifier that answers when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go, self.asked = threading.Event(), threading.Event()
        self.first = True  # the one that the service itself asks

    def outputs(self, images):
        if not self.first:
            self.asked.set()
            assert self.go.wait(30)
        self.first = False
        return super().outputs(images)


@pytest.fixture
def held(bundle) -> Iterator[Held]:
    classifier = Held(bundle)
    yield classifier
    classifier.go.set()


def photo(seed: int = 0) -> bytes:
    return encoded(picture(seed), "JPEG")


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photos", file) for file in files]


def bomb() -> bytes:
    """Return a small file whose header announces 900 million pixels."""
    data = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def head(address: str, *lines: str, path: str = PREDICT, method: str = "POST") -> bytes:
    host = address.removeprefix("http://")
    text = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""])
    return text.encode()


# ---- answers -------------------------------------------------------------------------------------


def test_answers_are_those_of_predict_py(client, bundle, tmp_path):
    """Broken files and bombs among them get their reasons, the others their answers."""
    paths = [make_photo(tmp_path / f"{seed}.png", seed, (60, 40)) for seed in range(9)]
    for name, data in (("bomb.png", bomb()), ("empty.jpg", b""), ("cut.jpg", photo()[:300])):
        paths.insert(3, tmp_path / name)
        paths[3].write_bytes(data)
    expected = [asdict(answer) for answer in Classifier(bundle).answers(paths)]
    response = client.post(PREDICT, files=form(*((p.name, p.read_bytes()) for p in paths)))
    assert response.status_code == 200
    answers = response.json()["answers"]
    assert [answer["path"] for answer in answers] == [path.name for path in paths]
    assert len({answer["label"] for answer in answers}) >= 4
    assert "pixels, more than" in answers[5]["error"]
    for answer, wanted in zip(answers, expected, strict=True):
        assert (answer["label"], answer["error"]) == (wanted["label"], wanted["error"])
        if not answer["error"]:
            assert list(answer["probabilities"]) == list(CLASSES)
            assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
            assert answer["novelty"] == pytest.approx(wanted["novelty"], abs=1e-4)


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "IMAGE/X; a=b"])
def test_a_photo_as_it_is(client, bundle, tmp_path, kind):
    (tmp_path / "photo").write_bytes(photo(5))
    (wanted,) = Classifier(bundle).answers([tmp_path / "photo"])
    response = client.post(PREDICT, content=photo(5), headers={"content-type": kind})
    (answer,) = response.json()["answers"]
    assert answer["path"] == "photo"
    assert answer["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


def test_many_at_once_get_their_own_answers_together(held):
    """While the first is at the network, the others gather, and go together."""
    photos = [photo(seed) for seed in range(9)]
    with asking(held, batch=8) as client, ThreadPoolExecutor(9) as pool:
        jpeg = {"content-type": "image/jpeg"}
        first = pool.submit(client.post, PREDICT, content=photos[0], headers=jpeg)
        assert held.asked.wait(30)
        rest = [pool.submit(client.post, PREDICT, content=p, headers=jpeg) for p in photos[1:]]
        while "serve_decode_seconds_count 9.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        held.go.set()
        answers = [each.result().json()["answers"][0] for each in (first, *rest)]
        metrics = client.get("/metrics").text
    assert "serve_batch_photos_count 2.0" in metrics
    assert "serve_batch_photos_sum 9.0" in metrics
    images = np.stack([load_image(data, held.bundle.image_size) for data in photos])
    rows, _ = held.outputs(images)
    found = np.array([list(answer["probabilities"].values()) for answer in answers])
    np.testing.assert_allclose(found, rows, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/etc/pass\u202ewd", "pass\\u202ewd"),
        ("C:\\me\\a\x1b[0m.jpg", "a\\x1b[0m.jpg"),
        ("x" * 500, "x" * (LONGEST_NAME - 1) + "…"),
        ("ä b.jpg", "ä b.jpg"),
    ],
)
def test_names_are_made_harmless(name, shown):
    assert harmless(name) == shown


def test_a_name_comes_back_harmless(client):
    response = client.post(PREDICT, files=form(("../../a\x1b<b>.jpg", photo())))
    assert response.json()["answers"][0]["path"] == "a\\x1b<b>.jpg"


def test_the_heat_map_is_that_of_the_likeliest_class(client, bundle):
    data = encoded(picture(3, (900, 600)), "PNG")
    response = client.post("/v1/explain", files=form(("a.png", data)))
    assert response.headers["content-type"] == "image/png"
    classifier = Classifier(bundle)
    small = load_image(data, classifier.bundle.image_size)[None]
    maps = classifier.activation_maps(small)[0]
    likeliest = int(classifier.outputs(small)[0][0].argmax())
    expected = np.asarray(overlay(read_image(data), contrastive_cam(maps, likeliest)), np.int16)
    found = np.asarray(Image.open(io.BytesIO(response.content)), np.int16)
    assert found.shape == expected.shape == (427, 640, 3)
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([("a.txt", b"text")], 422, "not a photo: text"),
        ([("a.jpg", photo()), ("b.jpg", photo())], 400, "expected one photo; received 2"),
    ],
)
def test_what_has_no_heat_map_is_told(client, files, status, words):
    response = client.post("/v1/explain", files=form(*files))
    assert (response.status_code, response.json()) == (status, {"error": words})


# ---- refusals ------------------------------------------------------------------------------------

BROKEN = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nhalf'
WHOLE = BROKEN + b"\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("text/plain", b"x", 415, "received 'text/plain'"),
        ("", b"x", 415, "received ''"),
        ("image/", b"x", 415, "expected multipart/form-data, image/..."),
        ("image/jpeg", b"", 400, "expected a photo; received none"),
        ("multipart/form-data", BROKEN, 400, "broken or cut"),
        ("multipart/form-data; boundary=x", BROKEN, 400, "broken or cut"),
        ("multipart/form-data; boundary=x", WHOLE + BROKEN, 400, "broken or cut"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400, "expected a photo; received none"),
        ("multipart/form-data; boundary=x", b"\xff" * 99, 400, "broken or cut"),
        ("image/jpeg", bytes(300_001), 413, "at most 0.3 MB"),
    ],
)
def test_wrong_bodies_are_refused(small, kind, body, status, words):
    headers = {"content-type": kind} if kind else {}
    for content in (body, iter([body])):  # with its length before it, and without
        response = small.post(PREDICT, content=content, headers=headers)
        assert response.status_code == status
        assert re.search(words, response.json()["error"])


@pytest.fixture(scope="module")
def small(bundle):
    with asking(Classifier(bundle), body=300_000, files=3) as client:
        yield client


def test_a_refusal_arrives_also_while_the_body_is_still_being_sent(small):
    """Nginx asks for a closed connection; one with unread bytes is reset, and it answers 502."""
    for headers, status in (
        ({"content-type": "image/jpeg"}, 413),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "image/jpeg", "content-encoding": "gzip"}, 415),
        ({"content-type": "image/jpeg", "origin": "http://evil.example"}, 403),
        ({"content-type": "image/jpeg", "host": "evil.example"}, 421),
    ):
        with connect(str(small.base_url).rstrip("/")) as connection:
            lines = [f"{name}: {value}" for name, value in headers.items()]
            request = head(
                str(small.base_url).rstrip("/"),
                "Connection: close",
                "Content-Length: 20000000",
                *lines,
            )
            if "host" in headers:  # two of them would be no HTTP
                request = request.replace(b"127.0.0.1", b"evil.example", 1).replace(
                    b"host: ", b"x: "
                )
            connection.sendall(request + bytes(20_000_000))
            assert connection.recv(4096).startswith(f"HTTP/1.1 {status} ".encode()), headers


def test_too_many_files_are_refused(small):
    files = [(f"{number}.jpg", photo(number)) for number in range(5)]
    assert small.post(PREDICT, files=form(*files[:3])).status_code == 200
    for some in (files[:4], files):
        response = small.post(PREDICT, files=form(*some))
        assert response.status_code == 413
        assert response.json()["error"].startswith("expected at most 3 photos")


def test_fields_without_a_file_are_passed_over(client):
    response = client.post(PREDICT, files=form(("a.jpg", photo())), data={"note": "mine"})
    assert [answer["error"] for answer in response.json()["answers"]] == [None]
    none = client.post(PREDICT, files=[("x", ("", b"")), ("y", (None, b"1"))])
    assert none.status_code == 400


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("form-data; name=a; filename*=UTF-8''na%C3%AFve.jpg", "naïve.jpg"),
        ("form-data; filename*=UTF-8''..%2Fa%0D.jpg", r"a\r.jpg"),
        ("form-data; filename=a.jpg", "a.jpg"),
        ("form-data; name=a\r\nContent-Type: image/jpeg", "photo"),
        ("form-data\r\nContent-Type: IMAGE/x", "photo"),
    ],
)
def test_a_part_with_any_name_of_a_file_or_a_type_of_images_is_a_photo(client, part, name):
    head = f"--x\r\nContent-Disposition: {part}\r\n\r\n"
    large = encoded(Image.effect_noise((1500, 1500), 99), "PNG")
    body = b"".join(head.encode() + data + b"\r\n" for data in (photo(), large)) + b"--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answers = client.post(PREDICT, content=body, headers=headers).json()["answers"]
    assert len(large) > 1_048_576  # a field would be cut here
    assert [(each["path"], each["error"]) for each in answers] == [(name, None)] * 2


def test_compressed_bodies_are_refused(client):
    for encoding, status in (("gzip", 415), ("identity, br", 415), ("Identity", 200)):
        headers = {"content-type": "image/jpeg", "content-encoding": encoding}
        response = client.post(PREDICT, content=photo(), headers=headers)
        assert response.status_code == status, encoding
        if status == 415:
            assert response.headers["accept-encoding"] == "identity"
            assert f"received '{encoding}'; send the body as it is" in response.json()["error"]


def test_a_full_queue_says_when_to_come_back(held):
    """Whoever is inside is answered all the same."""
    with asking(held, queue=2, files=2) as client, ThreadPoolExecutor(1) as pool:
        files = form(("a.jpg", photo(1)), ("b.jpg", photo(2)))
        inside = pool.submit(client.post, PREDICT, files=files)
        assert held.asked.wait(30)
        refused = client.post(PREDICT, files=files[:1])
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 photos are waiting" in refused.json()["error"]
        held.go.set()
        assert len(inside.result().json()["answers"]) == 2
        assert client.post(PREDICT, files=files).status_code == 200


def test_all_bodies_together_are_limited(held):
    with asking(held, held=5000) as client, ThreadPoolExecutor(1) as pool:
        send = {"content": photo() + bytes(3000), "headers": {"content-type": "image/jpeg"}}
        inside = pool.submit(client.post, PREDICT, **send)
        assert held.asked.wait(30)
        refused = client.post(PREDICT, **send)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        held.go.set()
        assert inside.result().status_code == 200
        assert client.post(PREDICT, **send).status_code == 200  # it was given back


def test_a_request_has_its_time(held):
    with asking(held, seconds=0.3) as client:
        address = str(client.base_url)
        late = client.post(PREDICT, files=form(("a.jpg", photo())))
        assert (late.status_code, late.json()) == (504, {"error": "no answer within 0.3 s"})
        with connect(address) as connection:  # half of a body, and silence
            lines = ["Content-Type: image/jpeg", "Content-Length: 1000", "Connection: close"]
            connection.sendall(head(address, *lines) + b"half")
            assert read_all(connection).startswith(b"HTTP/1.1 408 ")
        held.go.set()
        assert "serve_photos_under_way 0.0" in client.get("/metrics").text
        latest = time.monotonic() + 10  # 0.3 s do not suffice to start a decoder on a busy machine
        while client.post(PREDICT, files=form(("a.jpg", photo()))).status_code != 200:
            assert time.monotonic() < latest


def test_who_has_gone_is_not_waited_for(held):
    with asking(held) as client:
        address, data = str(client.base_url), photo()
        lines = ["Content-Type: image/jpeg", f"Content-Length: {len(data)}"]
        with connect(address) as connection:
            connection.sendall(head(address, *lines) + data)
            assert held.asked.wait(30)
        with connect(address) as connection:  # gone with half of its body
            connection.sendall(head(address, *lines) + data[:9])
        latest = time.monotonic() + 10
        while "serve_photos_under_way 0.0" not in (text := client.get("/metrics").text):
            assert time.monotonic() < latest
        held.go.set()
        assert client.post(PREDICT, files=form(("a.jpg", data))).status_code == 200
        assert "serve_held_bytes 0.0" in client.get("/metrics").text
        assert text


def test_silent_connections_end(bundle, monkeypatch):
    monkeypatch.setattr(app.serving.connections, "PATIENCE", 0.2)
    monkeypatch.setattr(app.serving.server, "MAX_CONNECTIONS", 3)
    with asking(Classifier(bundle)) as client:
        address = str(client.base_url)
        with contextlib.ExitStack() as stack:
            some = [stack.enter_context(connect(address)) for _ in range(3)]
            time.sleep(0.05)
            with connect(address) as one_too_many:
                assert one_too_many.recv(1) == b""
            assert [read_all(connection) for connection in some] == [b""] * 3
            silent = [stack.enter_context(connect(address)) for _ in range(3)]
            silent[1].sendall(b"GET / HT")
            silent[2].sendall(head(address, path="/healthz", method="GET"))
            while not (answer := silent[2].recv(4096)).endswith(b"}"):
                assert answer
            time.sleep(0.5)  # kept beyond that patience, until half of a next head has come
            silent[2].sendall(b"GET / HT")
            assert [read_all(connection) for connection in silent] == [b""] * 3
        assert client.get("/healthz").status_code == 200


def test_other_hosts_and_other_sites_are_refused(client, bundle):
    """DNS rebinding, and forms on foreign pages."""
    port = client.base_url.port
    for host, status in (
        (f"localhost:{port}", 200),
        ("127.0.0.2", 200),
        (f"[::1]:{port}", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
    ):
        assert client.get("/v1/model", headers={"host": host}).status_code == status, host
    for origin, status in (
        (f"http://127.0.0.1:{port}", 200),
        ("http://evil.example:80", 403),
        (f"http://localhost:{port}", 403),
        ("null", 403),
    ):
        response = client.post(PREDICT, files=form(("a", photo())), headers={"origin": origin})
        assert response.status_code == status, origin
        if "evil" in origin:
            assert response.json()["error"].endswith("a proxy, start it with --name evil.example")
        elif status != 200:
            assert re.search("--name localhost|own address", response.json()["error"])
    with (
        served(Classifier(bundle), names=["cats.example"]) as (address, _),
        httpx.Client(base_url=address) as other,
    ):
        headers = {"host": "cats.example", "origin": "https://cats.example"}
        assert other.get("/v1/model", headers=headers).status_code == 200
        assert other.get("/v1/model", headers={"origin": headers["origin"]}).status_code == 200
    with (
        served(Classifier(bundle), names=["cats.example"], loopback=False) as (address, _),
        httpx.Client(base_url=address) as other,
    ):
        for host, status in (("cats.example", 200), ("192.0.2.7", 200), ("evil.example", 421)):
            response = other.get("/v1/model", headers={"host": host})
            assert response.status_code == status, host
        assert response.json()["error"].endswith("start it with --name evil.example")
        assert other.get("/", headers={"host": socket.gethostname()}).status_code == 421
    # An empty name is none: no Host, and "Origin: null" of a sandboxed frame, would match it.
    with (
        served(Classifier(bundle), names=[""], loopback=False) as (address, _),
        connect(address) as connection,
    ):
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost:\r\nOrigin: null\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("removes", [True, False])
def test_the_page_works_below_a_path_of_a_proxy(bundle, removes):
    """All that it loads and asks is relative to it, and it is asked with a slash at its end."""
    prefix = "" if removes else "/all/cats"
    with (
        served(Classifier(bundle), prefix=prefix) as (address, _),
        proxied(address, "/all/cats", removes=removes) as offered,
        httpx.Client() as client,
    ):
        page = client.get(f"{offered}/all/cats/")
        text = page.text + client.get(urljoin(str(page.url), "page.js")).text
        named = re.findall(r'(?:href=|src=|fetch\(|ask\(|from )"([^"]+)"', text)
        scripts, calls = {"page.js", "./answers.js"}, {"v1/model", "v1/predict", "v1/explain"}
        assert {"page.css", *scripts, *calls} <= set(named)
        for each in named:
            status = client.get(urljoin(str(page.url), each)).status_code
            assert status == (405 if each in ("v1/predict", "v1/explain") else 200), each
        headers = {"origin": offered}
        files = form(("a.jpg", photo()))
        response = client.post(f"{offered}/all/cats/v1/predict", files=files, headers=headers)
        assert response.json()["answers"][0]["error"] is None
        assert client.get(f"{offered}/all/cats/v1/model/").status_code == 404
        if not removes:
            bare = client.get(f"{offered}{prefix}", follow_redirects=True)
            assert (bare.url, bare.text) == (page.url, page.text)
            document = client.get(f"{offered}{prefix}/openapi.json").json()
            assert document["servers"] == [{"url": prefix}]
            assert client.get(f"{address}/v1/model").status_code == 200
            assert 'route="/v1/predict",status="200"' in client.get(f"{address}/metrics").text


# ---- what surrounds an answer --------------------------------------------------------------------


def test_every_answer_has_the_headers_and_errors_are_json(client):
    answers = [client.get(path) for path in ("/", "/page.css", "/page.js", "/icon.svg")]
    answers += [client.get(path) for path in ("/healthz", "/readyz", "/metrics", "/v1/model")]
    assert {answer.status_code for answer in answers} == {200}
    refused = [client.get("/nothing"), client.get(PREDICT), client.post(PREDICT)]
    refused.append(client.get("/", headers={"host": "evil.example"}))
    assert [answer.status_code for answer in refused] == [404, 405, 415, 421]
    assert all(answer.json()["error"] for answer in refused)
    for answer in answers + refused:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_the_page_names_nothing_outside():
    for path in (ROOT / "app" / "serving" / "page").iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]|@import|style=| on\w+=|innerHTML", text), path


def test_metrics_count_by_route_and_label(client):
    before = client.get("/metrics").text
    client.post(PREDICT, files=form(("a.jpg", photo(3)), ("b", b"no")))
    client.get("/some/secret-name")
    after = client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=")
    assert "secret" not in after.text

    def value(text: str, line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (.*)$", text, re.MULTILINE)
        return float(found[1]) if found else 0

    for line in (
        'serve_requests_total{route="/v1/predict",status="200"}',
        'serve_requests_total{route="other",status="404"}',
        'serve_photos_total{label="hare"}',
        'serve_photos_total{label="error"}',
    ):
        assert value(after.text, line) == value(before, line) + 1, line


def test_the_model_and_the_document_say_what_holds(client, bundle):
    about = client.get("/v1/model").json()
    assert about["classes"] == list(CLASSES)
    assert about["thresholds"] == {"confidence": 0.6, "novelty": 0.5}
    assert about["limits"]["files"] == Limits().files
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert client.request(method, path).status_code not in (404, 405), path
    with asking(Classifier(bundle, min_confidence=0.99)) as other:
        assert other.get("/v1/model").json()["thresholds"]["confidence"] == 0.99
        answers = other.post(PREDICT, files=form(("a", photo(4)))).json()["answers"]
        assert answers[0]["label"] in ("unsure", "neither")


def test_names_that_are_no_utf8_are_served(tmp_path):
    """Class folders and files of old disks, in Latin-1: Python has surrogates for their bytes."""
    folder = tiny_bundle(tmp_path / "bundle", ["cat", "caf\udce9", "hare"])
    with asking(Classifier(folder)) as client:
        for path in ("/v1/model", "/openapi.json"):
            answer = client.get(path)
            assert answer.content.isascii()
            assert '"caf\\udce9"' in answer.text
        answers = client.post(PREDICT, files=form(*((f"{n}", photo(n)) for n in range(8))))
        answered = answers.json()["answers"]
        assert answers.content.isascii()
        assert list(answered[0]["probabilities"]) == ["cat", "caf\udce9", "hare"]
        assert "caf\udce9" in {each["label"] for each in answered}
        metrics = client.get("/metrics")
        assert metrics.status_code == 200
        assert 'serve_photos_total{label="caf\\\\udce9"}' in metrics.text
        name = b'--x\r\nContent-Disposition: form-data; name="a"; filename="caf\xe9"\r\n\r\n'
        kind = "multipart/form-data; boundary=x; charset=unicode_escape"
        for body in (name, name.replace(b"\xe9", b"\\udce9")):
            body += photo() + b"\r\n--x--\r\n"
            answer = client.post(PREDICT, content=body, headers={"content-type": kind})
            assert answer.json()["answers"][0]["error"] is None


# ---- privacy -------------------------------------------------------------------------------------

opened: list[str] | None = None  # files opened for writing or made, while somebody looks


def remember_writes(event: str, arguments: tuple[object, ...]) -> None:
    if opened is None:
        return
    if event == "open" and (int(str(arguments[2])) & 0o3 or "w" in str(arguments[1])):
        opened.append(f"{arguments[0]}")
    elif event.startswith("tempfile.") or event in ("os.mkdir", "os.rename"):
        opened.append(f"{event} {arguments}")


def test_nothing_that_is_sent_is_written_or_logged(client, service, capfd, caplog, monkeypatch):
    """Starlette alone would write a file above 1 MB to disk; a decoder's error names nothing."""
    global opened
    caplog.set_level("DEBUG")
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    large = encoded(Image.fromarray(noise), "PNG")
    assert len(large) > 1_500_000
    sys.addaudithook(remember_writes)
    opened = []
    try:
        files = form(("secret.png", large), ("secret.txt", b"secret"), ("secret.jpg", photo()))
        answer = client.post(f"{PREDICT}?secret", files=files)
        client.post("/v1/explain", content=large, headers={"content-type": "image/png"})
        client.get("/secret")
    finally:
        written, opened = opened, None
    assert [each["error"] for each in answer.json()["answers"]] == [None, "not a photo: text", None]
    assert written == []

    def fails(images):
        raise BundleError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(service[1].batcher.classifier, "outputs", fails)
        failed = client.post(PREDICT, files=files)
    assert failed.status_code == 500
    assert failed.json()["error"].startswith("the service failed")
    assert "secret" not in failed.text
    assert client.post(PREDICT, files=files).status_code == 200
    out, err = capfd.readouterr()
    assert "internal error, please report this: BundleError at " in err
    assert "secret" not in out + err
    assert "secret" not in re.sub(r"HTTP Request: .*", "", caplog.text)  # httpx, the client


def test_the_look_at_writes_sees_them(tmp_path):
    global opened
    sys.addaudithook(remember_writes)
    opened = []
    try:
        (tmp_path / "a").write_bytes(b"")
    finally:
        written, opened = opened, None
    assert any(str(tmp_path) in name for name in written)


# ---- the command ---------------------------------------------------------------------------------


def test_an_end_loses_nothing(bundle):
    """SIGTERM: the door closes; who is inside is answered, also who asks once more."""
    data = photo(2)
    lines = ["Content-Type: image/jpeg", f"Content-Length: {len(data)}"]
    with process(bundle) as (started, address, said), contextlib.ExitStack() as stack:
        assert len(said) == 1
        inside = [stack.enter_context(connect(address)) for _ in range(6)]
        for connection in inside[:5]:
            connection.sendall(head(address, *lines) + data[:100])
        inside[5].sendall(head(address, path="/healthz", method="GET"))
        while not inside[5].recv(4096).endswith(b'"alive"}'):
            pass
        time.sleep(0.1)
        started.send_signal(signal.SIGTERM)
        refused = False
        for _ in range(100):
            time.sleep(0.01)
            try:
                connect(address).close()
            except ConnectionRefusedError:
                refused = True
                break
        assert refused
        inside[5].sendall(head(address, path="/readyz", method="GET"))  # kept, and not told yet
        for connection in inside[:5]:
            connection.sendall(data[100:])
        answers = [read_all(connection) for connection in inside]
        assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 5 + [b"503"]
        assert all(b"connection: close\r\n" in answer for answer in answers)
        assert all(b'"label": "hare"' in answer or b'"error"' in answer for answer in answers)
        assert started.wait(10) == 0
        assert started.stdout.read() == ""
        assert started.stderr.read() == "ended; every accepted request was answered\n"


def test_who_knocks_while_the_door_closes_is_let_in(bundle, monkeypatch):
    """The system says "connected" before the service knows of it."""
    close = asyncio.base_events.Server.close
    late: list[socket.socket] = []

    def knock_and_close(self):
        if not late:
            late.append(connect(address))
            late[0].sendall(head(address, path="/v1/model", method="GET"))
        close(self)

    with served(Classifier(bundle)) as (address, _):
        monkeypatch.setattr(asyncio.base_events.Server, "close", knock_and_close)
    with late[0] as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_an_open_host_is_told_and_ctrl_c_ends_it(bundle):
    with process(bundle, "--host", "0.0.0.0") as (started, address, said):
        assert re.match(r"Open to everyone who can reach port \d+ .* no password", said[0])
        with httpx.Client(base_url=address.replace("0.0.0.0", "127.0.0.1")) as client:
            for host, status in (
                ("192.0.2.7", 200),
                ("[2001:db8::7]:8000", 200),
                (socket.gethostname(), 200),
                ("localhost", 200),
                ("any.example", 421),  # DNS rebinding
                ("192.0.2.7.any.example", 421),
            ):
                assert client.get("/readyz", headers={"host": host}).status_code == status, host
        started.send_signal(signal.SIGINT)
        assert started.wait(10) == 0


def test_a_second_ctrl_c_does_not_wait(bundle):
    with process(bundle) as (started, address, _), connect(address) as connection:
        connection.sendall(head(address, "Content-Type: image/jpeg", "Content-Length: 9") + b"half")
        time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert started.poll() is None
        started.send_signal(signal.SIGINT)
        assert started.wait(10) == 130
        assert started.stderr.read() == (
            "ended at once; of the requests since the signal 0 were answered, 0 passed their time "
            "limit, and 1 were cut off\n"
        )


def test_what_cannot_be_served_is_one_line(bundle, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        known = ["--bundle", str(bundle)]
        for flags, words in (
            ([*known, "--port", port], f"received 127.0.0.1:{port} .*--port 0"),
            ([*known, "--host", "192.0.2.1", "--port", "0"], "leave --host out"),
            ([*known, "--host", "no.invalid", "--port", "0"], "leave --host out"),
            (["--bundle", str(tmp_path), "--port", "0"], "expected a bundle"),
            (["--runs", str(tmp_path)], "expected a finished run"),
            ([*known, "--queue", "3"], "expected a --queue as long as --max-files"),
        ):
            assert run(main, flags) == 2
            err = capsys.readouterr().err
            assert re.search(f"^error: .*{words}", err), err
            assert err.count("\n") == 1
        for flags in (
            ["--port", "x"],
            ["--timeout", "nan"],
            ["--max-files", "0"],
            ["--name", ""],  # such as --name "$UNSET"
            ["--name", "photos.example:8000"],
            ["--name", "http://photos.example"],
            ["--prefix", "cats"],
            ["--prefix", "/a//b"],
        ):
            assert run(main, flags) == 2
            assert "error: argument" in capsys.readouterr().err


def test_a_broken_model_is_told_before_anybody_asks(bundle, tmp_path, capsys):
    about = json.loads((bundle / "bundle.json").read_text())
    (tmp_path / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    (tmp_path / "bundle.json").write_text(json.dumps({**about, "classes": ["a", "b"]}))
    assert run(main, ["--bundle", str(tmp_path), "--port", "0"]) == 2
    assert "probabilities of 2 classes" in capsys.readouterr().err


def test_help_teaches(capsys):
    assert run(main, ["--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("curl -F photos=@", "/v1/predict", "0.0.0.0"))
    assert not [line for line in text.splitlines() if len(line) > 100]
