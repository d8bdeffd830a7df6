"""The service under load, beside the bare engine on the same machine in the same run.

    python -m benchmarks.serve --run NAME --data cats_vs_dogs_small

*Speed*: photos a second that 16 clients get answered, decoding, HTTP and all, against what the
engine does on arrays that are ready; both in turn, and the medians are compared. The bar: 0.8.
*Latency*: p50, p95 and p99 at half of that rate, sent steadily, not when the last was answered.
*Memory*: what cannot be dropped (RssAnon) after 10,000 requests against after 1,000. *End*: SIGTERM
under load, on kept connections and on new ones: no request that was sent may lack its answer.
*Rough clients*: 176 that send a byte a second, break off in mid-body, send what is no photo, send a
body in pieces of one byte, or take no answer, beside the well-behaved ones.

The load comes from wrk (on Debian: apt install wrk), which needs little of the processor; what it
took is told. Photos are sent one in a request, as they are.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from app.core.cli import run
from app.core.errors import AppError
from app.data.decode import Pixels, load_image
from app.inference.arguments import add_bundle_arguments, bundle_folder
from app.inference.predictor import Classifier
from benchmarks.command import answer
from benchmarks.frozen import some_photos
from benchmarks.markdown import markdown_table, verdict
from benchmarks.measured import ROOT, anonymous_bytes, load_average

BAR = 0.8  # of the bare engine's photos a second
FLAT = 1.05  # as much memory may be held after all requests as after the first tenth, at most
ROUGH_BAR = 0.7  # of the undisturbed rate that is left beside rough clients, at least
BATCHES = (1, 8)  # photos at once for the bare engine; the faster one counts
SCRIPT = Path(__file__).with_suffix(".lua")
PARTS = ("speed", "latency", "memory", "end", "rough")
MIB = 2**20
Values = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    host: str

    @property
    def port(self) -> int:
        """The port at 127.0.0.1."""
        return int(self.host.partition(":")[2])

    def get(self, path: str) -> str:
        """Return what the service says at a path."""
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=60) as response:
            return str(response.read().decode())

    def answered(self) -> int:
        """Return how many predictions have been answered."""
        found = re.search(
            r'serve_requests_total\{route="/v1/predict",status="200"\} ([\d.e+]+)',
            self.get("/metrics"),
        )
        return int(float(found[1])) if found else 0

    def memory(self) -> int:
        """Return the bytes that the process holds and that cannot be dropped."""
        size = anonymous_bytes(self.process.pid)
        if size is None:
            raise AppError("expected Linux, whose /proc tells what a process holds")
        return size


@dataclass
class Run:
    """What all parts share: the arguments, the photos, and what has been found."""

    arguments: argparse.Namespace
    folder: Path
    files: list[Path]
    values: Values
    lines: list[str]
    met: bool = True

    def judge(self, met: bool) -> str:
        """Note a bar and return how it is told."""
        self.met &= met
        return verdict(met)


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for, print it; return 0 when the bars are met."""
    arguments = _parser().parse_args(argv)
    if shutil.which("wrk") is None:
        raise AppError("expected wrk, which sends the load; received none; apt install wrk")
    folder = bundle_folder(arguments)
    parts = arguments.only or PARTS
    with tempfile.TemporaryDirectory() as name:
        photos = some_photos(arguments.data, arguments.photos, Path(name) / "drawn")
        files = [photo.path.resolve() for photo in photos]
        state = Run(arguments, folder, files, {"load": [load_average()]}, [])
        check_answers(state)
        if "speed" in parts or "latency" in parts or "rough" in parts:
            measure_speed(state)
        for part, measure in (
            ("latency", measure_latency),
            ("memory", measure_memory),
            ("end", measure_end),
            ("rough", measure_rough),
        ):
            if part in parts:
                measure(state)
    state.values["load"].append(load_average())
    before, after = state.values["load"]
    state.lines.append(f"Load average {before:.1f} before, {after:.1f} after.")
    answer(arguments, "\n\n".join(state.lines), state.values)
    return 0 if state.met else 1


@contextmanager
def serving(state: Run, *flags: str) -> Iterator[Served]:
    """Start a service; it is ended at the end of the block if it has not ended itself."""
    command = [sys.executable, "-m", "app", "serve", "--bundle", str(state.folder.resolve())]
    command += ["--port", "0", "--precision", state.arguments.precision]
    command += ["--engine", state.arguments.engine]
    process = subprocess.Popen([*command, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline() if process.stderr else ""
        found = re.search(r" answers at http://(\S+)/ ", line)
        if found is None:
            raise AppError(f"expected the service to start; received {line.strip()}")
        yield Served(process, found[1])
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


# ---- the load ------------------------------------------------------------------------------------


def wrk_command(served: Served, state: Run, seconds: float, rate: float = 0) -> list[str]:
    """Return the command that sends load; a rate of 0 is as fast as it is answered.

    At a slow rate there are fewer connections: the service closes those on which nothing comes.
    """
    most = state.arguments.clients
    clients = str(min(most, max(1, round(4 * rate))) if rate else most)
    return [
        *("wrk", "-t", "1", "-c", clients, "-d", f"{max(1, round(seconds))}s"),
        *("--timeout", "60s", "-s", str(SCRIPT), f"http://{served.host}", "--"),
        *(f"{rate:.4f}" if rate else "0", *map(str, state.files)),
    ]


def load(served: Served, state: Run, seconds: float, rate: float = 0) -> Values:
    """Send load; return wrk's figures, with the share of a core that it took itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = wrk_command(served, state, seconds, rate)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
    if done.returncode != 0 or line is None:
        raise AppError(f"expected wrk to run; received {done.stdout} {done.stderr}")
    values: Values = json.loads(line)
    if values["failed"]:
        raise AppError(f"expected every request to be answered; received {line}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **values,
        "rate": values["requests"] / values["seconds"],
        "wrk_cores": used / values["seconds"],
    }


def check_answers(state: Run) -> None:
    """Make sure that what is fast is also right: it predicts what the classifier predicts."""
    few = state.files[:8]
    classifier = classifier_of(state)
    state.values |= {"precision": classifier.precision, "engine": classifier.engine}
    with serving(state) as served:
        for path, expected in zip(few, classifier.answers(few), strict=True):
            got = post(served, path.read_bytes())["answers"][0]
            if got["label"] != expected.label or got["error"] != expected.error:
                raise AppError(f"expected {expected} for {path}; received {got}")


def post(served: Served, data: bytes) -> Values:
    """Ask for one photo."""
    connection = http.client.HTTPConnection(served.host, timeout=60)
    try:
        connection.request(
            "POST", "/v1/predict", data, {"Content-Type": "application/octet-stream"}
        )
        result: Values = json.loads(connection.getresponse().read())
        return result
    finally:
        connection.close()


def classifier_of(state: Run) -> Classifier:
    """Return what answers by the engine that the service takes."""
    arguments = state.arguments
    return Classifier(
        state.folder, precision=arguments.precision, engine=arguments.engine, photos=math.inf
    )


# ---- the parts -----------------------------------------------------------------------------------


def measure_speed(state: Run) -> None:
    """Compare the service's photos a second with those of the bare engine."""
    classifier = classifier_of(state)
    size = classifier.bundle.image_size
    images = np.stack([load_image(path, size) for path in state.files[: max(BATCHES)]])
    seconds, repeat = state.arguments.seconds, state.arguments.repeat
    rates: dict[str, list[float]] = {"bare": [], "served": []}
    loads = []
    with serving(state) as served:
        load(served, state, min(3, seconds))  # warm: files and code are read, pools have started
        fastest = max(BATCHES, key=lambda batch: bare_rate(classifier, images[:batch], seconds / 4))
        for _ in range(repeat):
            rates["bare"].append(bare_rate(classifier, images[:fastest], seconds))
            loads.append(load(served, state, seconds))
            rates["served"].append(loads[-1]["rate"])
        batches = served.get("/metrics")
    photos, runs = (
        float(re.findall(rf"^serve_batch_photos_{name} ([\d.e+]+)", batches, re.MULTILINE)[0])
        for name in ("sum", "count")
    )
    ratios = [b / a for a, b in zip(rates["bare"], rates["served"], strict=True)]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = medians["served"] / medians["bare"]
    state.values["speed"] = {
        **{f"{name}_rates": values for name, values in rates.items()},
        **medians,
        "ratio": ratio,
        "bare_batch": fastest,
        "photos_a_batch": photos / runs,
        "loads": loads,
    }
    rows = [
        [
            f"bare {classifier.engine}, {classifier.precision}, ready arrays, {fastest} at once",
            f"{medians['bare']:.2f}",
            "–",
        ],
        [
            f"served, {state.arguments.clients} clients",
            f"{medians['served']:.2f}",
            f"{1000 * statistics.median(each['p50'] for each in loads):.0f}",
        ],
    ]
    state.lines.append(markdown_table(["what", "photos a second", "p50 ms"], rows))
    state.lines.append(
        f"Ratio {ratio:.3f} (bar {BAR}), {state.judge(ratio >= BAR)}; in the single rounds "
        f"{min(ratios):.3f} to {max(ratios):.3f}. {photos / runs:.1f} photos went together on "
        f"average; wrk took {max(each['wrk_cores'] for each in loads):.3f} of a core."
    )


def bare_rate(classifier: Classifier, images: Pixels, seconds: float) -> float:
    """Return photos a second of the network alone."""
    classifier.outputs(images)
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not count:
        classifier.outputs(images)
        count += len(images)
    return count / passed if passed else float("inf")


def measure_latency(state: Run) -> None:
    """Tell how long an answer takes at half of the rate that the service can bear."""
    rate = state.values["speed"]["served"] / 2
    with serving(state) as served:
        load(served, state, min(3, state.arguments.seconds), rate)
        found = load(served, state, state.arguments.seconds * state.arguments.repeat, rate)
    state.values["latency"] = {"asked_rate": rate, **found}
    cells = [f"{found['rate']:.2f}", *(f"{1000 * found[p]:.0f}" for p in ("p50", "p95", "p99"))]
    header = ["steady load", "photos a second", "p50 ms", "p95 ms", "p99 ms"]
    state.lines.append(markdown_table(header, [["half", *cells]]))


def measure_memory(state: Run) -> None:
    """Compare what is held after a tenth of the requests and after all."""
    total = state.arguments.requests
    held: dict[int, int] = {}
    with serving(state) as served:
        sender = subprocess.Popen(
            wrk_command(served, state, 86_400), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for count in (total // 10, total):
                while served.answered() < count:
                    if sender.poll() is not None:
                        raise AppError("expected wrk to go on; received its end")
                    time.sleep(0.2)
                held[count] = served.memory()
        finally:
            sender.terminate()
            sender.wait()
    first, last = held[total // 10], held[total]
    met = last <= FLAT * first
    state.values["memory"] = {"bytes": held, "growth": last / first}
    rows = [[f"{count:,} requests", f"{size / MIB:.1f}"] for count, size in held.items()]
    state.lines.append(markdown_table(["after", "MiB held"], rows))
    state.lines.append(f"{last / first:.3f} of it (bar {FLAT}: flat), {state.judge(met)}.")


def measure_end(state: Run) -> None:
    """End the service under load, on kept connections and on new ones, and count what was lost."""
    rows = []
    values: Values = {}
    for name, kept in (("kept connections", True), ("a new one for each request", False)):
        with serving(state) as served:
            counts: Counter[str] = Counter()
            clients = [
                threading.Thread(target=ask_on, args=(served.port, state.files[i:], kept, counts))
                for i in range(min(state.arguments.clients, len(state.files)))
            ]
            for client in clients:
                client.start()
            time.sleep(min(3, state.arguments.seconds))
            before = counts["answered"]
            started = time.perf_counter()
            served.process.send_signal(signal.SIGTERM)
            code = served.process.wait(120)
            seconds = time.perf_counter() - started
            for client in clients:
                client.join(120)
        values[name] = {**counts, "exit_code": code, "seconds": seconds}
        met = counts["lost"] == 0 and code == 0 and counts["answered"] > before
        answered = f"{before:,} and {counts['answered'] - before:,}"
        rows.append([name, answered, f"{counts['lost']}", f"{seconds:.2f}", state.judge(met)])
    state.values["end"] = values
    header = ["SIGTERM under load", "answered before and after", "lost", "seconds", "bar: none"]
    state.lines.append(markdown_table(header, rows))


def ask_on(port: int, files: Sequence[Path], kept: bool, counts: Counter[str]) -> None:
    """Ask one photo after the other until nobody lets one in; count answers and losses.

    Lost is a request whose connection was made and that got no whole answer.
    """
    headers = {"Content-Type": "application/octet-stream"}
    if not kept:
        headers["Connection"] = "close"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for path in cycle(files):
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            return
        try:
            connection.request("POST", "/v1/predict", path.read_bytes(), headers)
            response = connection.getresponse()
            whole = response.status == 200 and bool(json.loads(response.read())["answers"])
        except (OSError, http.client.HTTPException, ValueError):
            whole = False
        counts["answered" if whole else "lost"] += 1
        if not whole:
            return


def measure_rough(state: Run) -> None:
    """Send load beside clients that behave badly, and count what becomes of those."""
    seconds, usual = state.arguments.seconds, state.values["speed"]["served"]
    counts: Counter[str] = Counter()
    ending = threading.Event()
    limit = max(1.0, seconds / 4)
    with serving(state, "--timeout", f"{limit:g}") as served:
        clients = [
            threading.Thread(target=behave, args=(kind, served.port, counts, ending))
            for kind, count in ROUGH.items()
            for _ in range(count)
        ]
        for client in clients:
            client.start()
        try:
            found = load(served, state, seconds)
        finally:
            ending.set()
            for client in clients:
                client.join(60)
        alive = served.get("/healthz")
    share = found["rate"] / usual
    failures = {name: count for name, count in counts.items() if name.partition(" ")[2][:1] == "5"}
    met = share >= ROUGH_BAR and not failures and "alive" in alive
    state.values["rough"] = {"rate": found["rate"], "share": share, "told": dict(counts)}
    rows = [[name, f"{count:,}"] for name, count in sorted(counts.items())]
    state.lines.append(
        markdown_table(["rough clients: what they did, what they received", "times"], rows)
    )
    state.lines.append(
        f"Beside them {found['rate']:.2f} photos a second, {share:.3f} of the usual (bar "
        f"{ROUGH_BAR}, and no 5xx), {state.judge(met)}."
    )


# What a rough client does on one connection until the event is set; returns what became of it.
Rough = Callable[[socket.socket, threading.Event], str]
HOST = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEAD = HOST + b"Content-Type: image/jpeg\r\n"


def behave(kind: Rough, port: int, counts: Counter[str], ending: threading.Event) -> None:
    """Behave in one way on one connection after the other; count what became of them."""
    while not ending.is_set():
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            name = kind.__name__.replace("_", " ")
            counts[f"{name}: {kind(connection, ending)}"] += 1


def slow(connection: socket.socket, ending: threading.Event) -> str:
    """Send a body a byte a second, for as long as it is taken."""
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    connection.settimeout(1)
    while not ending.is_set():
        try:
            connection.sendall(b"x")
            return status_of(connection)
        except TimeoutError:
            continue
        except OSError:
            return "closed"
    return "unfinished"


def half(connection: socket.socket, ending: threading.Event) -> str:
    """Send half of a body and disconnect."""
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(50_000))
    ending.wait(0.5)
    return "gone"


def crumbs(connection: socket.socket, ending: threading.Event) -> str:
    """Send a body in pieces of one byte as fast as it is taken."""
    with suppress(OSError):
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while not ending.is_set():
            connection.sendall(b"1\r\nx\r\n" * 2000)
    with suppress(OSError):
        connection.settimeout(1)
        return status_of(connection)
    return "closed"


def deaf(connection: socket.socket, ending: threading.Event) -> str:
    """Request the page's script again and again and take no answer."""
    connection.settimeout(0.5)
    while not ending.is_set():
        try:
            connection.sendall(b"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        except TimeoutError:
            continue
        except OSError:
            return "let go"
    return "unfinished"


def wrong_type(connection: socket.socket, ending: threading.Event) -> str:
    """Send what is no photo, five times a second."""
    ending.wait(0.2)
    connection.sendall(HOST + b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\ntext")
    return status_of(connection)


def wrong_form(connection: socket.socket, ending: threading.Event) -> str:
    """Send a form that is none, five times a second."""
    ending.wait(0.2)
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n"
    connection.sendall(HOST + kind + b"Content-Length: 4\r\n\r\n--x-")
    return status_of(connection)


def status_of(connection: socket.socket) -> str:
    """Return the status of an answer, or ``closed`` where there is none."""
    return connection.recv(4096).partition(b" ")[2][:3].decode() or "closed"


# Kind of rough client → how many.
ROUGH = {slow: 100, half: 50, wrong_type: 1, wrong_form: 1, crumbs: 4, deaf: 20}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_bundle_arguments(parser)
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all parts")
    parser.add_argument("--data", type=Path, metavar="DIR", help="photos (default: drawn ones)")
    for flag, default, text in (
        ("--photos", 64, "different ones that are sent"),
        ("--clients", 16, "at the same time"),
        ("--requests", 10_000, "of the part memory"),
        ("--repeat", 3, "rounds of the part speed"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--seconds", type=float, default=20, metavar="S", help="of a measurement (default: 20)"
    )
    parser.add_argument(
        "--json", action="store_true", help="JSON on stdout, the tables on stderr instead"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
