"""A tiny real bundle, and the service on a real socket: in a thread, or as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import keras
import numpy as np
import onnx
from photos import picture
from small_vgg import small_network

from app.evaluation.ood import KnnOodDetector, unit_length
from app.inference.bundle_format import (
    CONFIDENCE,
    FORMAT_VERSION,
    NOVELTY,
    ONNX_FILE,
    Bundle,
    file_sha256,
)
from app.inference.predictor import Classifier
from app.network.activation_maps import add_activation_maps
from app.network.classifier import HEAD, build_classifier
from app.network.onnx_graph import to_onnx
from app.serving.server import GracefulServer, bind
from app.serving.service import Service
from app.serving.uploads import Limits

ROOT = Path(__file__).parents[1]
SIZE = 32
CLASSES = ("cat", "dog", "hare")


def tiny_bundle(folder: Path, classes: Sequence[str] = CLASSES) -> Path:
    """Write a bundle of five convolutions with random weights; it says all kinds of things."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    reference = unit_length(np.maximum(generator.normal(size=(20, 8)), 0))
    novelty = KnnOodDetector(reference, neighbours=3, threshold=0.25, scale=0.05)
    with small_network():
        model = build_classifier(len(classes), image_size=SIZE, novelty=novelty)
    kernel, bias = model.get_layer(HEAD).get_weights()
    kernel = generator.normal(size=kernel.shape)
    model.get_layer(HEAD).set_weights([kernel, bias])
    pictures = np.stack([np.asarray(picture(seed, (SIZE, SIZE))) for seed in range(16)])
    logits = model.predict_on_batch(pictures)["logits"]
    scale = 2 / logits.std(axis=0)  # so that each class has its pictures
    model.get_layer(HEAD).set_weights([kernel * scale, bias - logits.mean(axis=0) * scale])
    metadata = {"classes": json.dumps(classes), "temperature": "1.0"}
    folder.mkdir()
    graph = to_onnx(model, ["logits", "novelty"], metadata, also=[add_activation_maps])
    onnx.save(graph, folder / ONNX_FILE)
    Bundle(
        format_version=FORMAT_VERSION,
        classes=tuple(classes),
        image_size=SIZE,
        temperature=1.0,
        thresholds={NOVELTY: 0.5, CONFIDENCE: 0.6},
        sha256={ONNX_FILE: file_sha256(folder / ONNX_FILE)},
        versions={},
        why_no_int8="",
    ).write(folder)
    return folder


async def _nothing() -> None:
    """Do nothing."""


@contextlib.contextmanager
def served(
    classifier: Classifier,
    limits: Limits | None = None,
    names: Collection[str] = (),
    *,
    loopback: bool = True,
    prefix: str = "",
) -> Iterator[tuple[str, Service]]:
    """Serve in a thread; yield the address and the service."""
    service = Service(classifier, limits or Limits(), names=names, loopback=loopback, prefix=prefix)
    listening = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    service.batcher.decoders.start = _nothing  # a decoder starts with its first photo
    with in_a_thread(GracefulServer(service), listening):
        yield address, service


@contextlib.contextmanager
def in_a_thread(
    server: GracefulServer, listening: socket.socket, patience: float = 30
) -> Iterator[None]:
    """Let a server run in a thread; it ends within ``patience`` seconds, without an error."""
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            asyncio.run(server.serve(sockets=[listening]))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        thread.join(patience)
    assert not failed
    assert not thread.is_alive()
    assert not thread.is_alive()


@contextlib.contextmanager
def proxied(address: str, prefix: str, *, removes: bool) -> Iterator[str]:
    """Offer the service below a path, by a proxy of one thread; yield the proxy's address.

    Args:
        address: of the service.
        prefix: the path.
        removes: whether the service gets paths without it.
    """

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.removeprefix(prefix) if removes else self.path
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = dict(self.headers) | {"Connection": "close"}  # its Host is the proxy's
            found = httpx.request(self.command, address + path, content=body, headers=headers)
            self.send_response(found.status_code)
            for name in ("content-type", "content-length", "content-security-policy", "location"):
                if name in found.headers:
                    self.send_header(name, found.headers[name])
            self.end_headers()
            self.wfile.write(found.content)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def process(
    bundle: Path,
    *flags: str,
    command: Sequence[str] = (sys.executable, "-m", "app", "serve"),
    preexec_fn: Callable[[], None] | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Start the command in a group of its own; yield it, its address, and what it printed."""
    started = subprocess.Popen(
        # auto would measure, and write into the user's cache folder.
        [*command, "--bundle", str(bundle), "--port", "0", "--engine", "onnxruntime", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=preexec_fn,
    )
    try:
        lines: list[str] = []
        while not (found := re.search(r" answers at (http://\S+?)/ ", "".join(lines))):
            lines.append(started.stderr.readline())
            assert lines[-1], f"it ended: {lines}"
        yield started, found[1], lines
    finally:
        started.kill()
        started.communicate()


def connect(address: str, **options: tuple[str, int]) -> socket.socket:
    """Connect to the service, with ``options`` of ``socket.create_connection``."""
    return socket.create_connection(place(address), 30, **options)


def place(address: str) -> tuple[str, int]:
    """Return host and port of ``http://host:port``."""
    host, port = address.removeprefix("http://").split(":")
    return host, int(port)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))
