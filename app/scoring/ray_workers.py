"""Shards answered by workers of Ray, in other processes of this machine or on others.

Ray starts the workers, hands them shards, and replaces one that dies; its shard is then done again.
Each worker loads the classifier once and writes its parts itself, so only names and counts travel.
``ray.data.read_images`` is not used: it lists everything first, and decodes with no limits.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from app.core.config import EngineName
from app.core.environment import usable_cores
from app.core.errors import AppError, UsageError
from app.inference.predictor import Classifier, Precision
from app.scoring.index import Part, Waiting
from app.scoring.shard import ShardScorer

LOCAL = "local"
QUEUED = 2  # shards that a worker has, one of them waiting: so it never waits for the next
KNOCK = 10.0  # seconds in which a cluster's address is to answer
STORE = 200 * 2**20  # bytes for what travels: names and counts; Ray would take 30 % of the memory
RETRIES = 2  # of a shard whose worker died; if it dies again, a file of the shard kills it


def require_ray() -> None:
    """Refuse to begin without Ray.

    Raises:
        UsageError: with the command that installs it.
    """
    if find_spec("ray") is None:
        raise UsageError(
            "expected Ray for --ray; received a Python without it; python -m pip install ray"
        )


class Worker:
    """What runs in a worker's process: a classifier, and the parts that it writes."""

    def __init__(
        self,
        bundle: Path,
        confidence: float,
        precision: Precision,
        engine: EngineName,
        parts: Path,
        threads: int,
    ) -> None:
        classifier = Classifier(bundle, confidence, precision, engine, threads=threads)
        self._scorer = ShardScorer(classifier, parts, threads)

    def score(self, shard: list[Waiting], number: int) -> Part:
        """Answer a shard; write the part with this number and return what the index is to know."""
        return self._scorer.score(shard, number)

    def process(self) -> int:
        """Return the number of the process, once the classifier is loaded."""
        return os.getpid()


class RayWorkers:
    """Workers of a cluster; use them in a ``with`` block.

    Args:
        address: ``local`` for a cluster on this machine that ends with the block, else that of one
            that runs: it has this project installed, and the same files under the same names. A
            token, where the cluster asks for one, is found where Ray looks for it (RAY_AUTH_TOKEN,
            RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token).
        bundle: its folder, absolute.
        parts: the folder of the parts, absolute.
        classifier: of the bundle; the workers compute as it does.
        workers: how many; default: as many as the cluster has processors for.
        cpus: processors of each worker.
    """

    def __init__(
        self,
        address: str,
        bundle: Path,
        parts: Path,
        classifier: Classifier,
        *,
        workers: int | None = None,
        cpus: int = 1,
    ) -> None:
        self._address, self._workers, self._cpus = address, workers, cpus
        confidence = classifier.thresholds.confidence
        self._setup = bundle, confidence, classifier.precision, classifier.engine, parts, cpus
        self._actors: list[Any] = []

    def __enter__(self) -> RayWorkers:
        """Connect, or start a cluster; start the workers."""
        import ray

        _connect(self._address)
        free = int(ray.cluster_resources().get("CPU", 0)) // self._cpus
        number = self._workers or free
        if number > free or not free:
            ray.shutdown()
            raise UsageError(
                f"expected a cluster with {number or 1} × {self._cpus} processors for workers; "
                f"received one with {free * self._cpus}; lower --workers or --worker-cpus"
            )
        remote = ray.remote(
            num_cpus=self._cpus, max_restarts=-1, max_task_retries=RETRIES
        )(Worker)  # fmt: skip
        self._actors = [remote.remote(*self._setup) for _ in range(number)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers; a cluster that was there before goes on."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        ray.shutdown()

    @property
    def number(self) -> int:
        """How many workers there are."""
        return len(self._actors)

    def processes(self) -> list[int]:
        """Return the numbers of the workers' processes, once all have loaded the classifier."""
        import ray

        return list(ray.get([actor.process.remote() for actor in self._actors]))

    def score(
        self, shards: Iterable[list[Waiting]], number: int
    ) -> Iterator[tuple[Part, list[int]]]:
        """Yield the parts as they are written, and the numbers of the files in them.

        A new shard is taken only when a worker has answered one: the others stay where they are.

        Args:
            shards: of files.
            number: of the first part.

        Raises:
            AppError: when a shard's worker died again and again, or for the reason it gives.
        """
        import ray

        remaining = iter(shards)
        working: dict[Any, tuple[list[Waiting], Any]] = {}

        def give(actor: Any) -> None:
            nonlocal number
            if shard := next(remaining, None):
                working[actor.score.remote(shard, number)] = shard, actor
                number += 1

        for actor in self._actors * QUEUED:
            give(actor)
        while working:
            (done, *_), _ = ray.wait(list(working))
            shard, actor = working.pop(done)
            part = _result(done, shard)
            give(actor)
            yield part, [each.number for each in shard]


def _result(done: Any, shard: list[Waiting]) -> Part:
    """Return what a worker answered, or raise its reason."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        part: Part = ray.get(done)
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        raise AppError(
            f"expected a worker to answer the {len(shard)} files from {shard[0].found.path} on; "
            f"received none, since it died {RETRIES + 1} times; the other answers are kept; see "
            "whether it had too little memory (fewer --workers)"
        ) from error
    return part


def _knock(address: str) -> None:
    """Raise ``OSError`` or ``ValueError`` where nobody listens: Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        raise ValueError("an address is HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()


def _connect(address: str) -> None:
    """Connect to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # 15 fail on a busy machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it warns of its next default
    import ray

    names = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM")]
    handlers = {name: signal.getsignal(name) for name in names if name is not None}
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address == LOCAL:
        root = str(Path(__file__).parents[2])  # where workers find this project
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
        options["include_dashboard"] = False
        options["object_store_memory"] = STORE
        options["num_cpus"] = usable_cores()
    try:
        if address not in (LOCAL, "auto"):
            _knock(address)
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        reason = " ".join(str(error).split())
        raise UsageError(
            f"expected --ray to be {LOCAL} or the address of a cluster; received {address} "
            f"({reason}); ray start --head begins one"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray's own ends without a word
            signal.signal(number, handler)
