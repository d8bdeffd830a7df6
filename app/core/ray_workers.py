"""Workers of Ray: other processes, on this machine or on others, that do one task after the other.

Ray starts the workers, hands them tasks, and replaces one that dies; its task is then done again.
What they do is the caller's: ``app score --ray`` lets them answer shards of files, and ``train.py
--ray`` lets them compute the features of spans of views.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from app.core.environment import usable_cores
from app.core.errors import AppError, UsageError

LOCAL = "local"
QUEUED = 2  # tasks that a worker has, one of them waiting: so it never waits for the next
KNOCK = 10.0  # seconds in which a cluster's address is to answer
STORE = 200 * 2**20  # bytes for what travels besides results; Ray would take 30 % of the memory
RETRIES = 2  # of a task whose worker died; if it dies again, something in the task kills it

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RayCluster:
    """What ``--ray`` and the flags beside it ask for.

    Attributes:
        address: ``local`` for a cluster on this machine that ends with the work, else that of one
            that runs: it has this project installed, and the same files under the same names. Where
            it asks for a token, Ray wants RAY_AUTH_MODE=token, and looks for the token itself
            (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token).
        workers: how many; None: as many as the cluster has processors and GPUs for.
        cpus: processors of each worker.
        gpus: GPUs of each worker.
    """

    address: str
    workers: int | None = None
    cpus: int = 1
    gpus: int = 0

    def needs(self, workers: int) -> str:
        """Return in words what so many workers take."""
        gpus = f" and {workers} × {self.gpus} GPUs" if self.gpus else ""
        return f"{workers} × {self.cpus} processors{gpus}"

    def room(self, resources: Mapping[str, float]) -> int:
        """Return how many workers have room in what Ray says that a cluster has."""
        rooms = [int(resources.get("CPU", 0)) // self.cpus]
        if self.gpus:
            rooms.append(int(resources.get("GPU", 0)) // self.gpus)
        return min(rooms)


def cluster_of(
    address: str | None, workers: int | None, cpus: int, gpus: int = 0
) -> RayCluster | None:
    """Return what ``--ray`` and the flags beside it ask for; None without it.

    Raises:
        UsageError: for flags about workers without ``--ray``.
    """
    if address is not None:
        return RayCluster(address, workers, cpus, gpus)
    if (workers, cpus, gpus) != (None, 1, 0):
        raise UsageError(
            "expected --ray beside --workers and the other flags about its workers; received none; "
            "add --ray local, or leave them out"
        )
    return None


class _Worker:
    """What lives in a worker's process; it is made ready with its first task, and only once."""

    # The constructor takes nothing. Ray would report what is raised there as the worker's death,
    # and an argument in its store may be gone when it starts a worker again
    # (https://github.com/ray-project/ray/issues/53727).
    _made: Callable[[Any], Any] | None = None

    def _ready(self, sent: Sequence[Any]) -> Callable[[Any], Any]:
        if self._made is None:
            import ray

            (make,) = ray.get(list(sent))
            self._made = make()
        return self._made

    def work(self, sent: Sequence[Any], task: Any) -> tuple[Any, float]:
        """Return the result of a task, and the seconds that it took.

        Args:
            sent: the reference of what makes the worker ready, in a list: so Ray hands it on as it
                is, and a worker that is ready does not get it again.
            task: to be done.
        """
        work = self._ready(sent)
        started = time.perf_counter()
        return work(task), time.perf_counter() - started

    def process(self, sent: Sequence[Any]) -> int:
        """Return the number of the process, once it is ready."""
        self._ready(sent)
        return os.getpid()


class RayWorkers(Generic[Task, Result]):
    """Workers of a cluster that all do the same; use them in a ``with`` block.

    Args:
        cluster: where they are, and how many.
        make: called once in each worker's process; returns what does a task there, having loaded
            what that needs. It travels, so it is a function of a module, or a ``partial`` of one.
        environment: variables of the workers' processes.
        result_bytes: what the result of a task takes, about; room is made for those that wait.
    """

    def __init__(
        self,
        cluster: RayCluster,
        make: Callable[[], Callable[[Task], Result]],
        *,
        environment: Mapping[str, str] | None = None,
        result_bytes: int = 0,
    ) -> None:
        self._cluster, self._make, self._bytes = cluster, make, result_bytes
        self._environment = dict(environment or {})
        self._sent: Any = None
        self._actors: list[Any] = []

    def __enter__(self) -> RayWorkers[Task, Result]:
        """Connect, or start a cluster; start the workers.

        Raises:
            UsageError: when there is no such cluster, or too little room in it.
            AppError: when Ray does not start on this machine.
        """
        import ray

        cluster = self._cluster
        waiting = QUEUED * (cluster.workers or usable_cores())
        _connect(cluster.address, STORE + waiting * self._bytes)
        try:
            self._start()
        except BaseException:  # Ctrl-C, too: ``__exit__`` is not called then
            ray.shutdown()
            raise
        return self

    def _start(self) -> None:
        import ray

        cluster = self._cluster
        resources = ray.cluster_resources()
        room = cluster.room(resources)
        number = cluster.workers or room
        if number > room or not room:
            there = f"{resources.get('CPU', 0):.0f} processors and {resources.get('GPU', 0):.0f}"
            raise UsageError(
                f"expected a cluster with {cluster.needs(number or 1)} for workers; received one "
                f"with {there} GPUs; lower --workers or --worker-cpus"
            )
        remote = ray.remote(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            max_restarts=-1,
            max_task_retries=RETRIES,
            runtime_env={"env_vars": self._environment} if self._environment else None,
        )(_Worker)
        self._sent = ray.put(self._make)  # once: it may hold a network
        self._actors = [remote.remote() for _ in range(number)]

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
        self._sent = None
        ray.shutdown()

    @property
    def number(self) -> int:
        """How many workers there are."""
        return len(self._actors)

    def processes(self) -> list[int]:
        """Return the numbers of the workers' processes, once all are ready for tasks."""
        import ray

        return list(ray.get([actor.process.remote([self._sent]) for actor in self._actors]))

    def results(
        self, tasks: Iterable[Task], named: Callable[[Task], str]
    ) -> Iterator[tuple[Task, Result, float]]:
        """Yield each task with its result, and the seconds that it took, as they are done.

        A new task is taken only when the caller has had a result: the others stay where they are,
        so however many there are, a worker has ``QUEUED`` of them or of their results at most.

        Args:
            tasks: that are done, each of them once.
            named: says in words what a task is of, for a message.

        Raises:
            AppError: when a task's worker died again and again, or for the reason it gives.
        """
        import ray

        remaining = iter(tasks)
        working: dict[Any, tuple[Task, Any]] = {}

        def give(actor: Any) -> None:
            if (task := next(remaining, None)) is not None:
                working[actor.work.remote([self._sent], task)] = task, actor

        for actor in self._actors * QUEUED:
            give(actor)
        while working:
            (done, *_), _ = ray.wait(list(working))
            task, actor = working.pop(done)
            result, seconds = _result(done, named(task))
            del done  # Ray keeps a result as long as somebody has its reference
            yield task, result, seconds
            del result
            give(actor)


def _result(done: Any, name: str) -> tuple[Any, float]:
    """Return what a worker answered, or raise its reason."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        result, seconds = ray.get(done)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise AppError(
            f"expected a worker of Ray to do {name}; received nothing in {RETRIES + 1} attempts "
            f"({type(error).__name__}); what was done is kept; see whether it had too little "
            "memory (fewer --workers)"
        ) from error
    return result, seconds


def _knock(address: str) -> None:
    """Raise ``OSError`` or ``ValueError`` where nobody listens: Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        raise ValueError("an address is HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()


def _connect(address: str, store: int) -> None:
    """Connect to a cluster; one on this machine gets so many bytes for what travels."""
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
        options["object_store_memory"] = store
        options["num_cpus"] = usable_cores()
    try:
        if address not in (LOCAL, "auto"):
            _knock(address)
        ray.init(address, **options)
    except Exception as error:  # of a start that takes too long Ray raises a plain one
        ray.shutdown()
        reason = " ".join(str(error).split())
        if address == LOCAL:
            raise AppError(
                f"expected Ray to start on this machine; received {reason}; try again when the "
                "machine is less busy"
            ) from error
        raise UsageError(
            f"expected --ray to be {LOCAL} or the address of a cluster; received {address} "
            f"({reason}); ray start --head begins one; where a cluster asks for a token, set "
            "RAY_AUTH_MODE=token"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray's own ends without a word
            signal.signal(number, handler)
