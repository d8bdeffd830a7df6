"""Runs that a benchmark asks for by name: read where they are there, trained where they are not.

A folder's name proves nothing. What lies there must have been trained as it would be now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.config import AUTO_SIZE, config_values, flattened
from app.core.console import say
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.report.results import Results, read_results
from benchmarks.measured import measure, train_command
from train import parse

FREE = ("runs", "run", "report", "log")  # where it lies and who is told of it changes no figure


def results_of(
    data: Path | None, runs: Path, flags_of: Mapping[str, Sequence[str]]
) -> dict[str, Results]:
    """Return the results of each named run, in the order of the names.

    Those that are there are judged before the first of the others is trained, which takes long.

    Args:
        data: the photos; None when all runs are there.
        runs: the folder that holds them, or gets them.
        flags_of: by name, what ``train.py`` is given besides these.

    Raises:
        UsageError: when a run was trained otherwise, has other test photos than the first, or
            cannot be trained for want of photos.
        BundleError: when a run is unfinished or damaged.
    """
    found: dict[str, Results] = {}
    there = [name for name in flags_of if (runs / name).exists()]
    for name in there:
        found[name] = _read(data, runs, name, flags_of[name])
        _refuse_other_photos(found)
    for name in [name for name in flags_of if name not in there]:
        if data is None:
            raise UsageError(
                f"expected --data to train {runs / name} on, which is not there yet; received none"
            )
        say(f"training {runs / name}")
        measure(train_command(data, runs, name, flags_of[name]))
        found[name] = _read(data, runs, name, flags_of[name])
        _refuse_other_photos(found)
    return {name: found[name] for name in flags_of}


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides a run's figures, from its ``config.json``, one entry a setting.

    A stage's settings go by ``block5.epochs``. Of the weights only whether there are any is told:
    those that are given are proved to be the official ones wherever they lie
    (``app.network.pretrained_weights``).
    """
    settings = {name: value for name, value in flattened(config).items() if name not in FREE}
    settings["data"] = str(Path(config["data"]).resolve())
    settings["weights"] = "none" if config["weights"] == "none" else "official"
    return settings


def _read(data: Path | None, runs: Path, name: str, flags: Sequence[str]) -> Results:
    """Read a run and refuse it unless the command that would be given now has made it."""
    results = read_results(Run(runs / name))
    command = train_command(data or results.config.data, runs, name, flags)
    values = config_values(parse(command[2:]))
    wanted, received = (settings_of(v) for v in (values, config_values(results.config)))
    if wanted["image_size"] == AUTO_SIZE:  # a run has the size that was found
        wanted["image_size"] = received["image_size"]
    differ = [key for key in {**wanted, **received} if wanted.get(key) != received.get(key)]
    if "stages" in differ:  # then the settings of one that only one of them has say nothing more
        differ = [key for key in differ if "." not in key]
    if differ:
        raise UsageError(
            f"expected {runs / name} to be trained with {_told(wanted, differ)}; received one "
            f"with {_told(received, differ)}; give the flags that it was trained with, remove it, "
            "or give another --runs"
        )
    return results


def _told(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {settings.get(name, 'unknown')}" for name in names)


def _refuse_other_photos(found: Mapping[str, Results]) -> None:
    """Refuse runs that were not tested on the same photos, by name and content."""
    photos = {
        name: {
            (row.name, row.sha256)
            for row in results.manifest
            if (row.split, row.verdict) == ("test", "used")
        }
        for name, results in found.items()
    }
    first = next(iter(photos))
    for name in photos:
        if photos[name] != photos[first]:
            raise UsageError(
                f"expected the same test photos in {first} and {name}; received others; each seed "
                "divides photos anew that have no test/ folder: give --data with one, remove the "
                "wrong run, or give another --runs"
            )
