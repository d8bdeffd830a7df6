"""How a run computes: noted when it begins, and the same when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.config import Engine
from app.core.console import say
from app.core.environment import other_versions
from app.core.errors import UsageError
from app.training.checkpoint import Checkpoint

RECORD = "source"  # its name in the checkpoint


def kept_engine(checkpoint: Checkpoint, wanted: Engine) -> Engine:
    """Return the engine that a resumed run began with, which was measured then; else ``wanted``."""
    record = checkpoint.load(RECORD)
    return wanted if record is None else record.values["engine"]


def keep_conditions(
    now: Mapping[str, Any], versions: Mapping[str, str], checkpoint: Checkpoint
) -> None:
    """Note how the run computes; refuse to resume it in another way.

    Args:
        now: what changes the figures: backend, device, weights, precision, the source of input.
        versions: of the libraries; others are stated, and may be used.
        checkpoint: of the run.

    Raises:
        UsageError: with what differs from the run's beginning.
    """
    record = checkpoint.load(RECORD)
    if record is None:
        checkpoint.save(RECORD, {**now, "versions": versions})
        return
    first = record.values
    differ = [name for name in now if now[name] != first[name]]
    if differ:
        raise UsageError(
            "expected to go on as the run was begun, with "
            f"{', '.join(f'{name} {first[name]}' for name in differ)}; received "
            f"{', '.join(f'{name} {now[name]}' for name in differ)}; begin a new run"
        )
    if others := other_versions(first["backend"], first["versions"]):
        say(f"begun with other versions, so the figures may differ: {others}")
