"""One codec for the JSON files of a run: a dataclass is written as JSON, and read back or refused.

What is read is checked against the types of the fields, and against ``msgspec.Meta`` where a field
has one. A refusal is one line: the file, the place in it, what was expected there, what was
received, and how to mend it. msgspec is imported with the first record: ``--help`` needs none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from inspect import cleandoc
from os.path import exists, isfile
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_args, get_type_hints

from app.core.atomic_files import write_json
from app.core.errors import AppError

T = TypeVar("T")
_LONGEST = 80  # characters of a received value that are shown
# msgspec's sentence: what it expected, what it got, and the place: of a value, or of a name there.
_FAULT = re.compile(r"\A(.*?)(?:, got `([^`]*)`)?(?: - at (`key` in )?`\$(.*)`)?\Z", re.DOTALL)
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "values by their names",
}


def values_of(record: object) -> Any:
    """Return a record as JSON knows it, in the order of its fields; paths become text."""
    import msgspec

    return msgspec.to_builtins(record, enc_hook=_text_of_path)


def write_record(record: object, path: Path) -> None:
    """Write a record as indented JSON, whole or not at all; NaN and infinity are refused."""
    write_json(values_of(record), path)


def schemas_of(kinds: Sequence[type[Any]], place: str) -> dict[str, Any]:
    """Return the JSON Schema of each record, and of those that they hold, by its class's name.

    Args:
        kinds: dataclasses; their docstrings are the descriptions.
        place: where the schemas will lie in their document, such as ``#/components/schemas/``.
    """
    import msgspec

    _, schemas = msgspec.json.schema_components(kinds, ref_template=place + "{name}")
    return {
        name: {**schema, "description": cleandoc(schema["description"])}
        for name, schema in schemas.items()
    }


def read_record(
    path: Path, kind: type[T], error: type[AppError], mend: str, *, exact: bool = False
) -> T:
    """Return what ``write_record`` wrote.

    Args:
        path: of the file.
        kind: a dataclass.
        error: what is raised.
        mend: the end of its message: what the user can do.
        exact: refuse names that ``kind`` does not have, and do not fill in defaults; else a file of
            another version is read as far as it is known.

    Raises:
        AppError: ``error``, when the file cannot be read or holds something else.
    """
    return as_record(read_json(path, error, mend), kind, path, error, mend, exact=exact)


def read_json(path: Path, error: type[AppError], mend: str) -> Any:
    """Return what a JSON file holds; raise ``error`` when it cannot be read or is no JSON."""
    if exists(path) and not isfile(path):  # a pipe that nobody writes to would never end
        raise error(f"expected {path} to be a file; received a folder, pipe or device; {mend}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise error(
            f"expected {path}; received none that can be read ({reason.strerror}); {mend}"
        ) from reason
    except (ValueError, RecursionError) as reason:
        raise error(
            f"expected JSON in {path}; received a damaged file ({reason}); {mend}"
        ) from reason


def as_record(
    values: Any,
    kind: type[T],
    source: Path,
    error: type[AppError],
    mend: str,
    *,
    exact: bool = False,
    at: str = "",
) -> T:
    """Return JSON values as a record; ``at`` is their place in the file ``source``.

    Raises:
        AppError: ``error``, as ``read_record``.
    """
    import msgspec

    def refuse(place: str, expected: str, received: str) -> AppError:
        where = f" {at}{place}".replace(" .", " ").rstrip()
        return error(f"expected in {source}{where} to be {expected}; received {received}; {mend}")

    nodes = dict(_nodes(values))
    for place, value in nodes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(place, "a finite number", str(value))
    if exact and isinstance(values, dict):
        _refuse_other_names(values, kind, error, f"{at} in {source}" if at else str(source))
    try:
        return msgspec.convert(values, kind, dec_hook=_path_of_text)
    except msgspec.ValidationError as fault:
        [(expected, got, of_a_name, place)] = _FAULT.findall(str(fault))
        if missing := re.fullmatch("Object missing required field `(.*)`", expected):
            raise refuse(f"{place}.{missing[1]}", "there", "the file without it") from fault
        if not expected.startswith(("Expected", "Invalid enum", "Number")):  # a record's own check
            raise error(f"expected in {source} {at}{expected}; {mend}") from fault
        # msgspec does not say which name of a mapping it means: the first with such a value.
        pattern = re.escape(place).replace(re.escape("[...]"), r"\..*")
        meant = [k for k, v in nodes.items() if re.fullmatch(pattern, k) and got in ("", _kind(v))]
        place = meant[0] if meant else place
        wanted, value = _in_words(expected, kind, place), nodes.get(place)
        if of_a_name:
            wanted, value = f"by names that are {wanted}", list(nodes[place])
        raise refuse(place, wanted, json.dumps(value)[:_LONGEST]) from fault


def _refuse_other_names(
    values: dict[str, Any], kind: type[Any], error: type[AppError], where: str
) -> None:
    """Raise ``error`` for a name that a record lacks, or one with a default that the file lacks."""
    known = {field.name: field.default for field in fields(kind)}
    if unknown := [name for name in values if name not in known]:
        raise error(
            f"expected {where} to hold what this version of the program knows; received "
            f"{', '.join(unknown)} as well; take the line out, or use the version that wrote it"
        )
    if missing := [n for n, d in known.items() if n not in values and d is not MISSING]:
        add = ", ".join(f"{json.dumps(n)}: {json.dumps(values_of(known[n]))}" for n in missing)
        raise error(
            f"expected all settings in {where}; received it without {', '.join(missing)}; "
            f"for the default add {add}"
        )


def _nodes(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a JSON document with its place, such as ``.stages[1].epochs``."""
    yield place, value
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _nodes(one, f"{place}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _nodes(one, f"{place}[{number}]")


def _kind(value: object) -> str:
    """Return what msgspec calls the kind of a JSON value."""
    kinds = {type(None): "null", list: "array", dict: "object"}
    return kinds.get(type(value), type(value).__name__)


def _in_words(expected: str, kind: type[Any], place: str) -> str:
    """Turn msgspec's "Expected `int | null`" into words."""
    if expected.startswith("Number"):
        return "a number that fits into 64 bits"
    if expected.startswith("Invalid enum"):
        choices = get_args(get_type_hints(kind).get(place.removeprefix(".")))
        return " or ".join(map(json.dumps, choices))
    text = expected.removeprefix("Expected ").replace(" | ", "` or `")
    text = re.sub(r" matching regex '(.*)'", r" of the form \1", text)
    return re.sub("`([^`]*)`", lambda name: _WORDS.get(name[1], name[1]), text)


def _text_of_path(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a record")


def _path_of_text(kind: type[Any], value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise ValueError("Expected `a path`")
