"""A run's ``config.json``: all settings, the stages written out in full, to be read back."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from app.core.config import TrainConfig
from app.core.errors import UsageError
from app.core.keras_backend import chosen_backend

_UNIONS = (Union, UnionType)  # ``Literal["a"] | None`` is the first, ``str | None`` the second


def config_values(config: TrainConfig) -> dict[str, object]:
    """Return the settings as JSON knows them, the stages written out in full."""
    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return {**values, "stages": [dataclasses.asdict(stage) for stage in config.stage_plan()]}


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config_values`` gave with one entry a setting, a stage's as ``block5.epochs``.

    ``stages`` is left as the command line takes it: ``head,block5``.
    """
    stages = values["stages"]
    flat = {**values, "stages": ",".join(stage["name"] for stage in stages)}
    for stage in stages:
        flat |= {f"{stage['name']}.{name}": v for name, v in stage.items() if name != "name"}
    return flat


def read_config(path: Path) -> TrainConfig:
    """Return the settings that ``config_values`` gave, exactly those or none.

    Raises:
        UsageError: when the file cannot be read, lacks a setting, has one more or another kind of
            value, or describes a stage otherwise than this version of the program trains it.
    """
    values = _read(path)
    stages = values["stages"]
    try:
        values["stages"] = tuple(_text(stage["name"]) for stage in stages)
    except (TypeError, KeyError):
        raise _wrong(path, "stages to be a list of stages with their names", stages) from None
    for name, hint in get_type_hints(TrainConfig).items():
        if name != "stages":
            if not _fits(values[name], hint):
                raise _wrong(path, f"{name} to be {_in_words(hint)}", values[name])
            if isinstance(values[name], str) and Path in (hint, *get_args(hint)):
                values[name] = Path(values[name])
    config = TrainConfig(**values)
    for given, known in zip(stages, map(dataclasses.asdict, config.stage_plan()), strict=True):
        for key in given | known:
            if given.get(key) != _as_json(known.get(key)):
                raise _wrong(
                    path,
                    f"{key} of stage {known['name']} to be {json.dumps(known.get(key))}, as this "
                    "version of the program trains it",
                    given.get(key),
                )
    return config


def other_versions(metrics: Mapping[str, Any]) -> str:
    """Return in words what a run was made with that is not what is here; empty when all is.

    Args:
        metrics: of the run; its ``backend`` and ``versions`` are looked at.
    """
    then = {"backend": metrics["backend"], **metrics["versions"]}
    now = {name: installed_version(name) for name in metrics["versions"]}
    now["backend"] = chosen_backend()
    return ", ".join(
        f"{name} {old} (now {now[name]})" for name, old in then.items() if old != now[name]
    )


def installed_version(name: str) -> str:
    """Return the version of Python or of a library."""
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:  # tensorflow-cpu and the like bring the module by another name
        return "unknown"


def _read(path: Path) -> dict[str, Any]:
    """Return what the file says, when it says all settings and nothing else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"expected a run's config.json; received {path} ({error.strerror})"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"expected a run's config.json; received {path}, which is no JSON ({error})"
        ) from error
    if not isinstance(values, dict):
        raise _wrong(path, "settings by their names", values)
    names = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    if unknown := [name for name in values if name not in names]:
        raise UsageError(
            f"expected {path} to hold settings that this version of the program knows; received "
            f"{', '.join(unknown)} as well; take the line out, or use the version that wrote it"
        )
    if missing := [name for name in names if name not in values]:
        add = ", ".join(f"{json.dumps(n)}: {json.dumps(names[n], default=str)}" for n in missing)
        raise UsageError(
            f"expected all settings in {path}; received it without {', '.join(missing)}; "
            f"for the default add {add}"
        )
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _wrong(path: Path, expected: str, received: object) -> UsageError:
    return UsageError(f"expected in {path} {expected}; received {json.dumps(received)}")


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _fits(value: object, hint: Any) -> bool:
    """Say whether a value that was read from JSON can be a setting of this type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in _UNIONS:
        return any(_fits(value, one) for one in get_args(hint))
    kinds = {Path: (str,), float: (float, int)}.get(hint, (hint,))
    if type(value) is int and hint is float and abs(value) > sys.float_info.max:
        return False
    return type(value) in kinds  # exactly: a bool is an int as well


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(json.dumps, get_args(hint)))
    if get_origin(hint) in _UNIONS:
        return " or ".join(map(_in_words, get_args(hint)))
    words = {Path: "a path", str: "text", int: "a whole number", float: "a number"}
    return {**words, bool: "true or false", type(None): "null"}[hint]
