"""One at a time, between processes and threads, whatever becomes of the holder."""

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.core.atomic_files import locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from app.core.atomic_files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def take(path: Path) -> bool:
    with locked(path):
        return True


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    path = tmp_path / "folder" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder, ThreadPoolExecutor(1) as pool:
        try:
            assert holder.stdout.readline() == "held\n"
            taking = pool.submit(take, path)
            with pytest.raises(TimeoutError):
                taking.result(timeout=0.3)
        finally:
            holder.kill()
        assert taking.result(timeout=10)
    assert path.read_bytes() == b""


def test_threads_exclude_each_other_and_an_error_lets_go(tmp_path):
    path = tmp_path / "lock"
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError), locked(path):
            taking = pool.submit(take, path)
            with pytest.raises(TimeoutError):
                taking.result(timeout=0.3)
            raise KeyError
        assert taking.result(timeout=10)


def test_where_no_lock_can_be_had_everybody_goes_on(tmp_path):
    (tmp_path / "file").touch()
    assert take(tmp_path / "file" / "lock")


def test_whether_it_is_taken_is_told_at_once(tmp_path):
    path = tmp_path / "lock"
    with locked(path, wait=False) as first, ThreadPoolExecutor(1) as pool:

        def second() -> bool:
            with locked(path, wait=False) as free:
                return free

        assert first
        assert not pool.submit(second).result(timeout=10)
    with locked(path, wait=False) as again:
        assert again
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "lock", wait=False) as anyway:
        assert anyway


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other locks")
def test_on_a_disk_without_locks_everybody_goes_on(tmp_path, monkeypatch):
    """No soft lock in its place: a file that outlives a killed holder would lock out all others."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with (
            locked(tmp_path / "lock", wait=False) as one,
            locked(tmp_path / "lock", wait=False) as other,
        ):
            assert one
            assert other
