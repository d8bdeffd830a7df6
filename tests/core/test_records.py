"""One codec: what is written comes back, and what cannot be right is one line that says where."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from made_up import made_up_run

from app.core.errors import BundleError
from app.core.records import read_record, schemas_of, values_of, write_record
from app.core.run_metrics import Int8Metrics, Metrics


@dataclass(frozen=True)
class Part:
    """A record within a record."""

    name: str
    size: int = 3


@dataclass(frozen=True)
class Whole:
    """A record with one of each kind of field."""

    folder: Path
    rate: float
    parts: tuple[Part, ...] = ()
    mode: Literal["auto", "off"] = "auto"
    note: str | None = None
    figures: dict[str, float] = field(default_factory=dict)


WHOLE = Whole(Path("a\udcff"), 0.5, (Part("x"), Part("y", 4)), "off", "n", {"a": 1.0})
VALUES = json.loads(json.dumps(values_of(WHOLE)))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_record(WHOLE, tmp_path / "whole.json")
    assert read_record(tmp_path / "whole.json", Whole, BundleError, "again") == WHOLE
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(replace(WHOLE, rate=float("nan")), tmp_path / "whole.json")
    with pytest.raises(NotImplementedError):
        values_of(replace(WHOLE, note=object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": "fast"}, r'rate to be a number; received "fast"'),
        ({"rate": True}, r"rate to be a number; received true"),
        ({"rate": 10**400}, r"rate to be a number that fits into 64 bits"),
        ({"rate": float("inf")}, r"rate to be a finite number; received inf"),
        ({"folder": 3}, r"folder to be a path; received 3"),
        ({"mode": "on"}, r'mode to be "auto" or "off"; received "on"'),
        ({"note": 3}, r"note to be text or null; received 3"),
        ({"parts": {}}, r"parts to be a list; received {}"),
        ({"parts": [{"name": "x"}, {"name": "y", "size": "4"}]}, r'parts\[1\]\.size .*"4"'),
        ({"parts": [{"size": 4}]}, r"parts\[0\]\.name to be there"),
        ({"figures": {"a": 1, "b": None}}, r"figures\.b to be a number; received null"),
    ],
)
def test_a_fault_is_named_by_its_place(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({**VALUES, **change}))
    with pytest.raises(
        BundleError, match=rf"expected in .*whole\.json {message}.*; again$"
    ) as caught:
        read_record(path, Whole, BundleError, "again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000, "1" * 10_000])
def test_what_is_no_json_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text(text)
    with pytest.raises(BundleError, match=r"expected JSON in .*; again"):
        read_record(tmp_path / "whole.json", Whole, BundleError, "again")
    with pytest.raises(BundleError, match=r"nowhere; received none that can be read"):
        read_record(tmp_path / "nowhere", Whole, BundleError, "again")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(BundleError, match=r"to be a file; received a folder, pipe .*; again"):
            read_record(path, Whole, BundleError, "again")


def test_a_file_of_another_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({"folder": "f", "rate": 1, "new": 1}))
    assert read_record(path, Whole, BundleError, "") == Whole(Path("f"), 1.0)
    with pytest.raises(BundleError, match="received new as well"):
        read_record(path, Whole, BundleError, "", exact=True)
    path.write_text(json.dumps({"folder": "f", "rate": 1}))
    with pytest.raises(BundleError, match=r'without parts, .*for the default add "parts": '):
        read_record(path, Whole, BundleError, "", exact=True)


def test_metrics_come_back_and_keep_their_names(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", metrics={"int8": {"why_not": "no VNNI"}, "new": 1})
    metrics = run.read_metrics()
    assert metrics.int8 == Int8Metrics(why_not="no VNNI")
    assert sum(map(sum, metrics.test.confusion)) == metrics.test.n
    raw = json.loads(run.metrics.read_text())
    write_record(metrics, run.metrics)
    assert run.read_metrics() == metrics
    again = json.loads(run.metrics.read_text())
    assert set(raw) - {"new"} <= set(again) == set(Metrics.__dataclass_fields__)
    assert {**again["test"], "reliability": 0} == {**raw["test"], "reliability": 0}


def test_schemas_tell_what_records_hold() -> None:
    schemas = schemas_of((Metrics,), "#/place/")
    assert {"classes", "test"} <= set(schemas["Metrics"]["required"])
    assert schemas["Metrics"]["properties"]["test"] == {"$ref": "#/place/SplitMetrics"}
    assert "memory" not in schemas["Metrics"]["required"]
    assert schemas["AnswerCounts"]["description"].startswith("How many photos got which answer")
