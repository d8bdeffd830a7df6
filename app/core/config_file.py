"""A run's ``config.json``: all settings, the stages written out in full, to be read back."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.core.config import STAGE_RANGES, Stage, TrainConfig
from app.core.errors import UsageError
from app.core.keras_backend import chosen_backend
from app.core.records import as_record, read_json, values_of

MEND = "mend the file, or give the settings as flags"


def config_values(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as JSON knows them, the stages written out in full, paths absolute."""
    values: dict[str, Any] = values_of(config)
    del values["stage_settings"]
    for name in ("data", "exclude", "runs", "weights"):
        if values[name] not in (None, "none"):
            values[name] = str(Path(values[name]).absolute())
    return {**values, "stages": values_of(config.stage_plan())}


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config_values`` gave with one entry a setting, a stage's as ``block5.epochs``.

    ``stages`` is left as the command line takes it: ``head,block5``.
    """
    stages = values["stages"]
    flat = {**values, "stages": ",".join(stage["name"] for stage in stages)}
    for stage in stages:
        flat |= {f"{stage['name']}.{name}": v for name, v in stage.items() if name != "name"}
    return flat


def read_config(path: Path, *, exact: bool = True) -> TrainConfig:
    """Return the settings that ``config_values`` gave.

    Args:
        path: of a run's ``config.json``.
        exact: refuse a file of another version, which lacks a setting, has one more or solves the
            head otherwise; else the defaults stand for these.

    Raises:
        UsageError: when the file cannot be read, lacks a setting, has one more or another kind of
            value, or opens other blocks in a stage than this version of the program.
    """
    values = read_json(path, UsageError, MEND)
    try:
        if isinstance(values, dict):
            written = values.get("stages")
            if not isinstance(written, list) or "stage_settings" in values:
                raise UsageError(
                    f"expected in {path} stages to be a list of stages with all their settings; "
                    f"received something else; {MEND}"
                )
            stages = [
                as_record(stage, Stage, path, UsageError, MEND, exact=exact, at=f"stages[{number}]")
                for number, stage in enumerate(written)
            ]
            names = [stage.name for stage in stages]
            values |= {"stages": names, "stage_settings": []}
        config = as_record(values, TrainConfig, path, UsageError, MEND, exact=exact)
        return dataclasses.replace(
            config, stage_settings=_changed(config, stages, path, exact=exact)
        )
    except UsageError as error:
        told = str(error)
        raise (error if str(path) in told else UsageError(f"{told} (in {path})")) from error


def stage_settings(config: TrainConfig, stages: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what ``--set`` makes of the plan of ``config`` so that it becomes ``stages``."""
    return tuple(
        f"{stage.name}.{name}={stages[stage.name][name]}"
        for stage in config.stage_plan()
        for name in STAGE_RANGES
        if stages[stage.name][name] != getattr(stage, name)
    )


def _changed(
    config: TrainConfig, stages: list[Stage], path: Path, *, exact: bool
) -> tuple[str, ...]:
    for number, (given, known) in enumerate(zip(stages, config.stage_plan(), strict=True)):
        for name in ("cut", "opens"):
            if getattr(given, name) != getattr(known, name):
                raise UsageError(
                    f"expected in {path} stages[{number}].{name} to be {getattr(known, name)!r}, "
                    f"as this version of the program trains {known.name}; received "
                    f"{getattr(given, name)!r}; {MEND}"
                )
    changed = stage_settings(config, {stage.name: vars(stage) for stage in stages})
    solved = tuple(f"{stage.name}." for stage in stages if not stage.opens)
    return tuple(text for text in changed if exact or not text.startswith(solved))


def other_versions(backend: str, versions: Mapping[str, str]) -> str:
    """Return in words what a run was made with that is not what is here; empty when all is."""
    now = {name: installed_version(name) for name in versions} | {"backend": chosen_backend()}
    return ", ".join(
        f"{name} {old} (now {now[name]})"
        for name, old in {"backend": backend, **versions}.items()
        if old != now[name]
    )


def installed_version(name: str) -> str:
    """Return the version of Python or of a library."""
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:  # tensorflow-cpu and the like bring the module by another name
        return "unknown"
