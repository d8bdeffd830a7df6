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
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from app.core.atomic_files import write_json
from app.core.errors import AppError

T = TypeVar("T")
_LONGEST = 80  # characters of a received value that are shown
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
        where = "".join(f" {place}" for place in [at + place] if place).replace(" .", " ")
        return error(f"expected in {source}{where} to be {expected}; received {received}; {mend}")

    nodes = dict(_nodes(values))
    for place, value in nodes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(place, "a finite number", str(value))
    if exact and isinstance(values, dict):
        _refuse_other_names(values, kind, source, error, at)
    try:
        return msgspec.convert(values, kind, dec_hook=_path_of_text)
    except msgspec.ValidationError as fault:
        text, place, of_a_name = _parted(str(fault))
        found = [key for key in nodes if re.fullmatch(_pattern(place), key)]
        if missing := re.fullmatch("Object missing required field `(.*)`", text):
            raise refuse(f"{place}.{missing[1]}", "there", "the file without it") from fault
        expected, _, got = text.partition(", got ")
        found = [key for key in found if not got or _kind_of(nodes[key]) == got.strip("`")] or found
        if not expected.startswith(("Expected", "Invalid enum", "Number")):  # a record's own check
            raise error(f"expected in {source} {at}{text}; {mend}") from fault
        wanted = _choices(kind, place) or _in_words(expected)
        value = nodes[found[0]] if found else got
        if of_a_name:
            wanted, value = f"by names that are {wanted}", list(value)
        received = json.dumps(value)[:_LONGEST]
        raise refuse(found[0] if found else place, wanted, received) from fault


def _refuse_other_names(
    values: dict[str, Any], kind: type[Any], source: Path, error: type[AppError], at: str
) -> None:
    """Raise ``error`` for a name that a record lacks, or one with a default that the file lacks."""
    known = {field.name: field.default for field in fields(kind)}
    where = f"{at} in {source}" if at else str(source)
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


def _parted(fault: str) -> tuple[str, str, bool]:
    """Part msgspec's sentence from its place, and whether it means a name there, not a value."""
    found = re.fullmatch(r"(.*?)(?: - at (`key` in )?`\$(.*)`)?", fault, re.DOTALL)
    return (found[1], found[3] or "", bool(found[2])) if found else (fault, "", False)


def _pattern(place: str) -> str:
    """Return the pattern of a place: msgspec does not say which name of a mapping it means."""
    return re.escape(place).replace(re.escape("[...]"), r"\..*")


def _kind_of(value: object) -> str:
    kinds = {type(None): "null", list: "array", dict: "object"}
    return kinds.get(type(value), type(value).__name__)


def _in_words(expected: str) -> str:
    """Turn msgspec's "Expected `int | null`" into words."""
    if expected == "Number out of range":
        return "a number that fits into 64 bits"
    text = expected.removeprefix("Expected ").replace(" | ", "` or `")
    text = re.sub(r" matching regex '(.*)'", r" of the form \1", text)
    return re.sub("`([^`]*)`", lambda name: _WORDS.get(name[1], name[1]), text)


def _choices(kind: type[Any], place: str) -> str:
    """Return the values that a field of ``kind`` may have; empty where it may have any."""
    hint = get_type_hints(kind).get(place.removeprefix("."))
    values = get_args(hint) if get_origin(hint) is Literal else ()
    return " or ".join(map(json.dumps, values))


def _text_of_path(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a record")


def _path_of_text(kind: type[Any], value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise ValueError(f"Expected `a path`, got `{_kind_of(value)}`")
