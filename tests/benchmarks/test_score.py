"""``benchmarks.score`` in small: each measurement runs and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from photos import make_photo
from ray_cluster import running_cluster
from served import tiny_bundle

from benchmarks import score

pytest.importorskip("pyarrow", reason="PyArrow is optional and not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    tiny_bundle(place / "bundle")
    for number in range(12):
        make_photo(place / "photos" / f"{number}.png", number)
    return place


@pytest.mark.slow
def test_each_measurement_runs_in_small(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for what in ("rate", "memory", "listing", "kills"):
        command = [what, str(place / "photos"), "--bundle", str(place / "bundle"), "--json"]
        score.main([*command, "--photos", "24", "--repeat", "1", "--files", "1000"])
        found[what] = json.loads(capsys.readouterr().out)
    assert found["rate"]["photos_a_second"] > found["rate"]["photos_a_second_with_start"] > 0
    assert found["memory"]["peak_mb"].keys() == {"1000"}
    assert found["listing"]["files_a_second"] > 100
    assert found["kills"]["rows"][0]["met"]
    # At most the part that was written when it was killed, before the index knew of it.
    assert found["kills"]["rows_written_and_answered_again"] <= 1000 // 20
    assert sorted(path.name for path in place.iterdir()) == ["bundle", "photos"]


@pytest.mark.slow
def test_workers_of_ray_are_compared(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray", reason="optional and not installed")
    with running_cluster(tmp_path / "log") as address:
        monkeypatch.setattr(score, "LOCAL", address)
        command = ["ray", str(place / "photos"), "--bundle", str(place / "bundle"), "--json"]
        score.main([*command, "--photos", "24", "--repeat", "1"])
    found = json.loads(capsys.readouterr().out)
    assert found["photos_a_second_ray"] > 0
    assert "two workers" in found["rows"][0]["what"]
