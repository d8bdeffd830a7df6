"""A cluster of Ray on this machine that a file of tests shares, and workers that die.

It has a GPU in its books, so that scheduling can be tested; there need not be one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEATH = 3  # the task that kills its worker, counted over all workers


@contextlib.contextmanager
def running_cluster(log: Path) -> Iterator[str]:
    """Start a cluster of two processors and one GPU; yield its address."""
    port, *ports = free_ports(5)
    # A raylet waits only 15 s for ports that its agents choose, too little on a busy machine
    # (https://github.com/ray-project/ray/issues/65983).
    agents = (
        "dashboard-agent-listen",
        "dashboard-agent-grpc",
        "runtime-env-agent",
        "metrics-export",
    )
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--num-cpus=2", "--num-gpus=1", "--include-dashboard=false"),
        *(f"--{name}-port={number}" for name, number in zip(agents, ports, strict=True)),
        f"--object-store-memory={200 * 2**20}",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_server_port_wait_time_s": "120",
        # Ray would ask for a token if this user has one, and sends none to an address by itself.
        "RAY_AUTH_MODE": "disabled",
    }
    with log.open("w") as file:
        cluster = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            while "Ray runtime started" not in log.read_text():
                assert cluster.poll() is None, log.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            cluster.terminate()
            cluster.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def dying(log: Path, make: Callable[..., Callable[[Any], Any]], *how: Any) -> Callable[[Any], Any]:
    """Make what does tasks in a worker; note each that is begun, and die in the middle of one."""
    work = make(*how)

    def work_or_die(task: Any) -> Any:
        with log.open("a") as file:
            file.write("begun\n")
        result = work(task)
        if begun(log) >= DEATH:
            with contextlib.suppress(FileExistsError):
                log.with_suffix(".died").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    return work_or_die


def begun(log: Path) -> int:
    """Return how many tasks were begun in workers that ``dying`` made."""
    return len(log.read_text().splitlines())


def see_gpus() -> Callable[[str], str | None]:
    """Make what returns the GPUs that a worker may use."""
    return lambda _: os.environ.get("CUDA_VISIBLE_DEVICES")
