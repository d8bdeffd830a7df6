"""The benchmark of the service, in small: it runs, and what does not depend on speed holds."""

import json
import shutil

import pytest
from photos import drawn_photos
from served import tiny_bundle

from app.core.cli import run
from benchmarks import serve

pytestmark = pytest.mark.slow


def test_the_benchmark_in_small(tmp_path, capsys):
    if shutil.which("wrk") is None:
        pytest.skip("no wrk, which sends the load (on Debian: wrk)")
    bundle, photos = tiny_bundle(tmp_path / "bundle"), drawn_photos(tmp_path / "drawn")
    flags = ["--bundle", str(bundle), "--data", str(photos), "--photos", "24", "--json"]
    small = ["--seconds", "1", "--repeat", "1", "--requests", "300"]
    assert run(serve.main, [*flags, *small]) in (0, 1)  # the bars are for a real network
    found = json.loads(capsys.readouterr().out)
    assert found["speed"]["served"] > 0
    assert found["latency"]["p50"] <= found["latency"]["p99"]
    assert set(found["memory"]["bytes"]) == {"30", "300"}
    for ended in found["end"].values():
        assert (ended.get("lost", 0), ended["exit_code"]) == (0, 0)
        assert ended["answered"] > 0
    told = found["rough"]["told"]
    assert {"wrong type: 415", "wrong form: 400", "half: gone"} <= set(told)
    assert not [words for words in told if ": 5" in words]
