"""A run while it is trained: by one process at a time, and how it goes on after any end of that."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from os.path import exists
from pathlib import Path

from app.core.atomic_files import locked, remove_abandoned
from app.core.console import heeding_ctrl_c, say
from app.core.errors import AppError, ChangedPhotoError, UsageError, out_of_memory
from app.core.run_folder import DESCRIPTION_FILE, Run, complete_runs
from app.inference.bundle_format import INT8_FILE, KERAS_FILE, ONNX_FILE
from app.training.checkpoint import Checkpoint

BUNDLE_FILES = {DESCRIPTION_FILE, ONNX_FILE, INT8_FILE, KERAS_FILE}
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
    with locked(run.unfinished / "lock", wait=False) as free:
        if not free:
            raise UsageError(
                f"expected a run that nobody is training; received {run.folder}, which another "
                "process is; wait for it, or end that process"
            )
        refuse_finished(run)  # meanwhile
        yield Checkpoint(run.unfinished)
    _remove_unfinished(run)


def refuse_finished(run: Run) -> None:
    """Raise ``UsageError`` when there is nothing left to train; what was kept for it goes."""
    if run.is_complete():
        _remove_unfinished(run)  # killed between its end and its tidying
        raise UsageError(
            f"expected an unfinished run; received {run.folder}, which is finished; ask it with "
            f"python predict.py --bundle {shlex.quote(str(run.bundle))} PHOTO"
        )


def refuse_never_begun(run: Run) -> None:
    """Raise ``UsageError`` for a run that was killed before its settings were written."""
    if run.unfinished.is_dir() and not exists(run.config):
        raise UsageError(
            f"expected a run with its {run.config.name}; received {run.folder}, which was broken "
            "off before it was written, so nothing is lost; remove that folder, or give another "
            "name: python train.py --data DIR --run NAME"
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
    """Add to what ends the block how the run goes on: after Ctrl-C, on a full disk, say."""
    go_on = f"go on with: {run.resume_command()}"
    try:
        with heeding_ctrl_c():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*() if run.is_complete() else (go_on,)) from None
    except ChangedPhotoError as error:
        raise AppError(
            f"{error}, then {go_on}; what was learned is kept. Without that photo it is a new run: "
            f"python train.py --config {shlex.quote(str(run.config))}"
        ) from error
    except AppError as error:
        if isinstance(error.__cause__, OSError):
            raise AppError(f"{error} Then {go_on}") from error
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise AppError(
            f"{error.strerror or error}{where}; what was learned is kept; mend it, then {go_on}"
        ) from error
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise AppError(
            "expected more memory; received too little; what was learned is kept; end what else "
            f"uses it, then {go_on}"
        ) from error


def remove_leftovers(run: Run) -> None:
    """Remove what a process that was killed had begun to write; what it has learned stays.

    Nothing else goes: neither other names, nor what links lead to.

    Raises:
        UsageError: when there is something in ``bundle/`` that does not belong there, so that no
            other bundle could be written.
    """
    _remove_bundle(run)  # perhaps whole, but nobody vouches for it
    records = {_record_of(path) for path in run.unfinished.glob(".*.record.*.part")}
    for path in (*run.files, run.bundle, *records):
        remove_abandoned(path)


def _remove_bundle(run: Run) -> None:
    if not exists(run.bundle) and not run.bundle.is_symlink():
        return
    found = [] if run.bundle.is_symlink() else sorted(run.bundle.iterdir())
    others = [path.name for path in found if path.name not in BUNDLE_FILES or path.is_dir()]
    if others or run.bundle.is_symlink():
        raise UsageError(
            f"expected nothing but a bundle's files in {run.bundle}, so that it can be written "
            f"anew; received {others[0] if others else 'a link'}; move it away"
        )
    for path in found:
        path.unlink()
    run.bundle.rmdir()


def _remove_unfinished(run: Run) -> None:
    """Remove what was kept for going on, and the folder if it holds nothing else."""
    if run.unfinished.is_symlink():
        return
    for path in (*run.unfinished.glob("*.record"), run.unfinished / "lock"):
        with suppress(OSError):
            path.unlink()
    for path in run.unfinished.glob(".*.record.*.part"):
        remove_abandoned(_record_of(path))
    with suppress(OSError):
        run.unfinished.rmdir()


def _record_of(part: Path) -> Path:
    """Return the record that ``app.core.atomic_files.whole`` was writing."""
    return part.with_name(part.name.removeprefix(".").rsplit(".", 2)[0])
