"""A run while it is trained: by one process at a time, and how it goes on after any end of that."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from app.core.console import heeding_ctrl_c, say
from app.core.errors import AppError, UsageError
from app.core.lock import locked_unless_taken
from app.core.run_folder import Run, complete_runs
from app.training.checkpoint import Checkpoint

CLOCK_TOLERANCE = timedelta(minutes=1)  # runs that end in the same second are ordered, not remarked


@contextmanager
def training(run: Run) -> Iterator[Checkpoint]:
    """Hold a run while it is trained, and give the place of what it needs to go on.

    When the block succeeds the run is finished and that place is removed. No process that was
    killed holds a run.

    Raises:
        UsageError: when the run is finished already, or another process is training it.
    """
    refuse_finished(run)
    with locked_unless_taken(run.unfinished / "lock") as free:
        if not free:
            raise UsageError(
                f"expected a run that nobody is training; received {run.folder}, which another "
                "process is; wait for it, or end that process"
            )
        refuse_finished(run)  # meanwhile
        yield Checkpoint(run.unfinished)
    shutil.rmtree(run.unfinished, ignore_errors=True)


def refuse_finished(run: Run) -> None:
    """Raise ``UsageError`` when there is nothing left to train; what was kept for it goes."""
    if run.is_complete():
        shutil.rmtree(run.unfinished, ignore_errors=True)  # killed between its end and its tidying
        raise UsageError(
            f"expected an unfinished run; received {run.folder}, which is finished; ask it with "
            f"python predict.py --bundle {shlex.quote(str(run.bundle))} PHOTO"
        )


def finish_time(run: Run) -> str:
    """Return the time at which a run ends now (UTC), later than that of all runs beside it.

    The newest run answers, and must do so where the clock was set back, or was ahead when another
    one ended; then it is said.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    others = [other.finished() for other in complete_runs(run.folder.parent)]
    last = max((time for time in others if time), default=None)
    if last is None or last < now:
        return now.isoformat()
    if last - now > CLOCK_TOLERANCE:
        say(
            f"the clock says {now.isoformat()}, but another run ended at {last.isoformat()}; this "
            "one is noted as a second later, so that it is the newest; set the clock"
        )
    return (last + timedelta(seconds=1)).isoformat()


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Add to what ends the block how the run goes on: after Ctrl-C, or on a disk that is full."""
    go_on = f"go on with: {run.resume_command()}"
    try:
        with heeding_ctrl_c():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*() if run.is_complete() else (go_on,)) from None
    except AppError as error:
        if isinstance(error.__cause__, OSError):
            raise AppError(f"{error} Then {go_on}") from error
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise AppError(
            f"{error.strerror or error}{where}; what was learned is kept; mend it, then {go_on}"
        ) from error


def remove_leftovers(run: Run) -> None:
    """Remove what a process that was killed had begun to write; what it has learned stays."""
    shutil.rmtree(run.bundle, ignore_errors=True)  # perhaps whole, but nobody vouches for it
    for path in (*run.folder.glob(".bundle.*"), *run.folder.rglob(".*.part")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
